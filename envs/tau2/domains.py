"""The package's two domains in which only the agent has tools: their tasks, databases and what the reference leads to."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from tau2.data_model.message import ToolCall as PackageCall
from tau2.data_model.tasks import EvaluationCriteria
from tau2.data_model.tasks import Task as PackageTask
from tau2.domains.airline import environment as airline
from tau2.domains.airline.data_model import FlightDB
from tau2.domains.airline.utils import AIRLINE_DB_PATH
from tau2.domains.retail import environment as retail
from tau2.domains.retail.data_model import RetailDB
from tau2.domains.retail.utils import RETAIL_DB_PATH
from tau2.environment.db import DB
from tau2.environment.environment import Environment as PackageWorld


@dataclass(frozen=True, slots=True)
class Domain:
    """`splits` names the tasks of "train" and "test"; `enter` makes a world of a database, and writes into it."""

    tasks: Callable[[], Sequence[PackageTask]]
    splits: Callable[[], Mapping[str, list[str]]]
    load: Callable[[], DB]
    enter: Callable[[DB], PackageWorld]


DOMAINS = {
    "airline": Domain(
        airline.get_tasks,
        airline.get_tasks_split,
        lambda: FlightDB.load(str(AIRLINE_DB_PATH)),
        lambda db: airline.get_environment(cast(FlightDB, db)),
    ),
    "retail": Domain(
        retail.get_tasks,
        retail.get_tasks_split,
        lambda: RetailDB.load(str(RETAIL_DB_PATH)),
        lambda db: retail.get_environment(cast(RetailDB, db)),
    ),
}


@cache
def package_tasks(level: str) -> Mapping[str, PackageTask]:
    return {task.id: task for task in DOMAINS[level].tasks()}


def criteria(level: str, id: str) -> EvaluationCriteria:
    """All of these tasks are judged by the database and by what was communicated, none by a language model."""
    found = package_tasks(level)[id].evaluation_criteria
    assert found is not None
    return found


def world(level: str) -> PackageWorld:
    """A fresh one: all tasks of a domain begin alike."""
    return DOMAINS[level].enter(pickle.loads(_database(level)))  # a third faster than model_copy(deep=True)


@cache
def reference_hash(level: str, id: str) -> str | None:
    """Of the database as the reference actions leave it."""
    after = world(level)
    for action in criteria(level, id).actions or []:
        after.get_response(PackageCall(name=action.name, arguments=action.arguments, requestor=action.requestor))
    return after.get_db_hash()


@cache
def _database(level: str) -> bytes:
    return pickle.dumps(DOMAINS[level].load(), pickle.HIGHEST_PROTOCOL)
