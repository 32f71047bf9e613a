"""Recorded purchases, scored again: {"goal": ..., "asin": ..., "options": ..., "price": ...} with what it once was worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from envs.types import Json
from envs.webshop.goals import Goal
from envs.webshop.products import PRODUCTS, Catalogue, catalogue
from envs.webshop.reward import Nouns, Purchase, Score, score

SHAPE = (
    '{"goal": {"query": "mugs", "name": "Blue Mug", "product_category": "Home › Kitchen", "attributes": ["blue"], '
    '"price_upper": 20.0, "goal_options": {"size": "small"}}, "asin": "M1", "options": {"size": "small"}, "price": 9.5}'
)
TOLERANCE = 1e-9
MAX_PRICE = 1e9


def scored(folder: str, line: Mapping[str, Json], file: Path) -> dict[str, Json] | None:
    """Reward and parts, and whether they equal those recorded; None where the line is no purchase.

    Without a folder, products are those beside the file, or our own where it has none beside it.
    """
    if "goal" not in line:
        return None
    is_beside = any((file.parent / name).is_file() for name in PRODUCTS)
    shop = catalogue(folder or (str(file.parent) if is_beside else ""))
    found = rescored(line, shop)
    told: dict[str, Json] = {"asin": line["asin"], "reward": found.reward, "parts": found.parts}
    return {**told, "equal": is_equal(found, line)} if "reward" in line else told


def rescored(line: Mapping[str, Json], shop: Catalogue, *, nouns: Nouns | None = None) -> Score:
    """Raises ValueError where the line is no purchase of that shop's."""
    try:
        asin, options, price = _text(line, "asin"), _options(line, "options"), _number(line, "price")
        if asin not in shop.products:
            raise ValueError(f"no product is called {asin!r} in {shop.about}; say which with: tiltyard score webshop:FOLDER")
        return score(_goal(line.get("goal")), Purchase(shop.products[asin], options, price), nouns=nouns)
    except _Unlike as error:
        raise ValueError(f"{error}; the form of a purchase is {SHAPE}") from None


def is_equal(found: Score, line: Mapping[str, Json]) -> bool:
    """Whether the recorded reward, and its parts where they are recorded, are those found."""
    recorded = line.get("parts", found.parts)
    if not isinstance(recorded, dict):
        raise ValueError(f"'parts' is {_shown(recorded)}, which is no object; leave it out where the parts are not known")
    return _is_close(found.reward, line["reward"]) and (
        recorded.keys() == found.parts.keys() and all(_is_close(found.parts[key], recorded[key]) for key in recorded)
    )


def _is_close(one: Json, other: Json) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isinstance(one, bool) == isinstance(other, bool) and math.isclose(one, other, abs_tol=TOLERANCE, rel_tol=0)
    return one == other


class _Unlike(ValueError):
    """A line has not the form."""


def _goal(raw: Json) -> Goal:
    if not isinstance(raw, dict):
        raise _Unlike(f"'goal' is {_shown(raw)}, which is no object")
    query, name, category = (_text(raw, key) for key in ("query", "name", "product_category"))
    attributes = _texts(raw, "attributes")
    if not attributes:
        raise _Unlike("'attributes' of the goal is empty; a goal has at least one")
    wanted = raw.get("goal_options")
    options = tuple(_options(raw, "goal_options").items()) if isinstance(wanted, dict) else _texts(raw, "goal_options")
    upper, asin = _number(raw, "price_upper"), str(raw.get("asin", ""))
    return Goal("recorded", asin, query, name, category, str(raw.get("instruction_text", "")), attributes, options, upper)


def _text(fields: Mapping[str, Json], key: str) -> str:
    match fields.get(key):
        case str(text):
            return text
        case other:
            raise _Unlike(f"{key!r} is {_shown(other)}, which is no text")


def _texts(fields: Mapping[str, Json], key: str) -> tuple[str, ...]:
    match fields.get(key):
        case [*each] if all(isinstance(one, str) for one in each):
            return tuple(cast(list[str], each))
        case other:
            raise _Unlike(f"{key!r} is {_shown(other)}, which is no list of texts")


def _options(fields: Mapping[str, Json], key: str) -> dict[str, str]:
    match fields.get(key):
        case dict(options) if all(isinstance(value, str) for value in options.values()):
            return cast(dict[str, str], options)
        case other:
            raise _Unlike(f"{key!r} is {_shown(other)}, which is no object of texts")


def _number(fields: Mapping[str, Json], key: str) -> float:
    match fields.get(key):
        case int() | float() as number if not isinstance(number, bool) and abs(number) <= MAX_PRICE:
            return float(number)
        case other:
            raise _Unlike(f"{key!r} is {_shown(other)}, which is no price")


def _shown(value: Json) -> str:
    return "missing" if value is None else f"{str(value)[:50]!r}"
