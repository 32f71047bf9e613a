"""Files of JSON lines. Texts may hold characters that `str.splitlines` takes for the end of a line; JSON's own is \\n."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from envs.types import Json


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, by number from 1. Raises OSError and UnicodeError."""
    texts = path.read_text(encoding="utf-8").split("\n")
    return [(number, text) for number, text in enumerate(texts, start=1) if text.strip()]


def objects(path: Path, remedy: str) -> Iterator[tuple[int, dict[str, Json]]]:
    """(line number, object) of every line that is not empty. ValueError names file and line, and ends with the remedy."""
    try:
        texts = lines(path)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {remedy}") from error
    for number, text in texts:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}); is it cut off? {remedy}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not an object; {remedy}")
        yield number, row
