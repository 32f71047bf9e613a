"""A trajectory split where its user turns end, and which of them the policy solved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from envs.truth import Reference, canonical, references
from envs.types import CallOutcome, Json, Task, Trajectory
from rewards.sub_questions import SubQuestions

UNFINISHED = "not finished"


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What happened in one user turn. `state` is None where it never ended."""

    outcomes: tuple[CallOutcome, ...] = ()
    num_malformed: int = 0
    state: Json = None

    @property
    def is_refused(self) -> bool:
        """Whether the last call came to an error."""
        return bool(self.outcomes) and bool(self.outcomes[-1].error)


def user_turns(task: Task, trajectory: Trajectory) -> tuple[UserTurn, ...]:
    """One entry per user turn of the task, those never reached included."""
    turns: list[UserTurn] = []
    now = UserTurn()
    for turn in trajectory.turns:
        signals = turn.observation.signals
        now = UserTurn((*now.outcomes, *signals.outcomes), now.num_malformed + bool(signals.malformed), signals.state)
        if signals.state is not None:
            turns.append(now)
            now = UserTurn()
    missing = len(task.truth) - len(turns)
    return (*turns, now, *[UserTurn()] * (missing - 1)) if missing > 0 else tuple(turns[: len(task.truth)])


def failures(task: Task, trajectory: Trajectory) -> tuple[str, ...]:
    """Per user turn why it is not solved, "" where it is: it has to end in the reference's state, all its results seen by then.

    Environment Tuning (2510.10197, 3.4): r_state * r_exec; results are contained as a multiset, in any order, in all
    the results so far, errors too. Where the truth has sub-questions instead, all of them have to be answered.
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for reference, turn in zip(references(task), user_turns(task, trajectory), strict=True):
        seen.update(canonical(outcome.result) for outcome in turn.outcomes)
        found.append(_failure(reference, turn, seen))
    return tuple(found)


def solved(task: Task, trajectory: Trajectory) -> tuple[bool, ...]:
    return tuple(not failure for failure in failures(task, trajectory))


def verdict(task: Task, trajectory: Trajectory) -> str:
    """Why the episode failed, "" where it succeeded: BFCL's verdict, which passes over user turns that forbid calls."""
    pairs = zip(references(task), failures(task, trajectory), strict=True)
    judged = ["" if reference.forbids_calls and failure != UNFINISHED else failure for reference, failure in pairs]
    return next((f"user turn {number}: {failure}" for number, failure in enumerate(judged, start=1) if failure), "")


def _failure(reference: Reference, turn: UserTurn, seen: Counter[str]) -> str:
    if turn.state is None:
        return UNFINISHED
    if reference.forbids_calls:
        return "needless call" if turn.outcomes else ""
    if reference.needs_call and not turn.outcomes:
        return "no call"
    if canonical(turn.state) != canonical(reference.state):
        return "other state"
    if reference.answers:
        subs = SubQuestions([reference])
        subs.answer(turn.outcomes)
        return f"{subs.left} of {subs.total} sub-questions not answered" if subs.left else ""
    return "" if Counter(map(canonical, reference.results)) <= seen else "results not seen"
