"""The shop as an environment: one customer's visit, which a purchase ends."""

from __future__ import annotations

from envs.conversation import Conversation, World
from envs.types import CallOutcome, Json, Task, ToolCall
from envs.webshop.goals import Goal
from envs.webshop.pages import View, label, page
from envs.webshop.products import catalogue
from envs.webshop.reward import Purchase, score
from envs.webshop.search import words
from envs.webshop.tasks import engine, goal_of

MAX_MESSAGES = 100  # the original's limit; papers mostly stop at 15, by `actors.max_turns`
MAX_SHOWN = 100  # characters of what cannot be clicked


class WebShop(Conversation):
    def __init__(self) -> None:
        super().__init__(_enter, max_messages=MAX_MESSAGES)


class Visit(World):
    def __init__(self, folder: str, goal: Goal) -> None:
        self._products, self._search = catalogue(folder).products, engine(folder)
        self._goal, self._view, self._score = goal, View(), 0.0

    def run(self, call: ToolCall) -> CallOutcome:
        match call.name, dict(call.arguments):
            case "search", {"keywords": str(keywords), **rest} if not rest:
                return self._find(call, keywords)
            case "click", {"element": str(element), **rest} if not rest:
                return self._click(call, element)
            case "search" | "click", _:
                return self._refuse(call, "bad arguments", "search takes keywords, click takes element: a text each")
            case _:
                return self._refuse(call, "unknown tool", "there are search and click")

    def is_over(self) -> bool:
        return self._view.is_bought

    def state(self, answer: str) -> Json:
        return self.cut()

    def cut(self) -> Json:
        return {"score": self._score}

    def _find(self, call: ToolCall, keywords: str) -> CallOutcome:
        if not words(keywords):
            return self._refuse(call, "nothing to search for", "give some words")
        return self._go(call, View(self._search(keywords), 1))

    def _click(self, call: ToolCall, element: str) -> CallOutcome:
        view = page(self._view, self._products).clicks.get(label(element))
        if view is None:
            return self._refuse(call, "not on this page", f"there is no {element[:MAX_SHOWN]!r}")
        if view.is_bought:
            product = self._products[view.asin]
            self._score = score(self._goal, Purchase(product, view.chosen, product.price)).reward
        return self._go(call, view)

    def _go(self, call: ToolCall, view: View) -> CallOutcome:
        self._view = view
        return CallOutcome(call, page(view, self._products).text)

    def _refuse(self, call: ToolCall, error: str, why: str) -> CallOutcome:
        """An error says what would have worked."""
        here = page(self._view, self._products)
        there = here.clickable if here.clicks else here.text
        return CallOutcome(call, f"Error: {error}: {why}.\n{there}", error)


def _enter(task: Task) -> Visit:
    return Visit(str(task.payload["folder"]), goal_of(task))
