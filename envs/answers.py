"""Whether a tool's result holds the answer to a sub-question (FTRL, 2508.08791: the match rule of its code, and a strict one)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from envs.types import Json

MAX_LEAVES = 24  # of a strict result, and
MAX_CHARS = 500  # of one of its texts: what tells more than that may tell anything
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def holds(answer: str, result: Json, *, lenient: bool = False) -> bool:
    """Strict: the answer's pieces stand in the result as whole words, and the result is no dump of all there is.

    Lenient, as published: each piece is a substring of the result's text, however long that is.
    """
    if lenient:
        text = _normal(result if isinstance(result, str) else str(result))
        return all(piece in text for piece in pieces(answer))
    leaves = [_normal(leaf) for leaf in leaves_of(_opened(result))]
    if len(leaves) > MAX_LEAVES or any(len(leaf) > MAX_CHARS for leaf in leaves):
        return False
    text = "\n".join(leaves)
    return all(tells(piece, text) for piece in pieces(answer))


def says(answer: str, arguments: Mapping[str, Json]) -> bool:
    """Whether a call's arguments hold all the answer's pieces, however long or many they are."""
    text = "\n".join(_normal(leaf) for leaf in leaves_of(arguments))
    return all(tells(piece, text) for piece in pieces(answer))


def pieces(answer: str) -> list[str]:
    """The parts of an answer, each of which is looked for by itself: lower case, without commas."""
    return [piece for part in answer.split(", ") if (piece := _normal(part))]


def tells(piece: str, text: str) -> bool:
    """Whether the piece stands in the text with no letter or digit beside it."""
    if NUMBER.fullmatch(piece):  # 3903 stands in 3903.0, 15 in 2010-03-15, and 3 neither in 3.5 nor in -3
        return re.search(rf"(?<![\w.])(?<!(?<![\w.])-){re.escape(piece)}(?:\.0+)?(?!\w|\.\d)", text) is not None
    return re.search(rf"(?<!\w){re.escape(piece)}(?!\w)", text) is not None


def _normal(value: Json) -> str:
    return " ".join(str(value).lower().replace(",", "").split())


def _opened(result: Json) -> Json:
    """What a text is as JSON, where it is an object or a list."""
    if isinstance(result, str) and result.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(result)
        except (ValueError, RecursionError):
            return result
    return result


def leaves_of(value: Json | Mapping[str, Json]) -> Iterator[Json]:
    """The values that are neither object nor list."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves_of(item)
    else:
        yield value
