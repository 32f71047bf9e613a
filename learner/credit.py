"""Credit: a group's rewards turned into advantages. Pure; a faulted sibling gets none and enters no baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Protocol

from envs.types import Author, Group, Stop, Trajectory

EPSILON = 1e-6
DISCOUNT = 0.5  # of what a later user turn earns

History = tuple[tuple[int, ...], ...]  # what was read and said by turns, as tokens


class Credit(Protocol):
    """One tuple per trajectory of the group: an advantage for each turn, or () where it is not to be trained on."""

    def __call__(self, group: Group) -> tuple[tuple[float, ...], ...]: ...


def grpo(group: Group) -> tuple[tuple[float, ...], ...]:
    """(reward - mean) / (std + epsilon), with the population's std. GRPO, arXiv 2402.03300, section 4.1.2."""
    return _spread(group, lambda rewards: _scaled(_centred(rewards)))


def mean(group: Group) -> tuple[tuple[float, ...], ...]:
    """reward - mean, not scaled, so that groups of hardly any spread are not blown up. Dr. GRPO, arXiv 2503.20783."""
    return _spread(group, _centred)


def rloo(group: Group) -> tuple[tuple[float, ...], ...]:
    """reward - mean of the other siblings. RLOO, arXiv 2402.14740, section 3.2."""
    return _spread(group, lambda rewards: [x * len(rewards) / max(len(rewards) - 1, 1) for x in _centred(rewards)])


def reward(group: Group) -> tuple[tuple[float, ...], ...]:
    """The reward itself: with `learner.normalize` its baseline is the whole batch's. REINFORCE++, arXiv 2501.03262, section 3."""
    return _spread(group, list)


def tree(group: Group) -> tuple[tuple[float, ...], ...]:
    """Q(state, action) - V(state), scaled: siblings that stand in the same state are each other's baseline.

    A state is all that was read and said before; Q and V are means of what its siblings earned from its user turn on
    (`_returns`). A sibling alone in its state is compared with all that reached the user turn; their (population) std is
    the scale. With one user turn and only the first state shared this is `grpo`. After GiGPO, arXiv 2505.10978, 3.
    """
    sound = _sound(group)
    returns, visits = [_returns(one) for one in sound], [_visits(one) for one in sound]
    reached: dict[int, list[float]] = {}  # user turn -> the returns from it on
    earned: dict[History, list[float]] = {}  # a state, or one with an action -> the same
    for gains, path in zip(returns, visits, strict=True):
        for user_turn in {visit.user_turn for visit in path}:
            reached.setdefault(user_turn, []).append(gains[user_turn])
        for visit in path:
            for history in (visit.state, visit.acted):
                earned.setdefault(history, []).append(gains[visit.user_turn])

    def advantage(visit: Visit) -> float:
        peers, alike = reached[visit.user_turn], earned[visit.state]
        gap = fmean(earned[visit.acted]) - fmean(alike if len(alike) > 1 else peers)
        return gap / (pstdev(peers) + EPSILON) if abs(gap) > EPSILON else 0.0

    return _for_policy(group, [tuple(map(advantage, path)) for path in visits])


def turns(group: Group) -> tuple[tuple[float, ...], ...]:
    """Each user turn's own outcome, scaled over the siblings that reached it; what came of other turns does not count.

    With one user turn this is `grpo`. After the turn-level advantages of TurnSight (2608.04007) and MatchTIR.
    """
    sound = _sound(group)
    own = [list(trajectory.turn_rewards or (trajectory.reward,)) for trajectory in sound]
    visits = [_visits(one) for one in sound]
    scores: dict[int, dict[int, float]] = {}  # user turn -> sibling -> advantage
    for user_turn in {visit.user_turn for path in visits for visit in path}:
        there = [n for n, path in enumerate(visits) if any(visit.user_turn == user_turn for visit in path)]
        gaps = _scaled(_centred([own[n][user_turn] for n in there]))
        scores[user_turn] = dict(zip(there, gaps, strict=True))
    return _for_policy(group, [tuple(scores[visit.user_turn][n] for visit in path) for n, path in enumerate(visits)])


CREDITS: dict[str, Credit] = {
    "grpo": grpo,
    "mean": mean,
    "rloo": rloo,
    "tree": tree,
    "turns": turns,
    "reward": reward,
}


def _spread(group: Group, score: Callable[[Sequence[float]], Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    sound = _sound(group)
    scores = score([trajectory.reward for trajectory in sound])
    return _for_policy(group, [(x,) * len(one.turns) for x, one in zip(scores, sound, strict=True)])


def _sound(group: Group) -> list[Trajectory]:
    sound = [trajectory for trajectory in group.trajectories if trajectory.stop is not Stop.FAULT]
    for trajectory in sound:
        if not all(map(math.isfinite, (trajectory.reward, *trajectory.turn_rewards))):
            raise ValueError(f"trajectory {trajectory.id!r} has the reward {trajectory.reward}: rewards must be finite")
    return sound


def _for_policy(group: Group, sound: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], ...]:
    """The sound trajectories' advantages in the group's order, () for faulted ones.

    An expert's turn gets 0, as context: it says nothing of how good the policy's own choices were.
    """
    rows = iter(sound)
    return tuple(
        ()
        if one.stop is Stop.FAULT
        else tuple(
            advantage if turn.author is Author.POLICY else 0.0 for turn, advantage in zip(one.turns, next(rows), strict=True)
        )
        for one in group.trajectories
    )


@dataclass(frozen=True, slots=True)
class Visit:
    """One assistant message: in which user turn, in what state, and that state with the action taken."""

    user_turn: int
    state: History
    acted: History


def _visits(trajectory: Trajectory) -> list[Visit]:
    visits: list[Visit] = []
    user_turn, history = 0, ()
    for turn in trajectory.turns:
        state = (*history, turn.context)
        history = (*state, turn.action)
        visits.append(Visit(user_turn, state, history))
        user_turn = min(user_turn + (turn.observation.signals.state is not None), max(len(trajectory.turn_rewards) - 1, 0))
    return visits


def _returns(trajectory: Trajectory) -> list[float]:
    """What each user turn earned with those after it, each one later counting half as much.

    A trajectory without rewards per user turn counts as one user turn.
    """
    returns = list(trajectory.turn_rewards or (trajectory.reward,))
    for at in range(len(returns) - 2, -1, -1):
        returns[at] += DISCOUNT * returns[at + 1]
    return returns


def _centred(rewards: Sequence[float]) -> list[float]:
    # Rewards alike up to rounding are exactly alike here: a std of 1e-17 must not become a signal.
    if not rewards or max(rewards) - min(rewards) <= EPSILON:
        return [0.0] * len(rewards)
    baseline = math.fsum(rewards) / len(rewards)
    return [reward - baseline for reward in rewards]


def _scaled(centred: Sequence[float]) -> list[float]:
    std = math.sqrt(math.fsum(x * x for x in centred) / max(len(centred), 1))
    return [x / (std + EPSILON) for x in centred]
