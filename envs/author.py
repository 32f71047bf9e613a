"""A language model asked to write something down as JSON."""

from __future__ import annotations

import json
from typing import Protocol, cast

from envs.endpoint import Reply
from envs.types import Json


class Unreadable(ValueError):
    """A reply without the JSON object that was asked for."""


class Author(Protocol):
    def ask(self, system: str, user: str) -> Reply:
        """Raises EndpointError where no reply comes."""
        ...


def ask_json(author: Author, system: str, user: str) -> dict[str, Json]:
    """The reply's first JSON object, fenced or in the midst of words. Raises Unreadable."""
    reply = author.ask(system, user).text
    decoder = json.JSONDecoder()
    for start in (at for at, char in enumerate(reply) if char == "{"):
        try:
            value, _ = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        return cast(dict[str, Json], value)
    raise Unreadable(f"no JSON object in the reply {reply[:200]!r}")
