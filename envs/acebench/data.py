"""ACEBench's agent tasks as they lie in a clone of its repository, read and checked."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from envs.call_text import NotACall, read_list, tool_call
from envs.json_lines import objects
from envs.types import Json, ToolCall

LEVELS = ("multi_step", "multi_turn")
DATA = Path("data_all") / "data_en"
POLICIES = Path("model_inference") / "prompt_en.py"
TYPES = {"dict": "object", "list": "array", "tuple": "array", "float": "number", "any": "string"}  # in JSON schema's words
REMEDY = "the folder in acebench:FOLDER has to be a whole clone of ACEBench's repository"
MalformedRow = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task. `text` is the user's request or, where a user is played, what that user wants.

    `answer` has the end state, a class an entry. `paths` are the ways to it: each a list of milestones, each of which has the
    calls of one message, or none where it is no call.
    """

    number: int
    text: str
    classes: tuple[str, ...]
    config: Mapping[str, Json]
    tools: tuple[Mapping[str, Json], ...]
    answer: tuple[Mapping[str, Json], ...]
    paths: tuple[tuple[tuple[ToolCall, ...], ...], ...]


@cache
def scenarios(folder: str, level: str) -> Sequence[Scenario]:
    """The level's tasks in their order. ValueError names the file, the line and the remedy."""
    name = f"data_agent_{level}.json"
    answers = {str(row.get("id")): (line, row) for line, row in objects(Path(folder) / DATA / "possible_answer" / name, REMEDY)}
    found = []
    for line, row in objects(Path(folder) / DATA / name, REMEDY):
        try:
            if row["id"] not in answers:
                raise ValueError(f"{row['id']} has no line in {DATA / 'possible_answer' / name}")
            found.append(_scenario(row, answers[str(row["id"])][1]))
        except MalformedRow as error:
            raise ValueError(f"{Path(folder) / DATA / name}, line {line}: {error!r}; {REMEDY}") from error
    return tuple(found)


@cache
def policies(folder: str) -> Mapping[str, str]:
    """The texts in the file that has the rules which an agent is told, by name."""
    path = Path(folder) / POLICIES
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {REMEDY}") from error
    found: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name] = text
            case _:
                pass
    return found


def _scenario(row: Mapping[str, Json], answer: Mapping[str, Json]) -> Scenario:
    state, stones = answer["ground_truth"], cast(list[Json], answer["mile_stone"])
    paths = stones if stones and isinstance(stones[0], list) else [stones]
    return Scenario(
        int(str(row["id"]).rpartition("_")[2]),
        str(row["question"]),
        tuple(str(name) for name in cast(list[Json], row["involved_classes"])),
        {**cast(dict[str, Json], row["initial_config"])},
        tuple(_tool(one) for one in cast(list[dict[str, Json]], row["function"])),
        tuple({**one} for one in cast(list[dict[str, Json]], state if isinstance(state, list) else [state])),
        tuple(tuple(_milestone(str(stone)) for stone in cast(list[Json], path)) for path in paths),
    )


def _milestone(text: str) -> tuple[ToolCall, ...]:
    """Some are no calls, for a quote within quotes: nothing reaches them, as nothing does officially."""
    try:
        return tuple(tool_call(call) for call in read_list(text))
    except NotACall:
        return ()


def _tool(row: Mapping[str, Json]) -> dict[str, Json]:
    function: dict[str, Json] = {"name": row["name"], "description": row["description"], "parameters": _schema(row["parameters"])}
    return {"type": "function", "function": function}


def _schema(value: Json) -> Json:
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: TYPES.get(item, item) if key == "type" and isinstance(item, str) else _schema(item) for key, item in value.items()
    }
