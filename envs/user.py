"""Users of conversations, played by a language model behind an OpenAI-compatible endpoint that environment variables name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import openai

from envs.author import AuthorError

URL, MODEL, KEY = "TILTYARD_USER_URL", "TILTYARD_USER_MODEL", "TILTYARD_USER_KEY"
TIMEOUT_S, MAX_TOKENS = 120.0, 2048
REMEDY = (
    f"users are played by a language model: set {URL} to the base URL of an OpenAI-compatible endpoint, such as "
    f"http://127.0.0.1:8000/v1, {MODEL} to its model, and {KEY} where it wants a key; on a cluster, on every node"
)


@dataclass(frozen=True, slots=True)
class UserModel:
    """`url` is the base; without a key one is sent that servers of one's own accept."""

    url: str
    model: str
    key: str = ""

    def ask(self, messages: list[Mapping[str, str]]) -> str:
        """What is said aloud, at temperature 0. Raises AuthorError where nothing is."""
        create: Any = _client(self.url, self.key or "none").chat.completions.create
        try:
            reply = create(model=self.model, messages=messages, temperature=0.0, max_tokens=MAX_TOKENS)
        except openai.OpenAIError as error:
            raise AuthorError(self._failed(f"{error}; is the server up, and the key ({KEY}) right?")) from error
        said = words((reply.choices[0].message.content if reply.choices else None) or "")
        if not said:
            raise AuthorError(self._failed("a reply without words; is it a model that chats?"))
        return said

    def _failed(self, why: str) -> str:
        return f"the user at {self.url} ({URL}), model {self.model!r} ({MODEL}): {why}"


def named() -> UserModel | None:
    """The model that the environment variables name, if any. ValueError where half of it is."""
    url, model = os.environ.get(URL, ""), os.environ.get(MODEL, "")
    if bool(url) != bool(model):
        raise ValueError(f"{MODEL if url else URL} is not set: {REMEDY}")
    return UserModel(url, model, os.environ.get(KEY) or os.environ.get("OPENAI_API_KEY", "")) if url else None


def needed() -> UserModel:
    """The same; ValueError where there is none."""
    if (model := named()) is None:
        raise ValueError(REMEDY)
    return model


def words(text: str) -> str:
    """What of a message is said aloud: no thoughts, and the answer alone where one is marked."""
    aloud = text.rpartition("</think>")[2].partition("<think>")[0].strip()
    return aloud.removeprefix("<answer>").removesuffix("</answer>").strip()


@cache
def _client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, timeout=TIMEOUT_S, max_retries=2)
