"""Rules of augmentation written by a model and approved by a judge (Environment Tuning, 2510.10197, appendix B)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from envs.augmentation import CATEGORIES, Rule, Rules, rule_of
from envs.author import Author, Unreadable, ask_json
from envs.environment import environment
from envs.truth import references
from envs.types import Json, Message, Task, ToolCall

TRIES, SHOTS = 3, 4
VERDICTS = ("solution_leakage", "exploration_constraint", "actionability", "hint_quality")
WRITER = f"""You improve an environment in which a tool-using agent is trained. One of its tools answers an error so tersely that
agents fail on it again and again. Write the answer that it should give instead: it names the cause, says which constraint or
which earlier step the tool depends on, and leaves the solution to the agent. Never give a value or the call that solves the task.
Names in braces, such as {{path}}, may stand for what the error names and for the call's arguments; use no others.
Reply with one JSON object:
{{"reasoning": text, "need_augmentation": true or false,
 "error_category": one of {json.dumps(CATEGORIES)},
 "augmented_feedback": text}}"""
JUDGE = """You guard the training of a tool-using agent against hints that do its work. You see an error, the hint that is to
replace it, and the reference calls, which the agent must find by itself. Reply with one JSON object:
{"solution_leakage": true where the hint tells a value or a call of the reference that the agent could not know,
 "exploration_constraint": true where it forbids or prescribes more than the tool's own rules do,
 "actionability": true where the agent can tell from it what to look at or to do next,
 "hint_quality": "high" or "low",
 "suggestions": text}"""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error met in one episode, as it was `told`, and with the call's arguments as names in braces: a rule's `error`."""

    tool: str
    told: str
    error: str
    call: ToolCall
    task: Task

    @property
    def key(self) -> tuple[str, str]:
        return self.tool, self.error


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule, or why there is none after so many tries."""

    failure: Failure
    rule: Rule | None
    reason: str


def failures(task: Task, messages: Sequence[Message]) -> list[Failure]:
    """The errors of an episode, by playing its messages through the bare environment again."""
    env = environment(task.env).make()
    env.reset(task)
    found: list[Failure] = []
    for message in messages:
        observation = env.step(message)
        outcomes = [outcome for outcome in observation.signals.outcomes if outcome.error]
        found += [Failure(one.call.name, one.error, pattern(one.error, one.call), one.call, task) for one in outcomes]
        if observation.done:
            break
    env.close()
    return found


def pattern(error: str, call: ToolCall) -> str:
    """The error with the call's arguments as names in braces, the longest first, so that alike errors become one."""
    text = error.replace("{", "{{").replace("}", "}}")
    told = {
        name: value for name, value in call.arguments.items() if isinstance(value, (str, int)) and not isinstance(value, bool)
    }
    for name, value in sorted(told.items(), key=lambda pair: -len(str(pair[1])[:1000])):
        if str(value).strip() and name.isidentifier():
            text = text.replace(str(value), f"{{{name}}}")
    return text


def draft(failure: Failure, rules: Rules, *, writer: Author, judge: Author) -> Draft:
    """A rule for this error, written and judged up to TRIES times, each try told why the one before was not taken."""
    asked, reason = _request(failure, rules), ""
    for _ in range(TRIES):
        try:
            reply = ask_json(writer, WRITER, f"{asked}\n\nThe last try was refused: {reason}" if reason else asked)
            if reply.get("need_augmentation") is False:
                return Draft(failure, None, f"the author sees no need: {reply.get('reasoning', '')}")
            rule = _rule(failure, reply)
            reason = _objection(failure, rule, judge)
        except (Unreadable, ValueError) as error:
            reason = str(error)
            continue
        if not reason:
            return Draft(failure, rule, "approved")
    return Draft(failure, None, f"refused {TRIES} times, at last: {reason}")


def _request(failure: Failure, rules: Rules) -> str:
    tools = {_function(tool)["name"]: _function(tool) for tool in failure.task.tools}
    near = chain(rules.rules.get(failure.tool, ()), *(group for tool, group in rules.rules.items() if tool in tools))
    shots = list(dict.fromkeys(near))[:SHOTS]
    parts = {
        "tool": tools.get(failure.tool, {"name": failure.tool, "note": "no such tool was listed"}),
        "failed call": {"name": failure.tool, "arguments": dict(failure.call.arguments)},
        "error": failure.told,
        "names you may use": sorted(name for name in failure.call.arguments if f"{{{name}}}" in failure.error),
        "answers written before": [{"tool": r.tool, "error": r.error, "category": r.category, "answer": r.hint} for r in shots],
    }
    return json.dumps(parts, indent=1, ensure_ascii=False)


def _function(tool: Mapping[str, Json]) -> dict[str, Json]:
    return cast(dict[str, Json], tool["function"])


def _rule(failure: Failure, reply: Mapping[str, Json]) -> Rule:
    entry = {"category": reply.get("error_category"), "hint": reply.get("augmented_feedback")}
    return rule_of({"tool": failure.tool, "error": failure.error, **entry}, "the reply")


def _objection(failure: Failure, rule: Rule, judge: Author) -> str:
    """Why the rule must not be taken; empty where it may."""
    text = rule.text(failure.call, failure.told)
    if told := leaks(failure.task, failure.call, text):
        return f"the hint tells {told[0]!r}, which the reference calls need"
    calls = [[call.name, dict(call.arguments)] for reference in references(failure.task) for call in reference.calls]
    asked = {"tool": failure.tool, "error": failure.error, "hint": rule.hint, "reference calls": calls}
    reply = ask_json(judge, JUDGE, json.dumps(asked, indent=1, ensure_ascii=False))
    if missing := [name for name in VERDICTS if name not in reply]:
        raise Unreadable(f"the judge's reply lacks {missing[0]}")
    good = not reply["solution_leakage"] and not reply["exploration_constraint"] and reply["actionability"]
    if good and reply["hint_quality"] == "high":
        return ""
    return f"the judge says {json.dumps({name: reply[name] for name in VERDICTS})}: {reply.get('suggestions', '')}"


def leaks(task: Task, call: ToolCall, text: str) -> list[str]:
    """Argument values of the reference, of three characters or more, that the text tells and the task and the call do not."""
    known = json.dumps([list(task.tools), [message.content for message in task.messages], dict(call.arguments)])
    values = [value for reference in references(task) for one in reference.calls for value in one.arguments.values()]
    told = [str(value) for value in values if isinstance(value, (str, int, float)) and not isinstance(value, bool)]
    return [value for value in told if len(value) >= 3 and value in text and value not in known]
