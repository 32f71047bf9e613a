"""ACEBench's agent tasks as an environment: one request, or a user to talk to."""

from __future__ import annotations

from dataclasses import replace

from envs.acebench.user import DONE, User
from envs.acebench.world import Apis
from envs.conversation import Conversation
from envs.types import Message, Observation, Task
from envs.user import needed

MAX_MESSAGES = 20  # with calls: the benchmark's 40, of which half are answers
GREETING = "What can I do for you?"


class Acebench(Conversation):
    """Where a user is played, a message without calls is answered by that user, and all of it is one user turn."""

    def __init__(self) -> None:
        super().__init__(Apis, max_messages=MAX_MESSAGES)
        self._user: User | None = None

    def reset(self, task: Task) -> Observation:
        opening = super().reset(task)
        instruction = str(task.payload["instruction"])
        if not instruction:
            return opening
        self._user = User(needed(), instruction)
        return replace(opening, messages=(*opening.messages, Message("user", self._user.reply(GREETING))))

    def step(self, message: Message) -> Observation:
        user = self._user
        if user is None or message.calls or message.malformed or DONE in message.content.lower():
            return super().step(message)
        reply = user.reply(message.content)
        return super().step(message) if user.is_done else Observation((Message("user", reply),))

    def close(self) -> None:
        super().close()
        self._user = None
