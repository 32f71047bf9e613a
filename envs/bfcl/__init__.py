"""BFCL's multi-turn tasks: eight tool classes, four categories, 800 tasks."""

from envs.bfcl.bfcl import RULES, Bfcl
from envs.bfcl.tasks import LEVELS, messages, oracle, recorded, taskset

__all__ = ["LEVELS", "RULES", "Bfcl", "messages", "oracle", "recorded", "taskset"]
