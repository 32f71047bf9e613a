"""Published environments, read from their own files: FTRL's and ToolHop's lines of JSON."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from envs.constructed.tasks import NESTED, task
from envs.json_lines import lines
from envs.sandbox import Sandbox
from envs.types import Json


@dataclass(frozen=True, slots=True)
class Imported:
    """`entries` are those deployed, in our own form; `rejected` has the line's number and the reason."""

    num_loaded: int
    entries: tuple[dict[str, Json], ...]
    rejected: tuple[tuple[int, str], ...]


def load(format: str, path: Path, sandbox: Sandbox) -> Imported:
    """Every line, its tools deployed in the sandbox. Raises ValueError where the file cannot be read."""
    try:
        texts = lines(path)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give a text file with one JSON object per line") from error
    entries: list[dict[str, Json]] = []
    rejected: list[tuple[int, str]] = []
    num_loaded = 0
    for number, text in texts:
        try:
            entry = FORMATS[format](json.loads(text))
            entry = {"id": f"{format}/{number - 1}", **entry}
            task(entry, "constructed")
            num_loaded += 1
            _deploy(entry, sandbox)
            entries.append(entry)
        except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
            rejected.append((number, str(error)))
    return Imported(num_loaded, tuple(entries), tuple(rejected))


def _deploy(entry: Mapping[str, Json], sandbox: Sandbox) -> None:
    for name, code in cast(dict[str, str], entry["codes"]).items():
        defined = sandbox.defines(code, name)
        if defined.result is not True:
            raise ValueError(f"the code of {name!r} does not deploy: {defined.error or 'it is no function'}")


def _ftrl(row: Mapping[str, Json]) -> dict[str, Json]:
    """Its fields hold JSON as text."""
    return {key: json.loads(value) if key in NESTED and isinstance(value, str) else value for key, value in row.items()}


def _toolhop(row: Mapping[str, Json]) -> dict[str, Json]:
    """Documents and sub-answers by sub-question, sources in a list or by name; every task is one chain."""
    documents = cast(dict[str, dict[str, Json]], row["tools"])
    sources = cast(list[str], list(row["functions"].values()) if isinstance(row["functions"], dict) else row["functions"])
    answers = cast(dict[str, Json], row["sub_task"])
    unsolved: dict[str, Json] = {}
    for asked, document in documents.items():
        cast(list[Json], unsolved.setdefault(str(document["name"]), [])).append(answers[asked])
    return {
        "data_source": "multi_hop" if len(documents) > 1 else "single_hop", "split": "test",
        "question": row["question"], "answer": str(row["answer"]),
        "tools": [{"type": "function", "function": document} for document in documents.values()],
        "codes": {_defined(source): source for source in sources}, "unsolved_set": unsolved,
    }  # fmt: skip


def _defined(source: str) -> str:
    """The name of the last function that the source defines."""
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    if not names:
        raise ValueError("a source defines no function")
    return names[-1]


FORMATS: Mapping[str, Callable[[Mapping[str, Json]], dict[str, Json]]] = {"ftrl": _ftrl, "toolhop": _toolhop}
