"""What customers want: one goal per combination of a product's options, or what people asked for in their own words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from envs.once import Once
from envs.webshop.products import Instruction, Product, catalogue

LEVELS = ("synthetic", "human")
SHUFFLE = 233  # the original's seed: with the same goals in the same order, its splits
NO_LIMIT = 1_000_000.0
BANDS = tuple(10.0 * step for step in range(1, 100))
MAX_BANDS = 4

Wanted = str | tuple[str, str]  # an option's value, with its name where the goal is synthetic


@dataclass(frozen=True, slots=True)
class Goal:
    """`id` stays as it is whatever else the catalogue has."""

    id: str
    asin: str
    query: str
    name: str
    product_category: str
    text: str
    attributes: tuple[str, ...]
    options: tuple[Wanted, ...]
    price_upper: float


@Once
def goals(folder: str, level: str) -> Mapping[str, Goal]:
    """By id, in the order that the splits are cut from."""
    make = {"synthetic": _synthetic, "human": _human}[level]
    every = [goal for product in catalogue(folder).products.values() for goal in make(product)]
    random.Random(SHUFFLE).shuffle(every)
    return {goal.id: goal for goal in every}


def split_sizes(count: int) -> tuple[int, int]:
    """Of test and validation: the original's 500 and 1,000, or a twelfth and a sixth where there are fewer than 6,000."""
    return min(500, count // 12), min(1000, count // 6)


def _synthetic(product: Product) -> Iterator[Goal]:
    """Options are told at the instruction's end."""
    if product.synthetic is None:
        return
    names = sorted(product.options)
    upper = _upper(product, 0)
    for number, values in enumerate(itertools.product(*(product.options[name] for name in names))):
        wanted = tuple(zip(names, values, strict=True))
        described = ", and ".join(f"{name}: {value}" for name, value in wanted)
        text = product.synthetic.text + (f" with {described}" if described else "")
        told = replace(product.synthetic, text=text)
        yield _goal(product, told, id=f"{product.asin}/{number}", options=wanted, upper=upper)


def _human(product: Product) -> Iterator[Goal]:
    for number, told in enumerate(product.human):
        if told.attributes:
            id, upper = f"{product.asin}/human/{number}", _upper(product, number)
            yield _goal(product, told, id=id, options=told.options, upper=upper)


def _upper(product: Product, number: int) -> float:
    """The higher of two of the next four whole tens of dollars above the price, drawn anew for each `number`."""
    above = [band for band in BANDS if band > product.price][:MAX_BANDS]
    rng = random.Random(f"{product.asin}/price_upper/{number}")
    return max(rng.sample(above, 2)) if len(above) > 1 else NO_LIMIT


def _goal(product: Product, told: Instruction, *, id: str, options: tuple[Wanted, ...], upper: float) -> Goal:
    limit = f", and price lower than {upper:.2f} dollars" if upper < NO_LIMIT else ""
    return Goal(
        id=id,
        asin=product.asin,
        query=product.query,
        name=product.title,
        product_category=product.product_category,
        text=told.text + limit,
        attributes=told.attributes,
        options=options,
        price_upper=upper,
    )
