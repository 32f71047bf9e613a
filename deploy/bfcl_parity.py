"""`make bfcl-parity`: our verdicts against BFCL's own checker, on every reference and on thousands of changed ones.

usage: python -m deploy.bfcl_parity [NUMBER OF CHANGED LISTS]     4,000 without one; exit status 1 where any verdict differs
Also the speed of our executor over theirs, on the same calls, in one run.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import cast

from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from deploy.figure import Figure
from envs.bfcl.data import CATEGORIES, Scenario, scenarios
from envs.bfcl.tasks import SPLIT, recorded, taskset
from envs.bfcl.world import World
from envs.call_text import read
from envs.types import Task
from rewards.score import score_line

Turns = list[list[str]]
NAMES = {  # our reasons in the official words
    "": "",
    "no call": "multi_turn:empty_turn_model_response",
    "other state": "multi_turn:instance_state_mismatch",
    "results not seen": "multi_turn:execution_response_mismatch",
}
ROUNDS = 5


def dropped(turns: Turns, rng: random.Random) -> None:
    turn = _any(turns, rng)
    turn.pop(rng.randrange(len(turn)))


def doubled(turns: Turns, rng: random.Random) -> None:
    turn = _any(turns, rng)
    turn.insert(rng.randrange(len(turn) + 1), rng.choice(turn))


def reordered(turns: Turns, rng: random.Random) -> None:
    turn = max(turns, key=len)
    rng.shuffle(turn)


def emptied(turns: Turns, rng: random.Random) -> None:
    _any(turns, rng).clear()


def moved(turns: Turns, rng: random.Random) -> None:
    """A call made in another user turn."""
    call = _any(turns, rng).pop(0)
    rng.choice(turns).append(call)


def misnamed(turns: Turns, rng: random.Random) -> None:
    """Another tool, or none, with the same arguments."""
    turn = _any(turns, rng)
    at = rng.randrange(len(turn))
    arguments = turn[at].partition("(")[2]
    turn[at] = rng.choice(["ls", "get_order_details", "no_such_tool", "rm", "mean", "cancel_booking"]) + "(" + arguments


def misargued(turns: Turns, rng: random.Random) -> None:
    """An argument of another value or type, an argument too many or too few."""
    turn = _any(turns, rng)
    at = rng.randrange(len(turn))
    call = read(turn[at])
    values = [*call.args, *call.kwargs.values()]
    other = rng.choice(["x", 0, 1, True, None, 2.5, -3, [], ["a"], {"a": 1}, "", *values])
    kwargs = dict(call.kwargs)
    if kwargs and rng.random() < 0.8:
        name = rng.choice(list(kwargs))
        kwargs.pop(name)
        if rng.random() < 0.8:
            kwargs[name] = other
    else:
        kwargs["extra"] = other
    turn[at] = f"{call.name}({', '.join([*map(repr, call.args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"


def added(turns: Turns, rng: random.Random) -> None:
    """A call in a user turn that has none, or anywhere."""
    empty = [turn for turn in turns if not turn]
    rng.choice(empty or turns).append(rng.choice(_any(turns, rng)))


CHANGES: Sequence[Callable[[Turns, random.Random], None]] = (
    dropped, doubled, reordered, emptied, moved, misnamed, misargued, added,
)  # fmt: skip


def _any(turns: Turns, rng: random.Random) -> list[str]:
    return rng.choice([turn for turn in turns if turn])


@cache
def tasks() -> dict[str, Task]:
    return {task.id: task for split in SPLIT for level in CATEGORIES for task in taskset(split, level)}


def task(scenario: Scenario, category: str) -> Task:
    return tasks()[f"bfcl/{category}/{scenario.number}"]


def theirs(scenario: Scenario, category: str, turns: Turns) -> str:
    """The official error class; empty where it finds the calls valid."""
    entry = {
        "id": f"multi_turn_{category}_{scenario.number}",
        "initial_config": scenario.config,
        "involved_classes": list(scenario.classes),
    }
    steps = [[[call] for call in turn] for turn in turns]
    reference = [list(calls) for calls in scenario.truth]
    found = multi_turn_checker(steps, reference, entry, category, "parity")
    forget()
    return cast(str, found.get("error_type", ""))


def forget() -> None:
    """Their executor keeps every instance in its module's globals, and goes on with it where a name comes again."""
    names = vars(multi_turn_utils)
    for name in [name for name in names if name.endswith("_instance")]:
        del names[name]


def ours(task: Task, turns: Turns) -> str:
    """Our verdict, in the official words; empty where it is valid."""
    found = score_line("bfcl", json.dumps({"task_id": task.id, "turns": turns}))
    return NAMES[str(found["verdict"]).partition(": ")[2]]


def changed(number: int) -> Iterator[tuple[str, Scenario, str, Turns]]:
    """`number` seeded changes, each of one or two kinds, spread over all tasks."""
    pool = [(category, scenario) for category in CATEGORIES for scenario in scenarios(category)]
    for index in range(number):
        rng = random.Random(index)
        category, scenario = pool[index % len(pool)]
        turns = [list(calls) for calls in scenario.truth]
        kinds = rng.sample(CHANGES, 1 + (rng.random() < 0.3))
        for change in kinds:
            if any(turns):
                change(turns, rng)
        yield category, scenario, "+".join(kind.__name__ for kind in kinds), turns


def compare(number: int) -> int:
    """How many verdicts differ."""
    differing = invalid = 0
    for category in CATEGORIES:
        for scenario in scenarios(category):
            turns = [list(calls) for calls in scenario.truth]
            found = ours(task(scenario, category), turns), theirs(scenario, category, turns)
            invalid += any(found)
    print(f"references: {800 - invalid} of 800 valid for both")
    classes: Counter[str] = Counter()
    for category, scenario, kind, turns in changed(number):
        mine, official = ours(task(scenario, category), turns), theirs(scenario, category, turns)
        classes[official or "valid"] += 1
        if mine != official:
            differing += 1
            print(f"{category} {scenario.number}, {kind}: ours {mine or 'valid'}, theirs {official or 'valid'}: {turns}")
    print(f"changed references: {differing} of {number} verdicts differ; official ones: {json.dumps(classes)}")
    return differing + invalid


def speed() -> None:
    """Calls a second of both executors over all references, instances made anew each time."""
    pool = [(category, scenario) for category in CATEGORIES for scenario in scenarios(category)]
    count = sum(len(calls) for _, scenario in pool for calls in scenario.truth)
    rates = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for category, scenario in pool:
            place = World.open(scenario.classes, scenario.config, is_long=category == "long_context")
            for calls in scenario.truth:
                for call in calls:
                    place.run(recorded(task(scenario, category), call))
        between = time.perf_counter()
        for category, scenario in pool:
            for calls in scenario.truth:
                multi_turn_utils.execute_multi_turn_func_call(
                    list(calls), dict(scenario.config), list(scenario.classes), "speed", f"{category}_{scenario.number}",
                    long_context=category == "long_context",
                )  # fmt: skip
            forget()
        rates.append((count / (between - begun), count / (time.perf_counter() - between)))
    value, reference = (statistics.median(column) for column in zip(*rates, strict=True))
    Figure("bfcl", value, reference, "calls/s", 1.3, "make bfcl-parity").tell()


def main(arguments: Sequence[str]) -> int:
    differing = compare(int(arguments[0]) if arguments else 4000)
    speed()
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
