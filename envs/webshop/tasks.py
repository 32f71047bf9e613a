"""The shop's tasks, one per goal, with the clicks that buy just what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

from envs.once import Once
from envs.truth import Reference
from envs.types import Json, Message, Task, ToolCall
from envs.webshop.goals import Goal, Wanted, goals, split_sizes
from envs.webshop.pages import BUY, NEXT, PER_PAGE, label
from envs.webshop.products import Product, catalogue
from envs.webshop.search import Search

SYSTEM = Message(
    "system",
    """You buy in a web shop what somebody asks for, page by page. search works on every page.
click takes what is listed below each page: a product's number, an option or a button. Choose every option that is asked for,
then click "buy now". That buys one product and ends it all. Type, attributes, options and price of what is bought count.""",
)
BOUGHT: Json = {"score": 1.0}


def _tool(name: str, description: str, argument: str) -> dict[str, Json]:
    properties: dict[str, Json] = {argument: {"type": "string"}}
    parameters: dict[str, Json] = {
        "type": "object", "properties": properties, "required": [argument], "additionalProperties": False,
    }  # fmt: skip
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = (
    _tool("search", "find products", "keywords"),
    _tool("click", "click on what the page lists as clickable", "element"),
)


@Once
def engine(folder: str) -> Search:
    return Search(tuple(catalogue(folder).products.values()))


@cache
def taskset(folder: str, levels: tuple[str, ...], split: str, level: str) -> Sequence[Task]:
    """The tasks of a split; none where the catalogue has no goals of that level."""
    if level not in levels:
        raise ValueError(f"webshop has no level {level!r}; there are: {', '.join(levels)}")
    every = goals(folder, level)
    test, validation = split_sizes(len(every))
    cuts = {"test": (0, test), "validation": (test, test + validation), "train": (test + validation, len(every))}
    if split not in cuts:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(cuts)}")
    return tuple(_task(folder, level, goal) for goal in list(every.values())[slice(*cuts[split])])


def oracle(task: Task) -> Sequence[Message]:
    """To the product's page, its options, and the purchase that ends the episode: one call a message."""
    goal, folder = goal_of(task), str(task.payload["folder"])
    product = catalogue(folder).products[goal.asin]
    clicks = [*(_value(product, wanted) for wanted in goal.options), label(BUY)]
    calls = (*_way(folder, goal.asin), *(ToolCall("click", {"element": text}) for text in clicks))
    return [Message("assistant", "", (call,)) for call in calls]


def goal_of(task: Task) -> Goal:
    payload = cast(dict[str, str], task.payload)
    return goals(payload["folder"], payload["level"])[payload["goal"]]


def _task(folder: str, level: str, goal: Goal) -> Task:
    # Whatever way leads to it, the full score is what counts; goals for which none leads there stay in, as published.
    reference = Reference((), (), BOUGHT)
    name = f"webshop:{folder}" if folder else "webshop"
    payload: dict[str, Json] = {"folder": folder, "level": level, "goal": goal.id}
    messages = (SYSTEM, Message("user", goal.text))
    return Task(f"webshop/{goal.id}", name, level, messages, TOOLS, payload, (reference.as_json(),))


def _value(product: Product, wanted: Wanted) -> str:
    """The option to click: a person's words for it need not be the page's."""
    if not isinstance(wanted, str):
        return wanted[1]
    values = [value for some in product.options.values() for value in some]
    return next((value for value in values if value == wanted.lower()), wanted.lower())


@cache
def _way(folder: str, asin: str) -> tuple[ToolCall, ...]:
    """By a search for the title to the product's page; what it is found by as well, where the title alone is not enough."""
    product = catalogue(folder).products[asin]
    calls: list[ToolCall] = []
    for keywords in (product.title, f"{product.title} {product.query} {' '.join(product.bullets)}"):
        calls = [ToolCall("search", {"keywords": keywords})]
        found = engine(folder)(keywords)
        if asin in found:
            calls += [ToolCall("click", {"element": label(NEXT)})] * (found.index(asin) // PER_PAGE)
            break
    return (*calls, ToolCall("click", {"element": label(asin)}))
