"""One episode: actions in the simulator's own language, and its own score."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from envs.conversation import Conversation, World
from envs.scienceworld.machine import java
from envs.scienceworld.pool import Episode, Pool, most, pool
from envs.types import CallOutcome, Json, Message, Observation, Task, ToolCall

# The package's usual limit of 100 would cut off its own gold paths: most have 5 to 180 actions, but those that look on while a
# block slides down a plane of sandpaper have 700 more. A run's own limit is `actors.max_turns`.
MAX_MESSAGES = 1200


class ScienceWorld(Conversation):
    def __init__(self) -> None:
        super().__init__(partial(Laboratory, pool()), max_messages=MAX_MESSAGES)

    def reset(self, task: Task) -> Observation:
        opening = super().reset(task)
        world = cast(Laboratory, self._world)
        return replace(opening, messages=(*opening.messages, Message("user", world.opening)))


class Laboratory(World):
    """The world of one task's variation."""

    def __init__(self, machines: Pool, task: Task) -> None:
        self._machines, self._episode = machines, Episode(task.level, cast(int, task.payload["variation"]))
        self._last = machines.act(self._episode, "look around")  # as the package's own reset does
        self.opening = f"{machines.act(self._episode, 'task').text}\n\n{self._last.text}"

    def run(self, call: ToolCall) -> CallOutcome:
        action = call.arguments.get("action")
        if call.name != "act":
            return CallOutcome(call, f"No tool is called {call.name!r}; there is: act.", "no such tool")
        if isinstance(action, int) and not isinstance(action, bool):
            action = str(action)  # which of the things that could be meant
        if not isinstance(action, str) or len(call.arguments) > 1:
            return CallOutcome(call, "act takes one argument, action, which is a text.", "bad arguments")
        self._last = self._machines.act(self._episode, action)
        return CallOutcome(call, {"text": self._last.text, **self._last.state}, self._last.error)

    def tell(self, outcome: CallOutcome) -> str:
        return str(outcome.result["text"] if isinstance(outcome.result, dict) else outcome.result)

    def is_over(self) -> bool:
        return self._last.is_over

    def cut(self) -> Json:
        return self._last.state

    def state(self, answer: str) -> Json:
        return self._last.state

    def leave(self) -> None:
        self._episode.is_left = True


def ready() -> None:
    """Raises ValueError where there is no Java to run on, or no telling how many machines there may be."""
    java()
    most()
