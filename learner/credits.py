"""Which credit a group gets, by name: its assignment's own, or the run's."""

from __future__ import annotations

from dataclasses import dataclass

from envs.types import Group, Stop
from learner.credit import CREDITS
from learner.imitation import CHOICES, IMITATIONS

NAMES = (*CREDITS, *IMITATIONS)


@dataclass(frozen=True, slots=True)
class Credits:
    """The run's credit, for assignments without one; `solutions` picks where several may be imitated."""

    name: str
    solutions: str = "all"

    def __call__(self, group: Group) -> tuple[tuple[float, ...], ...]:
        """One tuple per trajectory: an advantage for each turn, or () where it is not to be trained on."""
        name = self.of(group)
        return IMITATIONS[name](group, CHOICES[self.solutions]) if name in IMITATIONS else CREDITS[name](group)

    def of(self, group: Group) -> str:
        return group.assignment.credit or self.name

    def imitates(self, group: Group) -> bool:
        """Whether its likelihood is raised as it is, whoever acted: no ratio to the policy that sampled."""
        return self.of(group) in IMITATIONS

    def teaches(self, group: Group) -> bool:
        """Whether a batch learns from it. Only `reward` has a baseline that is not the group's own."""
        if self.imitates(group):
            return any(any(row) for row in self(group))
        is_played = any(one.stop is not Stop.FAULT and one.num_action_tokens for one in group.trajectories)
        return group.has_signal or (self.of(group) == "reward" and is_played)
