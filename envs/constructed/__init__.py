"""Environments that were built from questions (`envs.construct`) or published by others, from a folder: `constructed:FOLDER`."""

from functools import partial

from envs.construct.records import KINDS
from envs.constructed.constructed import Constructed, open_sandbox
from envs.constructed.tasks import oracle, taskset
from envs.environment import Entry


def ready(folder: str) -> None:
    """Raises ValueError where the folder's lines cannot be read, or tools not shut in here."""
    taskset(folder, "train", KINDS[0])
    open_sandbox().close()


def entry(folder: str) -> Entry:
    """The environments in that folder."""
    return Entry(Constructed, partial(taskset, folder), KINDS, "", oracle, ready=partial(ready, folder))


__all__ = ["Constructed", "entry", "oracle", "taskset"]
