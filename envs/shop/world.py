"""The shop's world: a catalogue drawn from a seed, a cart, orders, and the six tools that act on them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from envs import conversation
from envs.types import CallOutcome, Json, ToolCall

NAMES = (
    "apple", "lamp", "kettle", "notebook", "pillow", "chair", "table", "mirror", "blanket", "bottle", "basket",
    "candle", "carpet", "camera", "guitar", "hammer", "helmet", "jacket", "ladder", "magnet", "needle", "piano",
    "pencil", "rope", "scarf", "shovel", "spoon", "towel", "vase", "wallet", "brush", "coffee", "butter", "honey",
    "paper", "radio", "red mug", "green tea", "blue pen", "desk fan", "wool hat", "steel pan",
)  # fmt: skip
NOVEL_NAMES = (
    "bread", "violin", "drum", "sofa", "glove", "knife", "flute", "cheese", "rice", "bucket", "tent", "puzzle",
    "black mug", "white tea", "gold pen", "silk hat",
)  # fmt: skip
EXAMPLE_IDS = ("i786", "i417", "i519", "i308", "i935", "i162", "i254")
ERRORS = (
    "unknown tool", "bad arguments", "bad id", "not found", "bad name", "bad quantity", "out of stock", "empty cart",
    "not in cart", "malformed",
)  # fmt: skip
NUM_ITEMS = 12
_IDS = tuple(f"i{number}" for number in range(100, 1000) if f"i{number}" not in EXAMPLE_IDS)


def _tool(name: str, description: str, *keys: str, optional: tuple[str, ...] = ()) -> dict[str, Json]:
    kinds = {"name": "string", "id": "string", "quantity": "integer"}
    properties: dict[str, Json] = {key: {"type": kinds[key]} for key in keys}
    required: list[Json] = [key for key in keys if key not in optional]
    parameters: dict[str, Json] = {
        "type": "object", "properties": properties, "required": required, "additionalProperties": False,
    }  # fmt: skip
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


# The quantity first, as requests say it: last, it is soon forgotten, since most calls end after an id.
TOOLS = (
    _tool("find", "id of an item", "name"),
    _tool("price", "", "id"),
    _tool("stock", "", "id"),
    _tool("add", "into the cart", "quantity", "id"),
    _tool("remove", "", "quantity", "id", optional=("quantity",)),
    _tool("checkout", ""),
)


class Refused(Exception):
    """A tool's refusal; its text is one of ERRORS."""


@dataclass(slots=True)
class Item:
    name: str
    id: str
    price: int
    stock: int


class World(conversation.World):
    """One shop. The same seed gives the same catalogue; with `novel`, half its names are ones training never uses."""

    def __init__(self, seed: str, *, novel: bool) -> None:
        rng = random.Random(seed)
        half = NUM_ITEMS // 2
        names = rng.sample(NAMES, half) + rng.sample(NOVEL_NAMES, half) if novel else rng.sample(NAMES, NUM_ITEMS)
        rows = zip(names, rng.sample(_IDS, NUM_ITEMS), strict=True)
        self.items = {id: Item(name, id, rng.randint(2, 99), rng.randint(3, 20)) for name, id in rows}
        self.cart: dict[str, int] = {}
        self.orders: list[Json] = []

    def run(self, call: ToolCall) -> CallOutcome:
        try:
            return CallOutcome(call, self._run(call.name, call.arguments))
        except Refused as refused:
            return CallOutcome(call, None, str(refused))

    def state(self, answer: str = "") -> Json:
        return {"cart": {**self.cart}, "orders": [*self.orders]}

    def tell(self, outcome: CallOutcome) -> str:
        return json.dumps({"error": outcome.error} if outcome.error else outcome.result, separators=(",", ":"))

    def _run(self, tool: str, arguments: Mapping[str, Json]) -> Json:
        match tool, arguments:
            case "find", {"name": str(name), **rest} if not rest:
                return {"id": self._find(name)}
            case "price", {"id": str(id), **rest} if not rest:
                return {"price": self._item(id).price}
            case "stock", {"id": str(id), **rest} if not rest:
                return {"stock": self._item(id).stock}
            case "add", {"id": str(id), "quantity": int(quantity), **rest} if not rest and type(quantity) is int:
                return self._add(id, quantity)
            case "remove", {"id": str(id), **rest} if not rest:
                return self._remove(id, self.cart.get(id, 0))
            case "remove", {"id": str(id), "quantity": int(quantity), **rest} if not rest and type(quantity) is int:
                return self._remove(id, quantity)
            case "checkout", {**rest} if not rest:
                return self._checkout()
            case "find" | "price" | "stock" | "add" | "remove" | "checkout", _:
                raise Refused("bad arguments")
            case _:
                raise Refused("unknown tool")

    def _find(self, name: str) -> str:
        for item in self.items.values():
            if item.name == name:
                return item.id
        raise Refused("bad name" if name in self.items else "not found")

    def _item(self, id: str) -> Item:
        if id not in self.items:
            raise Refused("bad id")
        return self.items[id]

    def _add(self, id: str, quantity: int) -> Json:
        item, total = self._item(id), self.cart.get(id, 0) + quantity
        if quantity < 1:
            raise Refused("bad quantity")
        if total > item.stock:
            raise Refused("out of stock")
        self.cart[id] = total
        return {"cart": {**self.cart}}

    def _remove(self, id: str, quantity: int) -> Json:
        held = self.cart.get(self._item(id).id, 0)
        if not held:
            raise Refused("not in cart")
        if not 1 <= quantity <= held:
            raise Refused("bad quantity")
        self.cart[id] = held - quantity
        if quantity == held:
            del self.cart[id]
        return {"cart": {**self.cart}}

    def _checkout(self) -> Json:
        if not self.cart:
            raise Refused("empty cart")
        total = sum(self.items[id].price * quantity for id, quantity in self.cart.items())
        for id, quantity in self.cart.items():
            self.items[id].stock -= quantity
        self.orders.append({"cart": {**self.cart}, "total": total})
        self.cart = {}
        return {"total": total}
