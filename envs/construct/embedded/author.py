"""The embedded author: answers every stage's request for a question of its own, always alike."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

from envs.construct.embedded.grammar import FACTORS, NUMBERS, Relation
from envs.construct.embedded.world import Step, World
from envs.construct.records import Question
from envs.endpoint import EndpointError, Reply
from envs.types import Json

VERBS = ("get", "find", "look_up", "fetch")
EXAMPLES = 1  # with two, SmolLM2-135M does most by itself
DIFFERENCE = Relation("", "difference", "")  # of two numbers: no table


@dataclass(frozen=True, slots=True)
class Tool:
    """What one function answers about a kind of thing: one relation, or several of which its `field` names one."""

    name: str
    relations: tuple[Relation, ...]
    options: tuple[str, ...] = ()  # of "unit", "case", "several"

    @property
    def is_merged(self) -> bool:
        return len(self.relations) > 1

    @property
    def param(self) -> str:
        return _snake(self.relations[0].subject)


class EmbeddedAuthor:
    """Answers as an endpoint would, from the question's id alone."""

    def ask(self, system: str, user: str) -> Reply:
        """Raises EndpointError where the question is none of its own."""
        request = cast(dict[str, Json], json.loads(user))
        id = str(cast(dict[str, Json], request["question"])["id"])
        if not id.startswith("embedded/"):
            raise EndpointError(f"the embedded author answers no question but its own, and {id!r} is none; name an endpoint")
        return Reply(json.dumps(_story(id).reply(str(request["stage"]))))


def questions(seed: int, count: int) -> Iterable[Question]:
    """The embedded author's own, the four kinds in turn."""
    return (World(f"embedded/{seed}/{number}").question for number in range(count))


class Story:
    """All that is said about one question, stage by stage."""

    def __init__(self, id: str) -> None:
        self._world = World(id)
        rng = random.Random(f"tools {id}")
        self._documented = self._document(rng)
        self._integrated = self._integrate(self._documented, rng)
        self._scaled = tuple(replace(tool, options=_options(tool, rng)) for tool in self._integrated)
        self._distractors = self._distract(rng)

    def reply(self, stage: str) -> dict[str, Json]:
        match stage:
            case "decompose":
                keys = ("id", "text", "answer")
                subs: list[Json] = []
                for sub in self._world.subs:
                    subs.append({**dict(zip(keys, (sub.id, sub.text, sub.answer), strict=True)), "needs": list(sub.needs)})
                return {"sub_questions": subs}
            case "document":
                return self._toolset(self._documented, one_each=True)
            case "integrate":
                return self._toolset(self._integrated)
            case "scale":
                return self._toolset((*self._scaled, *self._distractors))
            case _:
                tools = (*self._scaled, *self._distractors)
                return {
                    "codes": {tool.name: code(tool, self._world) for tool in tools},
                    "examples": self._examples(tools, random.Random(f"examples {self._world.id}")),
                }

    def _document(self, rng: random.Random) -> tuple[Tool, ...]:
        """One tool a step; two for the same relation get names that say the same."""
        tools: list[Tool] = []
        for step in self._world.steps:
            relation = step.relation or DIFFERENCE
            taken = {tool.name for tool in tools}
            names = [name for verb in VERBS if (name := _tool_name(verb, relation)) not in taken]
            tools.append(Tool(rng.choice(names), (relation,)))
        return tuple(tools)

    def _integrate(self, tools: Sequence[Tool], rng: random.Random) -> tuple[Tool, ...]:
        """One tool a relation; at times one for all that is asked of a kind of thing."""
        by_relation = {tool.relations[0]: tool for tool in reversed(tools)}
        merged: dict[str, Tool] = {}
        merge = rng.random() < 0.5
        for relation, tool in reversed(by_relation.items()):
            there = merged.get(relation.subject)
            if merge and relation.subject and there:
                name = f"{rng.choice(VERBS)}_{_snake(relation.subject)}_details"
                merged[relation.subject] = Tool(name, (*there.relations, relation))
            elif relation.subject and not there:
                merged[relation.subject] = tool
            else:
                merged[f"{relation.subject}/{relation.name}"] = tool
        return tuple(merged.values())

    def _distract(self, rng: random.Random) -> tuple[Tool, ...]:
        used = {relation for tool in self._integrated for relation in tool.relations}
        names = {tool.name for tool in self._integrated}
        free = [relation for relation in self._world.relations if relation not in used]
        tools: list[Tool] = []
        for relation in rng.sample(free, rng.choice((1, 1, 2))):
            tool = Tool(_tool_name(rng.choice(VERBS), relation), (relation,))
            if tool.name not in names:
                tools.append(tool)
                names.add(tool.name)
        return tuple(tools)

    def _toolset(self, tools: Sequence[Tool], *, one_each: bool = False) -> dict[str, Json]:
        world = self._world
        calls: dict[str, Json] = {}
        for at, step in enumerate(world.steps):
            tool = tools[at] if one_each else _tool_for(step, tools)
            calls[step.id] = _call(tool, step, world.answers)
        return {"tools": [document(tool) for tool in tools], "calls": calls}

    def _examples(self, tools: Sequence[Tool], rng: random.Random) -> list[Json]:
        """The question itself, asked of other things."""
        found: list[Json] = []
        for other in self._world.beside(rng, EXAMPLES):
            text, answer = self._world.asked(other)
            answers = self._world.answers_of(other)
            calls: list[Json] = [_call(_tool_for(step, tools), step, answers) for step in other]
            found.append({"question": text, "calls": calls, "answer": answer})
        return found


def _tool_for(step: Step, tools: Sequence[Tool]) -> Tool:
    return next(tool for tool in tools if (step.relation or DIFFERENCE) in tool.relations)


def _call(tool: Tool, step: Step, answers: Mapping[str, str | int]) -> dict[str, Json]:
    """The call that answers the step, once the steps that it needs are answered."""
    arguments: dict[str, Json]
    if step.relation is None:
        arguments = {"a": answers[step.needs[0]], "b": answers[step.needs[1]]}
    else:
        arguments = {tool.param: answers[step.needs[0]] if step.needs else step.thing}
        if tool.is_merged:
            arguments["field"] = _snake(step.relation.name)
    return {"name": tool.name, "arguments": arguments}


_story = lru_cache(maxsize=64)(Story)


def document(tool: Tool) -> dict[str, Json]:
    """The tool as a function with a JSON schema."""
    if tool.relations == (DIFFERENCE,):
        number: dict[str, Json] = {"type": "number", "description": "A number."}
        return _function(tool.name, "Subtract b from a.", {"a": number, "b": dict(number)}, ["a", "b"])
    subject = tool.relations[0].subject
    kind: Json = ["string", "array"] if "several" in tool.options else "string"
    name: dict[str, Json] = {"type": kind, "description": f"Name of the {subject}."}
    properties: dict[str, Json] = {tool.param: name}
    if tool.is_merged:
        fields: list[Json] = [_snake(relation.name) for relation in tool.relations]
        properties["field"] = {"type": "string", "enum": fields, "description": "What to tell."}
    if "unit" in tool.options:
        own, (other, _) = NUMBERS[tool.relations[0].value][2], FACTORS[tool.relations[0].value]
        properties["unit"] = {"type": "string", "enum": [own, other], "default": own, "description": "Unit of the result."}
    if "case" in tool.options:
        properties["ignore_case"] = {"type": "boolean", "default": False, "description": "Whether capitals count."}
    told = " or ".join(f"the {relation.name}" for relation in tool.relations)
    required = [name for name in (tool.param, "field") if name in properties]
    return _function(tool.name, f"Tell {told} of a {subject}.", properties, required)


def code(tool: Tool, world: World) -> str:
    """The tool's function in Python."""
    if tool.relations == (DIFFERENCE,):
        return (
            f"def {tool.name}(a, b):\n"
            "    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (a, b)):\n"
            '        return {"error": "a and b have to be numbers"}\n'
            '    return {"difference": a - b}\n'
        )
    tables = {_snake(relation.name): world.tables[relation] for relation in tool.relations}
    first, param, subject = next(iter(tables)), tool.param, tool.relations[0].subject
    several, unit = "several" in tool.options, "unit" in tool.options
    lines = [f"TABLES = {tables!r}", "", f"def {tool.name}({_signature(tool)}):"]
    if several:
        lines += [
            f"    if isinstance({param}, list):",
            f"        return {{str(one): {tool.name}({', '.join(['one', *_passed(tool)])}) for one in {param}[:4]}}",
        ]
    lines += [f"    if not isinstance({param}, str):", f'        return {{"error": "{param} has to be a text"}}']
    field = "field" if tool.is_merged else repr(first)
    if tool.is_merged:
        lines += ["    if field not in TABLES:", '        return {"error": f"field has to be one of {list(TABLES)}"}']
    lines.append(f"    table = TABLES[{field}]")
    if "case" in tool.options:
        lines += ["    if ignore_case:", f"        {param} = {{key.lower(): key for key in table}}.get({param}.lower(), {param})"]
    lines += [f"    if {param} not in table:", f'        return {{"error": f"no {subject} is called {{{param}}}"}}']
    lines.append(f"    value = table[{param}]")
    if unit:
        own, (other, factor) = NUMBERS[tool.relations[0].value][2], FACTORS[tool.relations[0].value]
        lines += [f"    if unit not in ({own!r}, {other!r}):", f'        return {{"error": "unit has to be {own} or {other}"}}']
        lines.append(f"    value = value * {factor} if unit == {other!r} else value")
    return "\n".join([*lines, f"    return {{{field}: value}}", ""])


def _signature(tool: Tool) -> str:
    parts = [tool.param, *(["field"] if tool.is_merged else [])]
    if "unit" in tool.options:
        parts.append(f"unit={NUMBERS[tool.relations[0].value][2]!r}")
    if "case" in tool.options:
        parts.append("ignore_case=False")
    return ", ".join(parts)


def _passed(tool: Tool) -> list[str]:
    optional = [name for name, option in (("unit", "unit"), ("ignore_case", "case")) if option in tool.options]
    return [*(["field"] if tool.is_merged else []), *optional]


def _options(tool: Tool, rng: random.Random) -> tuple[str, ...]:
    """What the tool gets beside what it needs."""
    if tool.relations == (DIFFERENCE,):
        return ()
    options = ["case"] if rng.random() < 0.3 else []
    if not tool.is_merged and tool.relations[0].value in FACTORS and rng.random() < 0.6:
        options.append("unit")
    if rng.random() < 0.15:
        options.append("several")
    return tuple(options)


def _function(name: str, description: str, properties: dict[str, Json], required: Sequence[str]) -> dict[str, Json]:
    parameters: dict[str, Json] = {"type": "object", "properties": properties, "required": list[Json](required)}
    return {"name": name, "description": description, "parameters": parameters}


def _tool_name(verb: str, relation: Relation) -> str:
    if not relation.subject:
        return {"get": "subtract", "find": "difference", "look_up": "minus", "fetch": "compute_difference"}[verb]
    return f"{verb}_{_snake(relation.subject)}_{_snake(relation.name)}"


def _snake(words: str) -> str:
    return words.replace(" ", "_").replace("-", "_")
