"""The frozen records of envs/types.py to JSON and back, by their annotations: what a checkpoint keeps is never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dumps(record: object) -> str:
    """JSON text of a record, or of tuples and mappings of records."""
    return json.dumps(_plain(record), separators=(",", ":"))  # in ASCII: half a surrogate pair is no UTF-8


def loads(kind: type[T], text: str) -> T:
    """The record of that type; raises ValueError where the text is not one."""
    return _build(kind, json.loads(text))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return [_plain(vars_) for vars_ in _values(value)]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _values(record: object) -> list[object]:
    return [object.__getattribute__(record, field.name) for field in fields(record)]  # type: ignore[arg-type]


@cache
def _hints(kind: type) -> tuple[object, ...]:
    hints = get_type_hints(kind)
    return tuple(hints[field.name] for field in fields(kind))


@cache
def _num_required(kind: type) -> int:
    return sum(field.default is MISSING and field.default_factory is MISSING for field in fields(kind))


def _build(kind: object, value: object) -> object:  # type: ignore[misc]
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, list) or not _num_required(kind) <= len(value) <= len(fields(kind)):
            raise ValueError(f"this is no {kind.__name__}: {str(value)[:80]}")
        # An older version's record may end sooner: what came later has defaults.
        return kind(*(_build(hint, item) for hint, item in zip(_hints(kind), value, strict=False)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if origin is tuple and isinstance(value, list):
        return tuple(_build(args[0], item) for item in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _build(args[1], item) for key, item in value.items()}
    return value
