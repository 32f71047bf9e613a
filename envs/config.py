"""Which environment, and which rules augment it."""

from __future__ import annotations

from dataclasses import dataclass

from envs.augmentation import Rules, load_rules
from envs.environment import environment


@dataclass(frozen=True)
class EnvsConfig:
    name: str = "shop"
    rules: str = ""  # path of a rules file; empty for the environment's own

    def __post_init__(self) -> None:
        environment(self.name)


def rules(config: EnvsConfig) -> Rules:
    """The rules the config asks for; without any rule where there are none."""
    path = config.rules or environment(config.name).rules
    return load_rules(path) if path else Rules(config.name, 0)
