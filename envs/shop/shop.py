"""The shop as an environment."""

from __future__ import annotations

from pathlib import Path

from envs.conversation import Conversation
from envs.shop.world import World
from envs.types import Task

RULES = str(Path(__file__).parent.parent / "shop_hints.yaml")
MAX_MESSAGES = 5  # the assistant's, in one user turn
MAX_MISTAKES = 2  # of them, malformed or refused: room to act on one hint, and no rambling to the end


class Shop(Conversation):
    def __init__(self) -> None:
        super().__init__(_enter, max_messages=MAX_MESSAGES, max_mistakes=MAX_MISTAKES)


def _enter(task: Task) -> World:
    return World(str(task.payload["seed"]), novel=task.payload["novel"] is True)
