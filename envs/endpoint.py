"""A language model behind any OpenAI-compatible endpoint, vLLM's own server included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from envs.types import Json


class EndpointError(RuntimeError):
    """It cannot be used: the message says what to look at."""


class NoReply(EndpointError):
    """None came, not in time, or the request was refused: one question may be at fault, rather than the endpoint."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model wrote, and the tokens that it read and wrote."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` is the base, such as http://127.0.0.1:8000/v1; without a key one is sent that servers of one's own accept."""

    url: str
    model: str
    key: str = ""
    timeout_s: float = 120.0
    temperature: float = 0.7
    max_tokens: int = 2048

    def complete(self, messages: Sequence[Mapping[str, Json]], tools: Sequence[Mapping[str, Json]] = ()) -> ChatCompletion:
        """Raises EndpointError where no reply comes."""
        create: Any = _client(self.url, self.key or "none", self.timeout_s).chat.completions.create
        try:
            reply = create(
                model=self.model,
                messages=messages,
                tools=list(tools) or openai.omit,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
        except openai.APITimeoutError as error:
            raise NoReply(f"{self.url}, model {self.model!r}: no reply within {self.timeout_s:g} s") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise NoReply(f"{self.url}, model {self.model!r}: refused the request: {error}") from error
        except openai.OpenAIError as error:
            raise EndpointError(f"{self.url}, model {self.model!r}: {error}; is the server up, and the key right?") from error
        if not reply.choices:
            raise NoReply(f"{self.url}, model {self.model!r}: a reply without a message; is it a model that chats?")
        return reply

    def ask(self, system: str, user: str) -> Reply:
        """Raises EndpointError where no reply comes."""
        reply = self.complete([{"role": "system", "content": system}, {"role": "user", "content": user}])
        text, usage = reply.choices[0].message.content or "", reply.usage
        return Reply(text, usage.prompt_tokens, usage.completion_tokens) if usage else Reply(text)


@cache
def _client(url: str, key: str, timeout_s: float) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=2)
