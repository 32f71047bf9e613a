"""A small stateful shop whose tools depend on one another; user requests are revealed turn by turn."""

from envs.shop.shop import RULES, Shop
from envs.shop.tasks import LEVELS, oracle, taskset

__all__ = ["LEVELS", "RULES", "Shop", "oracle", "taskset"]
