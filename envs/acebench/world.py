"""ACEBench's API classes, taken from the folder and held by one episode, and the verdict on the state they end in.

They are somebody else's code and run in this process, as BFCL's do: whoever names a folder trusts what is in it. Nothing that
the policy writes is evaluated: a call is looked up among the classes' public methods, and its arguments are passed as values.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from envs import conversation
from envs.acebench.data import REMEDY
from envs.types import CallOutcome, Json, Task, ToolCall

PACKAGE = "model_inference"
MODULES = {
    "BaseApi": "phone_platform.base_api",
    "MessageApi": "phone_platform.message",
    "ReminderApi": "phone_platform.reminder",
    "FoodPlatform": "phone_platform.food_services",
    "Travel": "travel",
}
# What the official scorer looks at, and nothing else of an instance.
JUDGED = {
    "BaseApi": ("wifi", "logged_in"),
    "MessageApi": ("inbox",),
    "ReminderApi": ("reminder_list",),
    "FoodPlatform": ("users", "logged_in_users", "orders"),
    "Travel": ("users", "reservations"),
}
RAISED = "Error during execution: "
_IMPORTING = threading.Lock()  # modules and their path are the whole process's
State = Mapping[str, Mapping[str, Json]]


class Apis(conversation.World):
    """The instances of one episode. Its state is the verdict: whether it is the answer's, and the milestones reached."""

    def __init__(self, task: Task) -> None:
        payload = task.payload
        folder, config = str(payload["folder"]), cast(dict[str, Json], payload["config"])
        level, names = task.level, cast(list[str], payload["classes"])
        self._instances = {name: _instance(api(folder, level, name), name, config) for name in names}
        self._answer = cast(list[State], payload["answer"])
        self._paths = cast(list[list[list[dict[str, Json]]]], payload["paths"])
        self._made: list[ToolCall] = []

    def run(self, call: ToolCall) -> CallOutcome:
        self._made.append(call)
        owners = [(one, methods(type(one))[call.name]) for one in self._instances.values() if call.name in methods(type(one))]
        if not owners:
            return CallOutcome(call, f"{RAISED}no tool is called {call.name}", f"no tool is called {call.name}")
        result: object = None
        try:
            for instance, method in owners:  # as officially: the phone's switches are in each of its classes
                result = method(instance, **copy.deepcopy(dict(call.arguments)))
            told = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        except Exception as error:  # a tool's failure is an answer
            return CallOutcome(call, f"{RAISED}{error}", str(error) or type(error).__name__)
        return CallOutcome(call, told, _error(result))

    def state(self, answer: str) -> Json:
        found = {name: _judged(name, instance) for name, instance in self._instances.items()}
        right = bool(self._made) and is_right(found, self._answer)
        return {"right": right, "score": 1.0 if right else max(reached(path, self._made) for path in self._paths)}

    def cut(self) -> Json:
        return self.state("")


def is_right(found: State, answer: Sequence[State]) -> bool:
    """The official end accuracy. Of an attribute that holds entries by name, those in the answer have to be there and equal;
    any other has to be equal. A class that the answer calls by another name is not looked at.
    """
    pairs = [(found[name], expected) for one in answer for name, expected in one.items() if name in found]
    return len(found) == len(answer) and all(_agrees(attributes, expected) for attributes, expected in pairs)


def reached(path: Sequence[Sequence[Mapping[str, Json]]], made: Sequence[ToolCall]) -> float:
    """The official process accuracy: the share of milestones met in their order, up to the first that is missing."""
    calls, count = iter(made), 0
    for milestone in path:
        expected = [ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"])) for call in milestone]
        if not expected or not all(call in calls for call in expected):  # looking for a call passes over those before it
            break
        count += 1
    return count / len(path) if path else 1.0


@cache
def api(folder: str, level: str, name: str) -> type:
    """The class of that name in the folder. Raises ValueError where there is none that can be used."""
    if name not in MODULES:
        raise ValueError(f"no class of ACEBench is called {name!r}; there are: {', '.join(MODULES)}")
    module, root = f"{PACKAGE}.{level}.scenariosen.{MODULES[name]}", str(Path(folder).absolute())
    with _IMPORTING:
        sys.path.insert(0, root)
        importlib.invalidate_caches()
        try:
            found = vars(importlib.import_module(module))[name]
            found()._load_scenario({}, long_context=False)
        except Exception as error:  # whatever somebody else's module raises while it is imported
            raise ValueError(f"{root}: the class {name} of {module} cannot be used ({error!r}); {REMEDY}") from error
        finally:
            sys.path.remove(root)
            for one in [one for one in sys.modules if one.partition(".")[0] == PACKAGE]:  # another folder has its own
                vars(sys.modules.pop(one))["print"] = _silent  # standard output is for results
    return found


@cache
def methods(kind: type) -> dict[str, Callable[..., object]]:
    """The tools of a class: its public methods."""
    return {name: method for name, method in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def _instance(kind: type, name: str, config: Mapping[str, Json]) -> object:
    instance = kind()
    for part in (name, "BaseApi"):
        instance._load_scenario(copy.deepcopy(config.get(part, {})), long_context=False)
    return instance


def _judged(name: str, instance: object) -> dict[str, Json]:
    """As JSON has it: keys are texts."""
    attributes = {key: value for key, value in vars(instance).items() if key in JUDGED[name]}
    return json.loads(json.dumps(attributes, default=str))


def _agrees(found: Mapping[str, Json], expected: Mapping[str, Json]) -> bool:
    return found.keys() <= expected.keys() and all(_holds(value, expected[name]) for name, value in found.items())


def _holds(found: Json, expected: Json) -> bool:
    if not isinstance(expected, dict):
        return found == expected
    return isinstance(found, dict) and all(key in found and found[key] == value for key, value in expected.items())


def _error(result: object) -> str:
    match result:
        case {"status": False | "error", "message": message}:
            return str(message)
        case _:
            return ""


def _silent(*values: object, **options: object) -> None:
    return None
