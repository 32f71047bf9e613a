"""Calls written as Python text, read by a whitelist over `ast`: a name, and literals. Nothing is evaluated."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.types import Json, ToolCall

MAX_CHARS = 100_000
MAX_DIGITS = 30  # of a number: the longest in the data has 16
MAX_DEPTH = 12  # of lists and objects in one another: the deepest in the data has 3

Value = str | int | float | bool | None | list["Value"] | tuple["Value", ...] | dict["Value", "Value"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it was written; positional arguments are bound where it is run."""

    name: str
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]


class NotACall(ValueError):
    """The text is not a call with literal arguments; the message says in what."""


def read(text: str) -> Call:
    """The call that this text is. Raises NotACall, whatever the text."""
    return _call(_parsed(text))


def read_list(text: str) -> tuple[Call, ...]:
    """The calls of a list of at least one. Raises NotACall, whatever the text."""
    tree = _parsed(text)
    if not isinstance(tree, ast.List) or not tree.elts:
        raise NotACall("not a list of calls")
    return tuple(map(_call, tree.elts))


def tool_call(call: Call, parameters: Sequence[str] = ()) -> ToolCall:
    """The same with every argument named, positional ones by `parameters`, and of JSON's types. Raises NotACall."""
    if len(call.args) > len(parameters):
        raise NotACall("an argument without its name")
    named = dict(zip(parameters, call.args, strict=False))
    if twice := named.keys() & call.kwargs.keys():
        raise NotACall(f"{min(twice)} is given twice")
    return ToolCall(call.name, {name: _json(value) for name, value in {**named, **call.kwargs}.items()})


def _json(value: Value) -> Json:
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not all(isinstance(key, str) for key in value):
        raise NotACall("an object's key is no text")
    return {str(key): _json(item) for key, item in value.items()}


def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_CHARS:
        raise NotACall(f"{len(text)} characters are more than {MAX_CHARS}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotACall("not a Python expression") from None


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or not (name := _dotted(node.func)):
        raise NotACall("not a call of a tool by its name")
    kwargs: dict[str, Value] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in kwargs:
            raise NotACall("arguments are unpacked, or one is given twice")
        kwargs[keyword.arg] = _literal(keyword.value, 0)
    return Call(name, tuple(_literal(argument, 0) for argument in node.args), kwargs)


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr, depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise NotACall(f"an argument is nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=str() | bool() | None as value):
            return value
        case ast.Constant(value=int() | float() as value):
            return _number(value)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
            return -_number(value) if isinstance(sign, ast.USub) else _number(value)
        case ast.List(elts=items):
            return [_literal(item, depth + 1) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item, depth + 1) for item in items)
        case ast.Dict(keys=keys, values=values) if all(keys):
            pairs = (
                (_literal(key, MAX_DEPTH), _literal(value, depth + 1)) for key, value in zip(keys, values, strict=True) if key
            )
            try:
                return dict(pairs)
            except TypeError:
                raise NotACall("a list cannot be a key") from None
        case _:
            raise NotACall("an argument is no literal")


def _number(value: int | float) -> int | float:
    if isinstance(value, int) and value.bit_length() > 4 * MAX_DIGITS or value in (float("inf"), float("-inf")):
        raise NotACall(f"a number has more than {MAX_DIGITS} digits")
    return value
