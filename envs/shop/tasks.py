"""The shop's tasks: requests and reference calls, written from a seed and played through a world for the truth."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from envs.shop.world import EXAMPLE_IDS, TOOLS, Item, World
from envs.truth import Reference, references
from envs.types import Json, Message, Task, ToolCall

LEVELS = ("1", "2", "3")
NUM_TASKS = {"train": 600, "validation": 120, "test": 200}  # per level

PHRASES = {
    "find": ("Find the {name}.", "Look up the {name}."),
    "price": ("What does {item} cost?", "What is the price of {item}?", "How much is {item}?"),
    "stock": ("How many of {item} are in stock?", "What is the stock of {item}?"),
    "add": ("Put {quantity} of {item} in the cart.", "Add {quantity} of {item} to the cart."),
    "all": ("Put all there are of {item} in the cart.", "Add the whole stock of {item} to the cart."),
    "remove": ("Take {quantity} of {item} out of the cart.", "Remove {quantity} of {item} from the cart."),
    "checkout": ("Check out.", "Check out now."),
}
SYSTEM = "You run a shop. Call one tool at a time, then answer."  # the tools are told by the chat template


@dataclass(frozen=True, slots=True)
class Request:
    text: str
    calls: tuple[ToolCall, ...]


def call_message(call: ToolCall) -> Message:
    """The assistant's message that makes this one call, in whatever format the policy writes calls."""
    return Message("assistant", "", (call,))


def _example(request: str, *steps: tuple[ToolCall, str], answer: str) -> tuple[Message, ...]:
    said = [message for call, result in steps for message in (call_message(call), Message("tool", result))]
    return Message("user", request), *said, Message("assistant", answer)


def _find(name: str, id: str) -> tuple[ToolCall, str]:
    return ToolCall("find", {"name": name}), f'{{"id":"{id}"}}'


_RING, _SOAP, _BOOT, _CLOCK, _DRESS, _BALL, _SHELF = EXAMPLE_IDS
# No id twice, or an untrained policy repeats it. Every tool and "it" at least once: what is never shown is never sampled,
# and what is never sampled is never learnt. The call with the most to get right stands last, where it looks first.
PREFIX = (
    Message("system", SYSTEM),
    *_example(
        f"Put 3 of item {_RING} in the cart.",
        (ToolCall("add", {"quantity": 3, "id": _RING}), f'{{"cart":{{"{_RING}":3}}}}'),
        answer="Done",
    ),
    *_example(
        "Take 1 of it out of the cart.",
        (ToolCall("remove", {"quantity": 1, "id": _RING}), f'{{"cart":{{"{_RING}":2}}}}'),
        answer="Done",
    ),
    *_example("Check out.", (ToolCall("checkout", {}), '{"total":94}'), answer="94"),
    *_example(f"What does item {_SOAP} cost?", (ToolCall("price", {"id": _SOAP}), '{"price":25}'), answer="25"),
    *_example(f"How many of item {_BOOT} are in stock?", (ToolCall("stock", {"id": _BOOT}), '{"stock":9}'), answer="9"),
    *_example("Find the clock.", _find("clock", _CLOCK), answer=_CLOCK),
    *_example(
        "What does the dress cost?",
        _find("dress", _DRESS),
        (ToolCall("price", {"id": _DRESS}), '{"price":61}'),
        answer="61",
    ),
    *_example(
        "How many of the ball are in stock?",
        _find("ball", _BALL),
        (ToolCall("stock", {"id": _BALL}), '{"stock":4}'),
        answer="4",
    ),
    *_example(
        "Add 3 of the shelf to the cart.",
        _find("shelf", _SHELF),
        (ToolCall("add", {"quantity": 3, "id": _SHELF}), f'{{"cart":{{"{_SHELF}":3}}}}'),
        answer="Done",
    ),
)


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """The tasks of a split and level, always the same ones."""
    if split not in NUM_TASKS:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(NUM_TASKS)}")
    if level not in LEVELS:
        raise ValueError(f"no level is called {level!r}; there are: {', '.join(LEVELS)}")
    return tuple(_task(split, level, index) for index in range(NUM_TASKS[split]))


def oracle(task: Task) -> Sequence[Message]:
    """The reference calls as assistant messages, one call each, and a short answer after each user turn."""
    return [
        message
        for reference in references(task)
        for message in (*map(call_message, reference.calls), Message("assistant", _answer(reference.results[-1])))
    ]


def _answer(result: Json) -> str:
    (value,) = cast(dict[str, Json], result).values()
    return "Done" if isinstance(value, dict) else str(value)


def _task(split: str, level: str, index: int) -> Task:
    id, novel = f"shop/{split}/{level}/{index}", split == "test"
    world = World(id, novel=novel)
    writer = _Writer(random.Random(f"{id}/requests"), world)
    truth: list[Reference] = []
    requests: list[str] = []
    for kind, by in writer.plan(level):
        request = writer.write(kind, by)
        outcomes = [world.run(call) for call in request.calls]
        truth.append(Reference(request.calls, tuple(outcome.result for outcome in outcomes), world.state()))
        requests.append(request.text)
    return Task(
        id, "shop", level, (*PREFIX, Message("user", requests[0])), TOOLS,
        {"seed": id, "novel": novel, "requests": list[Json](requests)},
        tuple(reference.as_json() for reference in truth),
    )  # fmt: skip


@dataclass(slots=True)
class _Writer:
    """Writes one task's requests against the world as it stands when each is made."""

    rng: random.Random
    world: World
    item: Item | None = None  # what "it" means
    used: set[str] = field(default_factory=set)

    def plan(self, level: str) -> Iterator[tuple[str, str]]:
        """(kind, how the item is named) of each user turn; drawn one by one, since the world changes between them."""
        if level == "1":
            yield self._single()
        elif level == "2":
            yield self._double()
        else:
            kinds = [("all", "name") if self.rng.random() < 0.1 else self._any()]
            yield kinds[0]
            for is_last in (False, True) if self.rng.random() < 0.5 else (True,):
                kinds.append(self._follow_up([kind for kind, _ in kinds], is_last))
                yield kinds[-1]

    def write(self, kind: str, by: str) -> Request:
        phrase = self.rng.choice(PHRASES[kind])
        if kind == "checkout":
            return Request(phrase, (ToolCall("checkout", {}),))
        item = self.item if by == "it" and self.item else self._fresh()
        self.item = item
        named = {"id": f"item {item.id}", "name": f"the {item.name}", "it": "it"}[by]
        most = self.world.cart[item.id] if kind == "remove" else item.stock
        quantity = self.rng.randint(1 if kind == "remove" else 2, min(most, 9))
        text = phrase.format(name=item.name, item=named, quantity=quantity)
        find = ToolCall("find", {"name": item.name})
        calls = () if kind == "find" else _calls(kind, item, quantity)
        return Request(text, (find, *calls) if by == "name" else calls)

    def _fresh(self) -> Item:
        item = self.rng.choice([item for item in self.world.items.values() if item.id not in self.used])
        self.used.add(item.id)
        return item

    def _single(self) -> tuple[str, str]:
        return self.rng.choice((("find", "name"), ("price", "id"), ("stock", "id"), ("add", "id")))

    def _double(self) -> tuple[str, str]:
        return self.rng.choice(("price", "stock", "add")), "name"

    def _any(self) -> tuple[str, str]:
        return self._single() if self.rng.random() < 0.4 else self._double()

    def _follow_up(self, kinds: list[str], is_last: bool) -> tuple[str, str]:
        """A later user turn: the end of the purchase, more about the same item, or something new."""
        if is_last and self.world.cart and self.rng.random() < 0.5:
            return "checkout", ""
        more = ("remove", "price") if kinds[-1] == "add" else ("price", "stock", "add")
        left = [kind for kind in more if kind not in kinds]
        if kinds[-1] not in ("all", "remove") and left and self.rng.random() < 0.6:
            return self.rng.choice(left), "it"
        return self._any()


def _calls(kind: str, item: Item, quantity: int) -> tuple[ToolCall, ...]:
    if kind == "all":
        return ToolCall("stock", {"id": item.id}), ToolCall("add", {"quantity": item.stock, "id": item.id})
    if kind in ("add", "remove"):
        return (ToolCall(kind, {"quantity": quantity, "id": item.id}),)
    return (ToolCall(kind, {"id": item.id}),)
