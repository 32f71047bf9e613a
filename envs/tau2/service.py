"""An agent between a customer, whom it talks with, and its company's tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from envs.conversation import MALFORMED
from envs.endpoint import EndpointError
from envs.tau2.calls import Calls
from envs.tau2.customer import ENDS, Customer, User
from envs.tau2.domains import criteria, package_tasks, reference_hash, world
from envs.types import Json, Message, Observation, Signals, Task
from envs.user import words

GREETING = "Hello! What can I do for you?"  # said before the agent's first message, and heard by the customer alone
MAX_MESSAGES = 100  # the package's limit of 200 steps: a message is one and what it is answered is another
MAX_ERRORS = 10  # the package's too


class Service:
    """A message with calls runs them, unheard by the customer; any other is said to the customer, who answers.

    The episode ends where the customer ends it, and has its state then; or at a limit, and has none.
    """

    def __init__(self, meet: Callable[[str], User] = Customer) -> None:
        self._meet = meet
        self._visit: Visit | None = None

    def reset(self, task: Task) -> Observation:
        self.close()
        level, id = task.level, str(task.payload["id"])
        user = self._meet(str(package_tasks(level)[id].user_scenario))
        opening = _opening(user)
        self._visit = Visit(level, id, user)
        return Observation((*task.messages, Message("user", opening)))

    def step(self, message: Message) -> Observation:
        if self._visit is None:
            raise RuntimeError("the episode is over or has not begun: call reset(task) first")
        observation = self._visit.take(message)
        if observation.done:
            self.close()
        return observation

    def close(self) -> None:
        self._visit = None


class Visit:
    """One episode."""

    def __init__(self, level: str, id: str, user: User) -> None:
        self._level, self._id, self._user = level, id, user
        self._world = world(level)
        self._calls = Calls(self._world)
        self._said: list[str] = []
        self._num_messages = self._num_errors = 0

    def take(self, message: Message) -> Observation:
        self._num_messages += 1
        aloud = words(message.content)
        if message.calls or message.malformed or not aloud:
            return self._run(message)
        return self._say(aloud)

    @property
    def _is_enough(self) -> bool:
        return self._num_messages >= MAX_MESSAGES or self._num_errors >= MAX_ERRORS

    def _run(self, message: Message) -> Observation:
        malformed = message.malformed or ("" if message.calls else "neither calls nor words")
        outcomes = () if malformed else tuple(map(self._calls.run, message.calls))
        self._num_errors += bool(malformed) + sum(bool(outcome.error) for outcome in outcomes)
        told = [str(outcome.result) for outcome in outcomes] or [MALFORMED]
        return Observation(tuple(Message("tool", text) for text in told), self._is_enough, Signals(outcomes, malformed))

    def _say(self, aloud: str) -> Observation:
        self._said.append(aloud)
        if self._is_enough:
            return Observation((), True)
        answer = self._user.answer(aloud)
        has_ended = any(end in answer for end in ENDS)
        return Observation((Message("user", answer),), has_ended, Signals(state=self._verdicts() if has_ended else None))

    def _verdicts(self) -> Json:
        """Whether the database is as the reference leaves it, and for each thing to be told whether it was."""
        heard = [aloud.lower().replace(",", "") for aloud in self._said]
        infos = criteria(self._level, self._id).communicate_info or []
        told = [any(info.lower() in one for one in heard) for info in infos]
        return cast(Json, [self._world.get_db_hash() == reference_hash(self._level, self._id), *told])


def _opening(user: User) -> str:
    """What the customer comes with. Small models may say at once that it is over, which cannot be."""
    opening = user.answer(GREETING)
    for end in ENDS:
        opening = opening.replace(end, "")
    if not opening.strip():
        raise EndpointError("τ²-bench's user ended the conversation before it began; use a model that follows its guidelines")
    return opening.strip()
