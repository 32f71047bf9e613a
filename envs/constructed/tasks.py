"""Tasks from lines of JSON: our own, FTRL's and ToolHop's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from envs.construct.records import KINDS, Built, name_of
from envs.json_lines import objects
from envs.truth import Reference, SubAnswer, references
from envs.types import Json, Message, Task, ToolCall

FILE = "environments.jsonl"
SPLITS = ("train", "validation", "test")
NESTED = ("messages", "tools", "codes", "unsolved_set")  # fields that hold JSON, or text that holds JSON
SYSTEM = "Find the answer with the tools alone, one step after the other. Then say it in a few words."


def line(built: Built, split: str) -> dict[str, Json]:
    """An environment as one JSON object: FTRL's fields, unnested, and ours."""
    toolset = built.toolset
    scenario = toolset.scenario
    unsolved: dict[str, Json] = {}
    for sub in scenario.subs:
        cast(list[Json], unsolved.setdefault(toolset.calls[sub.id].name, [])).append(sub.answer)
    subs: list[Json] = []
    for sub in scenario.subs:
        call = toolset.calls[sub.id]
        subs.append({
            "id": sub.id, "text": sub.text, "answer": sub.answer, "needs": list[Json](sub.needs),
            "call": {"name": call.name, "arguments": dict(call.arguments)}, "result": built.results[sub.id],
        })  # fmt: skip
    examples: list[Json] = []
    for one in built.examples:
        calls: list[Json] = [{"name": call.name, "arguments": dict(call.arguments)} for call in one.calls]
        examples.append({"question": one.question, "calls": calls, "results": list(one.results), "answer": one.answer})
    return {
        "id": scenario.question.id, "data_source": scenario.kind, "split": split, "question": scenario.question.text,
        "answer": scenario.question.answer, "tools": [{"type": "function", "function": dict(tool)} for tool in toolset.tools],
        "codes": dict(built.codes), "unsolved_set": unsolved, "sub_questions": subs, "examples": examples,
    }  # fmt: skip


def task(entry: Mapping[str, Json], name: str) -> Task:
    """The task that one line is; `name` is its environment's. Raises ValueError with the field and what is wrong with it."""
    kind = _kind(_text(entry, "data_source"))
    tools = _nested(entry, "tools", list)
    codes = cast(dict[str, str], _nested(entry, "codes", dict))
    unsolved = cast(dict[str, list[Json]], _nested(entry, "unsolved_set", dict))
    documents = tuple(map(_document, cast(list[Json], tools)))
    names = {name_of(cast(dict[str, Json], tool["function"])) for tool in documents}
    if missing := sorted(names - codes.keys()):
        raise ValueError(f"the tool {missing[0]!r} has no code")
    if missing := sorted(unsolved.keys() - names):
        raise ValueError(f"unsolved_set names {missing[0]!r}, which is no tool")
    answers = tuple(SubAnswer(tool, str(answer)) for tool, some in unsolved.items() for answer in some)
    if not answers:
        raise ValueError("unsolved_set is empty: there is nothing to find")
    calls, results = _gold(entry)
    truth = Reference(calls, results, {}, answers=answers, answer=str(entry.get("answer", "")))
    id = str(entry.get("id", ""))
    return Task(
        f"constructed/{id}", name, kind, _messages(entry), documents, {"codes": dict[str, Json](codes)}, (truth.as_json(),)
    )


def read(path: Path, name: str) -> Iterator[tuple[str, Task]]:
    """Split and task of every line. Raises ValueError with file, line and what is wrong."""
    for number, entry in objects(path, f"build it by: tiltyard construct --out {path.parent}"):
        try:
            entry.setdefault("id", number - 1)
            yield str(entry.get("split", "test")), task(entry, name)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def taskset(folder: str, split: str, level: str) -> Sequence[Task]:
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(SPLITS)}")
    if level not in KINDS:
        raise ValueError(f"no level is called {level!r}; there are: {', '.join(KINDS)}")
    return _pools(folder).get((split, level), ())


def oracle(task: Task) -> Sequence[Message]:
    """The reference calls one by one, and the answer; the answer alone where no calls are known."""
    (reference,) = references(task)
    return [*(Message("assistant", "", (call,)) for call in reference.calls), Message("assistant", reference.answer)]


@cache
def _pools(folder: str) -> Mapping[tuple[str, str], tuple[Task, ...]]:
    pools: dict[tuple[str, str], list[Task]] = {}
    for split, one in read(Path(folder) / FILE, f"constructed:{folder}"):
        pools.setdefault((split, one.level), []).append(one)
    return {key: tuple(pool) for key, pool in pools.items()}


def _messages(entry: Mapping[str, Json]) -> tuple[Message, ...]:
    """The conversation that is there, or one of our own making, examples first."""
    if "messages" in entry:
        given = cast(list[dict[str, str]], _nested(entry, "messages", list))
        return tuple(Message(message["role"], message["content"]) for message in given)
    messages = [Message("system", SYSTEM)]
    for example in cast(list[dict[str, Json]], entry.get("examples", [])):
        messages.append(Message("user", str(example["question"])))
        calls, results = cast(list[dict[str, Json]], example["calls"]), cast(list[Json], example["results"])
        for call, result in zip(calls, results, strict=True):
            made = ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"]))
            messages += [Message("assistant", "", (made,)), Message("tool", json.dumps(result, ensure_ascii=False))]
        messages.append(Message("assistant", str(example["answer"])))
    return (*messages, Message("user", _text(entry, "question")))


def _gold(entry: Mapping[str, Json]) -> tuple[tuple[ToolCall, ...], tuple[Json, ...]]:
    """The calls that answer the sub-questions and their results, where they are known."""
    subs = cast(list[dict[str, Json]], entry.get("sub_questions", []))
    calls = [cast(dict[str, Json], sub["call"]) for sub in subs]
    made = tuple(ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"])) for call in calls)
    return made, tuple(sub["result"] for sub in subs)


def _document(tool: Json) -> dict[str, Json]:
    """In OpenAI's form, be it in that or a bare function."""
    if not isinstance(tool, dict) or not isinstance(tool.get("function", tool.get("name")), (dict, str)):
        raise ValueError(f"a tool is no document of a function: {json.dumps(tool)[:100]}")
    return tool if "function" in tool else {"type": "function", "function": tool}


def _kind(source: str) -> str:
    kind = source.rsplit("/", 1)[-1].lower().replace("-", "_").replace(" ", "_")
    if kind not in KINDS:
        raise ValueError(f"data_source is {source!r}, which is none of: {', '.join(KINDS)}")
    return kind


def _text(entry: Mapping[str, Json], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key!r} is missing, or no text")
    return value


def _nested(entry: Mapping[str, Json], key: str, kind: type) -> Json:
    """A field that is JSON, or text that holds JSON."""
    value = entry.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{key!r} holds no JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{key!r} is missing, or no {kind.__name__}")
    return value
