"""Recorded purchases, scored again: {"goal": ..., "asin": ..., "options": ..., "price": ...} with what it once was worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from envs.types import Json
from envs.webshop.goals import Goal, Wanted
from envs.webshop.products import PRODUCTS, Catalogue, catalogue
from envs.webshop.reward import Nouns, Purchase, Score, score

SHAPE = (
    '{"goal": {"query": "mugs", "name": "Blue Mug", "product_category": "Home › Kitchen", "attributes": ["blue"], '
    '"price_upper": 20.0, "goal_options": {"size": "small"}}, "asin": "M1", "options": {"size": "small"}, "price": 9.5}'
)
TOLERANCE = 1e-9


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
    match line:
        case {"goal": dict(goal), "asin": str(asin), "options": dict(options), "price": int() | float() as price}:
            if asin not in shop.products:
                raise ValueError(f"no product is called {asin!r} in {shop.about}; say which with: tiltyard score webshop:FOLDER")
            chosen = {name: str(value) for name, value in options.items()}
            return score(_goal(goal), Purchase(shop.products[asin], chosen, float(price)), nouns=nouns)
        case _:
            raise ValueError(f"no purchase; its form is {SHAPE}")


def is_equal(found: Score, line: Mapping[str, Json]) -> bool:
    """Whether the recorded reward, and its parts where they are recorded, are those found."""
    recorded = cast(dict[str, Json], line.get("parts", found.parts))
    return _is_close(found.reward, line["reward"]) and (
        recorded.keys() == found.parts.keys() and all(_is_close(found.parts[key], recorded[key]) for key in recorded)
    )


def _is_close(one: Json, other: Json) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isinstance(one, bool) == isinstance(other, bool) and math.isclose(one, other, abs_tol=TOLERANCE, rel_tol=0)
    return one == other


def _goal(raw: Mapping[str, Json]) -> Goal:
    match raw:
        case {
            "query": str(query), "name": str(name), "product_category": str(category),
            "attributes": [_, *_] as attributes, "price_upper": int() | float() as upper,
        }:  # fmt: skip
            text, asin = str(raw.get("instruction_text", "")), str(raw.get("asin", ""))
            wanted, options = tuple(map(str, attributes)), _wanted(raw.get("goal_options", []))
            return Goal("recorded", asin, query, name, category, text, wanted, options, float(upper))
        case _:
            raise ValueError(f"no goal, or one without attributes; the form of a purchase is {SHAPE}")


def _wanted(options: Json) -> tuple[Wanted, ...]:
    if isinstance(options, dict):
        return tuple((name, str(value)) for name, value in options.items())
    return tuple(map(str, options)) if isinstance(options, list) else ()
