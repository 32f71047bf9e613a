"""Which environment, and which rules augment it."""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.augmentation import Rules, load_rules
from envs.environment import environment


@dataclass(frozen=True)
class EnvsConfig:
    name: str = "shop"
    levels: list[str] = field(default_factory=list)  # to train on, validate and test; without any all that it has
    rules: str = ""  # path of a rules file; empty for the environment's own

    def __post_init__(self) -> None:
        entry = environment(self.name)
        if unknown := [level for level in self.levels if level not in entry.levels]:
            raise ValueError(f"envs.levels has {unknown[0]!r}; {self.name} has {', '.join(entry.levels)}; [] is all of them")


def rules(config: EnvsConfig) -> Rules:
    """The rules the config asks for; without any rule where there are none."""
    path = config.rules or environment(config.name).rules
    return load_rules(path) if path else Rules(config.name, 0)
