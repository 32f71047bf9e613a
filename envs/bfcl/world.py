"""BFCL's tool classes, held by one episode and run as the official executor runs them, without its `eval`."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.gorilla_file_system import Directory, File, GorillaFileSystem
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.math_api import MathAPI
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.message_api import MessageAPI
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.posting_api import TwitterAPI
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.ticket_api import TicketAPI
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.trading_bot import TradingBot
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.travel_booking import TravelAPI
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.vehicle_control import VehicleControlAPI

from envs.types import ToolCall

CLASSES: dict[str, type] = {
    "GorillaFileSystem": GorillaFileSystem,
    "MathAPI": MathAPI,
    "MessageAPI": MessageAPI,
    "TwitterAPI": TwitterAPI,
    "TicketAPI": TicketAPI,
    "TradingBot": TradingBot,
    "TravelAPI": TravelAPI,
    "VehicleControlAPI": VehicleControlAPI,
}
STATELESS = {"MathAPI"}
ENDLESS = "endless"
FORBIDDEN = {"kill", "exit", "quit", "remove", "unlink", "popen", "Popen", "run"}  # refused by the official executor
MOST = {"precision": 1000, "decimal_places": 1000, "exponent": 1000, "base": 10**9}  # of MathAPI: above it a call would never end


class World:
    """The instances of one episode; they die with it."""

    def __init__(self, instances: Mapping[str, object]) -> None:
        self._instances = instances
        # Of two classes with a method of one name the later one has it, as in the official executor.
        self._methods = {
            method: (instance, function)
            for instance in instances.values()
            for method, function in functions(type(instance)).items()
        }

    @classmethod
    def open(cls, classes: Sequence[str], config: Mapping[str, object], *, is_long: bool) -> World:
        """`config` is the task's initial_config by class, left as it is; `is_long` fills in the long-context data."""
        instances = {name: CLASSES[name]() for name in classes}
        for name, instance in instances.items():
            if name not in STATELESS:
                instance._load_scenario(copy.deepcopy(config.get(name, {})), long_context=is_long)
        # Of long_context some values are the classes' own, shared by all that were ever made.
        return cls(copy.deepcopy(instances) if is_long else instances)

    def run(self, call: ToolCall) -> str:
        """What the official executor would answer, its errors' texts included."""
        try:
            return _text(self._run(call))
        except Exception as error:  # a tool's failure is an answer
            return f"Error during execution: {error}"

    def state(self) -> str:
        """A digest that two worlds share if and only if the official state checker finds them equal.

        A world without an end, a folder within itself, equals no reference's.
        """
        try:
            return self._digest()
        except RecursionError:
            return ENDLESS

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self._instances):
            attributes = vars(self._instances[name])
            for attribute in sorted(attributes):
                if not attribute.startswith("_"):
                    digest.update(f"{name}.{attribute}=".encode())
                    for piece in _canonical(attributes[attribute]):
                        digest.update(piece.encode(errors="surrogatepass"))
        return digest.hexdigest()

    def _run(self, call: ToolCall) -> object:
        if call.name in FORBIDDEN:
            raise ValueError(f"Function call {call.name} is not allowed.")
        if call.name not in self._methods:
            raise NameError(f"name '{call.name}' is not defined")
        instance, function = self._methods[call.name]
        if isinstance(instance, MathAPI):
            _check_size(call)
        # The tools keep and change what they are given: a list in a replayed call must not grow with each replay.
        arguments = call.arguments.items()
        given = {key: copy.deepcopy(value) if isinstance(value, (list, dict)) else value for key, value in arguments}
        return function(instance, **given)


@cache
def functions(kind: type) -> dict[str, Callable[..., object]]:
    """The tools of a class: its public methods."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {method: function for method, function in found if not method.startswith("_")}


def _check_size(call: ToolCall) -> None:
    for name, value in call.arguments.items():
        if name in MOST and isinstance(value, (int, float)) and abs(value) > MOST[name]:
            raise ValueError(f"{name} is {value}; at most {MOST[name]} can be computed")


def _text(result: object) -> str:
    if type(result) is str:
        return result
    if type(result) is dict:
        try:
            return json.dumps(result)
        except Exception:  # noqa: BLE001  (as the official executor does, for results that hold objects)
            return str(result)
    return str(result)


def _canonical(value: object) -> Iterator[str]:
    """Pieces of a text that equal values share, and no others: 1, 1.0 and True are equal in Python, and so here."""
    if isinstance(value, (bool, int, float)):
        yield (
            repr(int(value))
            if value == value and value not in (float("inf"), -float("inf")) and value == int(value)
            else repr(value)
        )
    elif value is None or isinstance(value, str):
        yield json.dumps(value)
    elif isinstance(value, (list, tuple)):
        yield "[" if isinstance(value, list) else "("
        for item in value:
            yield from _canonical(item)
            yield ","
        yield "]"
    elif isinstance(value, dict):
        yield from _sorted("{", (("".join(_canonical(key)), item) for key, item in value.items()))
    elif isinstance(value, (set, frozenset)):
        yield from _sorted("<", (("".join(_canonical(item)), None) for item in value))
    elif isinstance(value, File):
        yield from _canonical(("file", value.name, value.content))
    elif isinstance(value, Directory):
        yield from _canonical(("directory", value.name, value.contents))
    else:
        raise TypeError(f"BFCL's state holds a {type(value).__name__}, which this version of it did not have")


def _sorted(opening: str, pairs: Iterator[tuple[str, object]]) -> Iterator[str]:
    yield opening
    for key, item in sorted(pairs, key=lambda pair: pair[0]):
        yield key
        yield from _canonical(item)
        yield ";"
