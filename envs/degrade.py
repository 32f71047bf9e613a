"""Reference trajectories made worse from a seed, in the ways in which real experts fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from envs.types import Json, Message

Messages = Sequence[Message]
MAX_DETOUR = 3  # messages


def early_stop(own: Messages, other: Messages, rng: Random) -> list[Message]:
    """It ends with the last message's words before all is done."""
    return [*own[: rng.randint(0, max(0, len(own) - 2))], replace(own[-1], calls=())]


def wrong_branch(own: Messages, other: Messages, rng: Random) -> list[Message]:
    """From somewhere on it does what another task asks for."""
    at = rng.randint(0, max(0, len(own) - 2))
    return [*own[:at], *(other[at:] or other[-1:])]


def wrong_argument(own: Messages, other: Messages, rng: Random) -> list[Message]:
    """One call has another value in one place: another task's where it has one, else one made up."""
    places = [(at, n, name) for at, one in enumerate(own) for n, call in enumerate(one.calls) for name in sorted(call.arguments)]
    if not places:
        return early_stop(own, other, rng)
    at, number, name = rng.choice(places)
    calls = list(own[at].calls)
    told = calls[number].arguments[name]
    values = [call.arguments[name] for one in other for call in one.calls if name in call.arguments]
    wrong = rng.choice([value for value in values if value != told] or [_made_up(told, rng)])
    calls[number] = replace(calls[number], arguments={**calls[number].arguments, name: wrong})
    return [*own[:at], replace(own[at], calls=tuple(calls)), *own[at + 1 :]]


def detour(own: Messages, other: Messages, rng: Random) -> list[Message]:
    """Somewhere it makes calls that another task needs, then goes on."""
    at = rng.randint(0, max(0, len(own) - 1))
    calls = [one for one in other if one.calls]
    first = rng.randint(0, max(0, len(calls) - 1))
    return [*own[:at], *calls[first : first + rng.randint(1, MAX_DETOUR)], *own[at:]]


KINDS: dict[str, Callable[[Messages, Messages, Random], list[Message]]] = {
    "early_stop": early_stop,
    "wrong_branch": wrong_branch,
    "wrong_argument": wrong_argument,
    "detour": detour,
}


def _made_up(told: Json, rng: Random) -> Json:
    match told:
        case bool():
            return not told
        case int() | float():
            return told + rng.choice((-1, 1, 10))
        case str() if told:
            at = rng.randrange(len(told))
            return told[:at] + told[at + 1 :] or "x"
        case _:
            return "x"
