"""Stage 5: every document becomes one Python function, which runs here and gives the sub-answers for the right calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from envs.answers import holds, pieces, tells
from envs.construct.records import Built, Example, Toolset, name_of
from envs.construct.stage import Ask, Refused, misfit, shown
from envs.sandbox import Sandbox
from envs.types import Json, ToolCall

MOST = 3  # examples
SYSTEM = """You deploy tools: for each document you write one Python function of that name with those parameters. It needs
nothing but the standard library, opens no file and no connection, draws no random number, does not look at the clock, and never
raises: for bad arguments it returns {"error": text}. What it knows stands in it as data, with other entries beside those that are
asked for. For the call of each sub-question its result holds the sub-answer, and little else; without the right arguments it
never gives that answer. You may add up to three examples of questions about those other entries, for the agent to see, which
tell none of the sub-answers.
Reply with one JSON object: {"codes": {tool's name: Python source},
 "examples": [{"question": text, "calls": [{"name": tool, "arguments": object}], "answer": text}]}"""


def deploy(toolset: Toolset, ask: Ask, *, sandbox: Sandbox) -> Built:
    """Raises Refused where a tool has no code, its code does not run, or a call does not give its answer."""
    reply = ask(SYSTEM, {"stage": "deploy", **shown(toolset)})
    codes = _codes(toolset, reply.get("codes"))
    for name, code in codes.items():
        defined = sandbox.defines(code, name)
        if defined.result is not True:
            raise Refused(f"the code of {name!r} defines no function of that name ({defined.error or 'it is no function'})")
    results: dict[str, Json] = {}
    for sub in toolset.scenario.subs:
        call = toolset.calls[sub.id]
        given = sandbox.call(codes[call.name], call.name, call.arguments)
        if given.error:
            raise Refused(f"the call of sub-question {sub.id} ends with: {given.error}")
        if not holds(sub.answer, given.result):
            raise Refused(
                f"the call of sub-question {sub.id} gives {json.dumps(given.result)[:200]}, which does not hold {sub.answer!r}"
            )
        results[sub.id] = given.result
    examples = reply.get("examples", [])
    told = tuple(_example(toolset, codes, sandbox, value) for value in (examples if isinstance(examples, list) else [])[:MOST])
    return Built(toolset, codes, results, told)


def _codes(toolset: Toolset, value: Json) -> Mapping[str, str]:
    codes = value if isinstance(value, dict) else {}
    names = [name_of(tool) for tool in toolset.tools]
    if missing := [name for name in names if not isinstance(codes.get(name), str)]:
        raise Refused(f"the tool {missing[0]!r} has no code")
    return {name: str(codes[name]) for name in names}


def _example(toolset: Toolset, codes: Mapping[str, str], sandbox: Sandbox, value: Json) -> Example:
    entry = value if isinstance(value, dict) else {}
    told, calls, results = entry.get("calls"), list[ToolCall](), list[Json]()
    for call in told if isinstance(told, list) else []:
        if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict) or call.get("name") not in codes:
            raise Refused("an example has a call of none of the tools")
        name, arguments = str(call["name"]), cast(dict[str, Json], call["arguments"])
        document = next(tool for tool in toolset.tools if name_of(tool) == name)
        if objection := misfit(document, arguments):
            raise Refused(f"the call of an example does not fit {name!r}: {objection}")
        given = sandbox.call(codes[name], name, arguments)
        if given.error:
            raise Refused(f"the call of an example ends with: {given.error}")
        calls.append(ToolCall(name, arguments))
        results.append(given.result)
    answer = str(entry.get("answer", ""))
    if not calls or not all(any(holds(piece, result) for result in results) for piece in pieces(answer)):
        raise Refused(f"the calls of an example give {json.dumps(results)[:200]}, which does not hold its answer {answer!r}")
    text = json.dumps([entry, results], ensure_ascii=False).lower().replace(",", "")
    for sub in toolset.scenario.subs:
        if all(tells(piece, text) for piece in pieces(sub.answer)):
            raise Refused(f"an example tells the answer to sub-question {sub.id}")
    return Example(str(entry.get("question", "")), tuple(calls), tuple(results), answer)
