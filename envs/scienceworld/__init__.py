"""ScienceWorld's experiments in a simulated building: 7,207 tasks of the package scienceworld, which needs Java."""

from envs.environment import Entry
from envs.scienceworld.scienceworld import ScienceWorld, ready
from envs.scienceworld.tasks import LEVELS, oracle, taskset

ENTRY = Entry(ScienceWorld, taskset, LEVELS, "", oracle, ready=ready)
__all__ = ["ENTRY", "LEVELS", "ScienceWorld", "oracle", "taskset"]
