"""A small stateful shop whose tools depend on one another; user requests are revealed turn by turn."""

from envs.environment import Entry
from envs.shop.shop import RULES, Shop
from envs.shop.tasks import LEVELS, oracle, taskset

ENTRY = Entry(Shop, taskset, LEVELS, RULES, oracle, is_quick=True)
__all__ = ["ENTRY", "LEVELS", "RULES", "Shop", "oracle", "taskset"]
