"""The protocol of user turns, once for all environments that keep to it: an author writes only the world that is called."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from envs.types import CallOutcome, Json, Message, Observation, Signals, Task, ToolCall

MALFORMED = json.dumps({"error": "malformed"}, separators=(",", ":"))


class World(ABC):
    """What one episode's calls run in."""

    @abstractmethod
    def run(self, call: ToolCall) -> CallOutcome:
        """What the call comes to. Never raises, whatever the policy asked for."""

    @abstractmethod
    def state(self, answer: str) -> Json:
        """A snapshot where the policy ended a user turn with this answer; never None."""

    def tell(self, outcome: CallOutcome) -> str:
        """What the policy reads of it."""
        return str(outcome.result)

    def cut(self) -> Json:
        """The snapshot where the episode is broken off within a user turn; None leaves that turn unfinished."""
        return None


class Conversation:
    """A message with calls runs them; an answer ends the user turn; one that could not be read is told so.

    A user turn of `max_messages`, or with `max_mistakes` messages that were malformed or had a call refused, ends the episode.
    A task whose user says more than its first message has all of it in `payload["requests"]`.
    """

    def __init__(self, enter: Callable[[Task], World], *, max_messages: int, max_mistakes: int | None = None) -> None:
        self._enter, self._max_messages, self._max_mistakes = enter, max_messages, max_mistakes or max_messages
        self._world: World | None = None
        self._requests: list[str] = []
        self._num_messages = self._num_mistakes = 0

    def reset(self, task: Task) -> Observation:
        self._world = self._enter(task)
        self._requests = cast(list[str], task.payload.get("requests", []))[1:]
        self._num_messages = self._num_mistakes = 0
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        world = self._world
        if world is None:
            raise RuntimeError("the episode is over or has not begun: call reset(task) first")
        if not message.calls and not message.malformed:
            return self._end_user_turn(world, message.content)
        outcomes = () if message.malformed else tuple(world.run(call) for call in message.calls)
        self._num_messages += 1
        self._num_mistakes += bool(message.malformed) or any(outcome.error for outcome in outcomes)
        done = self._num_messages >= self._max_messages or self._num_mistakes >= self._max_mistakes
        signals = Signals(outcomes, message.malformed, world.cut() if done else None)
        if done:
            self._world = None
        return Observation(tuple(Message("tool", text) for text in [*map(world.tell, outcomes)] or [MALFORMED]), done, signals)

    def close(self) -> None:
        self._world = None

    def _end_user_turn(self, world: World, answer: str) -> Observation:
        self._num_messages = self._num_mistakes = 0
        signals = Signals(state=world.state(answer))
        if not self._requests:
            self._world = None
            return Observation((), True, signals)
        request, *self._requests = self._requests
        return Observation((Message("user", request),), False, signals)
