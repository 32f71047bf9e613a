"""A trajectory split where its user turns end, and which of them the policy solved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from envs.truth import Reference, canonical, references
from envs.types import CallOutcome, Json, Task, Trajectory


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


def solved(task: Task, trajectory: Trajectory) -> tuple[bool, ...]:
    """Per user turn: it ended in the reference's state, and every reference result had been seen by then.

    Environment Tuning (2510.10197, 3.4): r_state * r_exec; results are contained as a multiset, in any order, in all
    the results so far. A user turn without reference calls is solved where it ended without a call.
    """
    seen: Counter[str] = Counter()
    verdicts: list[bool] = []
    for reference, turn in zip(references(task), user_turns(task, trajectory), strict=True):
        seen.update(canonical(outcome.result) for outcome in turn.outcomes)
        verdicts.append(_is_solved(reference, turn, seen))
    return tuple(verdicts)


def succeeded(task: Task, trajectory: Trajectory) -> bool:
    """Every user turn that has reference calls is solved, and the last one ended; as BFCL's checker passes over the others."""
    turns = zip(references(task), user_turns(task, trajectory), solved(task, trajectory), strict=True)
    verdicts = [is_solved if reference.calls else turn.state is not None for reference, turn, is_solved in turns]
    return bool(verdicts) and all(verdicts)


def _is_solved(reference: Reference, turn: UserTurn, seen: Counter[str]) -> bool:
    if turn.state is None or (reference.needs_call and not turn.outcomes):
        return False
    if not reference.calls:
        return not turn.outcomes
    return canonical(turn.state) == canonical(reference.state) and Counter(map(canonical, reference.results)) <= seen
