"""BFCL's multi-turn data as it lies in the installed package, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import bfcl_eval

from envs.bfcl.world import CLASSES
from envs.json_lines import objects
from envs.types import Json

DATA = Path(bfcl_eval.__file__).parent / "data"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
DOCS = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
MEMORY_DOCS = {"kv": "memory_kv", "rec_sum": "memory_rec_sum"}
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}  # where JSON schema has other words
REMEDY = "install bfcl-eval anew, in the version of the lock"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task: a list of user messages per turn (none where functions are added), and the reference calls of each turn."""

    number: int
    requests: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    config: Mapping[str, Json]
    added: Mapping[int, tuple[str, ...]]  # turn -> the functions held out until then
    truth: tuple[tuple[str, ...], ...]


@cache
def scenarios(category: str, folder: Path = DATA) -> Sequence[Scenario]:
    """The category's tasks in their order. ValueError names the file, the line and the remedy."""
    if category not in CATEGORIES:
        raise ValueError(f"BFCL has no multi-turn category {category!r}; there are: {', '.join(CATEGORIES)}")
    name = f"BFCL_v4_multi_turn_{category}.json"
    answers = {str(row["id"]): row for _, row in rows(folder / "possible_answer" / name)}
    found = []
    for line, row in rows(folder / name):
        try:
            found.append(_scenario(row, answers))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{folder / name}, line {line}: {error!r}; {REMEDY}") from error
    return tuple(found)


@cache
def tools(name: str, folder: Path = DATA) -> Sequence[Mapping[str, Json]]:
    """The documents of a class's functions, as OpenAI writes tools."""
    file = {**DOCS, **MEMORY_DOCS}[name]
    return tuple(_tool(row) for _, row in rows(folder / "multi_turn_func_doc" / f"{file}.json"))


def rows(path: Path) -> Iterator[tuple[int, dict[str, Json]]]:
    """(line number, object) of a file of JSON lines. ValueError names the line and the remedy."""
    return objects(path, REMEDY)


def _scenario(row: dict[str, Json], answers: Mapping[str, dict[str, Json]]) -> Scenario:
    id = str(row["id"])
    if id not in answers:
        raise ValueError(f"{id} has no reference calls")
    classes = tuple(str(name) for name in cast(list[Json], row["involved_classes"]))
    if unknown := [name for name in classes if name not in CLASSES]:
        raise ValueError(f"{id} needs the class {unknown[0]}")
    questions = cast(list[list[dict[str, str]]], row["question"])
    truth = cast(list[list[str]], answers[id]["ground_truth"])
    if len(questions) != len(truth):
        raise ValueError(f"{id} has {len(questions)} user turns and reference calls for {len(truth)}")
    held = cast(dict[str, list[str]], row.get("missed_function", {}))
    return Scenario(
        int(id.rpartition("_")[2]),
        tuple(tuple(message["content"] for message in turn) for turn in questions),
        classes,
        cast(dict[str, Json], row["initial_config"]),
        {int(turn): tuple(names) for turn, names in held.items()},
        tuple(tuple(calls) for calls in truth),
    )


def _tool(row: dict[str, Json]) -> dict[str, Json]:
    function = {"name": row["name"], "description": row["description"], "parameters": _schema(row["parameters"])}
    return {"type": "function", "function": cast(Json, function)}


def _schema(value: Json) -> Json:
    """BFCL's words for types as JSON schema's."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: TYPES.get(item, item) if key == "type" and isinstance(item, str) else _schema(item) for key, item in value.items()
    }
