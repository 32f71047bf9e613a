"""BFCL's multi-turn tasks: eight tool classes, four categories, 800 tasks."""

from envs.bfcl.bfcl import RULES, Bfcl
from envs.bfcl.tasks import LEVELS, messages, oracle, recorded, taskset
from envs.environment import Entry

ENTRY = Entry(Bfcl, taskset, LEVELS, RULES, oracle, recorded=recorded, messages=messages, is_quick=True)
__all__ = ["ENTRY", "LEVELS", "RULES", "Bfcl", "messages", "oracle", "recorded", "taskset"]
