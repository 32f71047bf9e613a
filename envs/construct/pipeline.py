"""The stages in their order, and a builder that takes a record through one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from envs.author import Author
from envs.construct.decompose import decompose
from envs.construct.deploy import deploy
from envs.construct.document import document
from envs.construct.gates import objection
from envs.construct.integrate import integrate
from envs.construct.records import Built, Question, Rejected, Scenario, Toolset
from envs.construct.scale import scale
from envs.construct.stage import GivenUp, attempt
from envs.endpoint import Reply
from envs.sandbox import Sandbox

Record = Question | Scenario | Toolset | Built
STAGES: Mapping[str, type] = {  # with what each gives
    "decompose": Scenario, "document": Toolset, "integrate": Toolset, "scale": Toolset, "deploy": Built, "gates": Built,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usage:
    """What an author was asked: how often, and the tokens read and written."""

    asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.asked + other.asked, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)


@dataclass(frozen=True, slots=True)
class Advance:
    """A question after one stage more."""

    id: str
    stage: str
    record: Record | Rejected
    usage: Usage


class Builder:
    """Several questions at a time, each call in a thread of its own."""

    def __init__(self, make_author: Callable[[], Author], *, workers: int = 1, insecure: bool = False) -> None:
        """Raises SandboxError where the tools' code cannot be shut in."""
        self._author = make_author()
        self._sandbox = Sandbox(workers=workers, insecure=insecure)

    async def advance(self, id: str, stage: str, record: Record) -> Advance:
        """The record that this stage makes of it, or why the question is given up. Raises EndpointError."""
        return await asyncio.to_thread(self._advance, id, stage, record)

    def _advance(self, id: str, stage: str, record: Record) -> Advance:
        meter = Meter(self._author)
        if stage == "gates":
            reason = objection(cast(Built, record), self._sandbox)
            return Advance(id, stage, Rejected(id, stage, reason) if reason else record, Usage())
        try:
            return Advance(id, stage, self._played(stage, record, meter), meter.usage)
        except GivenUp as error:
            return Advance(id, stage, Rejected(id, stage, str(error)), meter.usage)

    def _played(self, stage: str, record: Record, author: Author) -> Record:
        match record:
            case Question():
                return attempt(decompose, record, author)
            case Scenario():
                return attempt(document, record, author)
            case Toolset():
                deployed = partial(deploy, sandbox=self._sandbox)
                return attempt({"integrate": integrate, "scale": scale, "deploy": deployed}[stage], record, author)
            case _:
                raise ValueError(f"stage {stage!r} has no use for a {type(record).__name__}")


class Meter:
    """An author whose use is counted."""

    def __init__(self, author: Author) -> None:
        self._author = author
        self.usage = Usage()

    def ask(self, system: str, user: str) -> Reply:
        self.usage += Usage(1)
        reply = self._author.ask(system, user)
        self.usage += Usage(0, reply.tokens_in, reply.tokens_out)
        return reply
