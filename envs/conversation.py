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

    def is_over(self) -> bool:
        """Whether the last call ended the episode: then `cut` has its snapshot."""
        return False

    def cut(self) -> Json:
        """The snapshot where the episode is broken off within a user turn; None leaves that turn unfinished."""
        return None

    def leave(self) -> None:
        """Give back what the world holds; called once, whatever became of the episode."""
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
        self.close()
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
        outcomes = self._outcomes(world, message)
        self._num_messages += 1
        self._num_mistakes += bool(message.malformed) or any(outcome.error for outcome in outcomes)
        is_enough = self._num_messages >= self._max_messages or self._num_mistakes >= self._max_mistakes
        done = is_enough or world.is_over()
        signals = Signals(outcomes, message.malformed, world.cut() if done else None)
        told = tuple(Message("tool", text) for text in [*map(world.tell, outcomes)] or [MALFORMED])
        if done:
            self.close()
        return Observation(told, done, signals)

    def close(self) -> None:
        if self._world is not None:
            self._world.leave()
        self._world = None

    @staticmethod
    def _outcomes(world: World, message: Message) -> tuple[CallOutcome, ...]:
        """What the calls come to, in order, up to one that ends the episode."""
        outcomes: list[CallOutcome] = []
        for call in () if message.malformed else message.calls:
            if not world.is_over():
                outcomes.append(world.run(call))
        return tuple(outcomes)

    def _end_user_turn(self, world: World, answer: str) -> Observation:
        self._num_messages = self._num_mistakes = 0
        signals = Signals(state=world.state(answer))
        if not self._requests:
            self.close()
            return Observation((), True, signals)
        request, *self._requests = self._requests
        return Observation((Message("user", request),), False, signals)
