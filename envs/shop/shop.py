"""The shop as an environment: the protocol of user turns around a world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from envs.shop.world import World
from envs.types import CallOutcome, Json, Message, Observation, Signals, Task

RULES = str(Path(__file__).parent.parent / "shop_hints.yaml")
MAX_MESSAGES = 5  # the assistant's, in one user turn
MAX_MISTAKES = 2  # of them, malformed or refused: room to act on one hint, and no rambling to the end


class Shop:
    """A message with calls runs them; an answer ends the user turn; one that could not be read is told so.

    A user turn too long, or with too many mistakes, ends the episode.
    """

    def __init__(self) -> None:
        self._world: World | None = None
        self._requests: list[str] = []
        self._num_messages = self._num_mistakes = 0

    def reset(self, task: Task) -> Observation:
        self._world = World(str(task.payload["seed"]), novel=task.payload["novel"] is True)
        self._requests = cast(list[str], task.payload["requests"])[1:]
        self._num_messages = self._num_mistakes = 0
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        if self._world is None:
            raise RuntimeError("the episode is over or has not begun: call reset(task) first")
        self._num_messages += 1
        if not message.calls and not message.malformed:
            return self._end_user_turn(self._world)
        outcomes = () if message.malformed else tuple(self._world.run(call) for call in message.calls)
        contents = [_content(outcome) for outcome in outcomes] if outcomes else [_compact({"error": "malformed"})]
        self._num_mistakes += bool(message.malformed) or any(outcome.error for outcome in outcomes)
        done = self._num_messages >= MAX_MESSAGES or self._num_mistakes >= MAX_MISTAKES
        if done:
            self._world = None
        messages = tuple(Message("tool", content) for content in contents)
        return Observation(messages, done, Signals(outcomes, message.malformed))

    def close(self) -> None:
        self._world = None

    def _end_user_turn(self, world: World) -> Observation:
        self._num_messages = self._num_mistakes = 0
        signals = Signals(state=world.snapshot())
        if not self._requests:
            self._world = None
            return Observation((), True, signals)
        request, *self._requests = self._requests
        return Observation((Message("user", request),), False, signals)


def _content(outcome: CallOutcome) -> str:
    return _compact({"error": outcome.error} if outcome.error else outcome.result)


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
