"""A language model asked to write something down as JSON: any OpenAI-compatible endpoint, vLLM's own server included."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol, cast

import openai

from envs.types import Json


class AuthorError(RuntimeError):
    """The endpoint cannot be used: the message says what to look at."""


class NoReply(AuthorError):
    """None came in time: one question may be at fault, rather than the endpoint."""


class Unreadable(ValueError):
    """A reply without the JSON object that was asked for."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the author wrote, and the tokens that it read and wrote."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Author(Protocol):
    def ask(self, system: str, user: str) -> Reply:
        """Raises AuthorError where no reply comes."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """`url` is the base, such as http://127.0.0.1:8000/v1; without a key one is sent that servers of one's own accept."""

    url: str
    model: str
    key: str = ""
    timeout_s: float = 120.0
    temperature: float = 0.7
    max_tokens: int = 2048

    def ask(self, system: str, user: str) -> Reply:
        client = openai.OpenAI(base_url=self.url, api_key=self.key or "none", timeout=self.timeout_s, max_retries=2)
        try:
            reply = client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
        except openai.APITimeoutError as error:
            raise NoReply(f"no reply within {self.timeout_s:g} s") from error
        except openai.OpenAIError as error:
            raise AuthorError(f"{self.url}, model {self.model!r}: {error}; is the server up, and the key right?") from error
        text = (reply.choices[0].message.content if reply.choices else None) or ""
        usage = reply.usage
        return Reply(text, usage.prompt_tokens, usage.completion_tokens) if usage else Reply(text)


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
