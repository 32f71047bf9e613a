"""What went wrong, in one line for a person."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Carrier(Protocol):
    """An error that brings one here from elsewhere, as Ray's RayTaskError does from an actor."""

    cause: BaseException | None


def reason(error: BaseException) -> str:
    """The type and first line of what was raised first, behind groups and carriers."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    while isinstance(error, Carrier) and isinstance(error.cause, BaseException):
        error = error.cause
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
