"""What of a group is imitated: successful actions of the policy's own, and those of an expert that helped. All else is masked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from envs.types import Author, Group, Stop, Trajectory
from learner.segments import Segment, segments

Rows = tuple[tuple[float, ...], ...]  # one per trajectory of the group: 1 for each turn to imitate, () for none
Choice = Callable[[Sequence[Trajectory]], Sequence[Trajectory]]


class Imitation(Protocol):
    """`choose` picks among the trajectories that solve the task from the same state."""

    def __call__(self, group: Group, choose: Choice) -> Rows: ...


def success(group: Group, choose: Choice) -> Rows:
    """Every turn, an expert's too, of episodes that succeeded: rejection fine-tuning, and of an expert alone, cloning."""
    kept = {one.id for one in choose(_solved(group.trajectories))}
    return tuple((1.0,) * len(one.turns) if one.id in kept else () for one in group.trajectories)


def eef(group: Group, choose: Choice, *, recovers: bool = True) -> Rows:
    """Siblings that began at states of one expert trajectory: its helpful actions with what the policy made of them.

    Important states are the first one, and each at which a beneficial or, with `recovers`, a recovery segment begins. Of
    the first, the policy's own solution is kept; of another, the segment's actions and the policy's solution from its
    end. What the expert did before is context, and masked. A state is one that the policy succeeds from where at least
    half of its simulations do. EEF (2504.13145), section 3; how it chooses among solutions is not known.
    """
    helpful = {Segment.BENEFICIAL, Segment.RECOVERY} if recovers else {Segment.BENEFICIAL}
    states = _states(group)
    depths, solved = list(states), [_solved(siblings) for siblings in states.values()]
    succeeds = [2 * len(won) >= len(siblings) for won, siblings in zip(solved, states.values(), strict=True)]
    taught = {one.id: (0, 0) for one in choose(solved[0])} if depths and not depths[0] else {}
    for at, segment in enumerate(segments(succeeds)):
        if segment in helpful:
            taught |= {one.id: (depths[at], depths[at + 1]) for one in choose(solved[at + 1])}
    return tuple(_row(one, *taught[one.id]) if one.id in taught else () for one in group.trajectories)


IMITATIONS: dict[str, Imitation] = {"success": success, "eef": eef, "eef_initial": partial(eef, recovers=False)}
EEF = ("eef", "eef_initial")


def _all(solutions: Sequence[Trajectory]) -> Sequence[Trajectory]:
    return solutions


def _shortest(solutions: Sequence[Trajectory]) -> Sequence[Trajectory]:
    return sorted(solutions, key=lambda one: (one.num_action_tokens, one.id))[:1]


def _recent(solutions: Sequence[Trajectory]) -> Sequence[Trajectory]:
    return sorted(solutions, key=lambda one: (-one.version, one.id))[:1]


def _random(solutions: Sequence[Trajectory]) -> Sequence[Trajectory]:
    ids = [one.id for one in solutions]
    return random.Random("/".join(ids)).sample(list(solutions), min(1, len(ids)))


CHOICES: dict[str, Choice] = {"all": _all, "shortest": _shortest, "recent": _recent, "random": _random}


def depth(trajectory: Trajectory) -> int:
    """After how many of an expert's actions the policy took over."""
    authors = [turn.author for turn in trajectory.turns]
    return authors.index(Author.POLICY) if Author.POLICY in authors else len(authors)


def _states(group: Group) -> dict[int, list[Trajectory]]:
    """The siblings by the state in which they began, the earliest first.

    Those that met a fault are left out, and those cut off before the policy's first action, which say nothing of a state.
    """
    acted = (one for one in group.trajectories if depth(one) < len(one.turns) or not one.turns)
    sound = sorted((one for one in acted if one.stop is not Stop.FAULT), key=depth)
    return {at: [one for one in sound if depth(one) == at] for at in dict.fromkeys(map(depth, sound))}


def _solved(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return [one for one in trajectories if one.success and one.stop is not Stop.FAULT]


def _row(trajectory: Trajectory, first: int, last: int) -> tuple[float, ...]:
    start = depth(trajectory)
    return tuple(float(first <= at < last or at >= start) for at in range(len(trajectory.turns)))
