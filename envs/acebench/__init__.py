"""ACEBench's agent tasks, from a clone of its repository: `acebench:FOLDER`."""

from functools import partial

from envs.acebench.acebench import Acebench
from envs.acebench.data import LEVELS
from envs.acebench.tasks import oracle, taskset
from envs.environment import Entry
from envs.user import named


def ready(folder: str, levels: tuple[str, ...]) -> None:
    """Raises ValueError where the folder's data cannot be read, or its classes not be used."""
    for level in levels:
        taskset(folder, "test", level)


def entry(folder: str) -> Entry:
    """The tasks in that folder; those with a user only where a model is named that plays users."""
    has_user = named() is not None
    levels = LEVELS if has_user else LEVELS[:1]
    tasks, check = partial(taskset, folder), partial(ready, folder, levels)
    return Entry(Acebench, tasks, levels, "", oracle, ready=check, is_quick=not has_user)


__all__ = ["Acebench", "entry", "oracle", "taskset"]
