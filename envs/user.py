"""Users of conversations, played by a language model behind an endpoint that environment variables name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from envs.endpoint import Endpoint, EndpointError

URL, MODEL, KEY = "TILTYARD_USER_URL", "TILTYARD_USER_MODEL", "TILTYARD_USER_KEY"
REMEDY = (
    f"users are played by a language model: set {URL} to the base URL of an OpenAI-compatible endpoint, such as "
    f"http://127.0.0.1:8000/v1, {MODEL} to its model, and {KEY} where it wants a key; on a cluster, on every node"
)


def named() -> Endpoint | None:
    """The model that the environment variables name, if any, at temperature 0. ValueError where half of it is."""
    url, model = os.environ.get(URL, ""), os.environ.get(MODEL, "")
    if bool(url) != bool(model):
        raise ValueError(f"{MODEL if url else URL} is not set: {REMEDY}")
    key = os.environ.get(KEY) or os.environ.get("OPENAI_API_KEY", "")
    return Endpoint(url, model, key, temperature=0.0) if url else None


def needed() -> Endpoint:
    """The same; ValueError where there is none."""
    if (model := named()) is None:
        raise ValueError(REMEDY)
    return model


def say(model: Endpoint, messages: Sequence[Mapping[str, str]]) -> str:
    """What the user says aloud. Raises EndpointError where nothing is."""
    try:
        reply = model.complete(messages)
    except EndpointError as error:
        raise EndpointError(f"the user's model ({URL}, {MODEL}, {KEY}): {error}") from error
    if not (said := words(reply.choices[0].message.content or "")):
        raise EndpointError(f"the user's model ({URL}, {MODEL}): {model.url}, model {model.model!r}: a reply without words")
    return said


def words(text: str) -> str:
    """What of a message is said aloud: no thoughts, and the answer alone where one is marked."""
    aloud = text.rpartition("</think>")[2].partition("<think>")[0].strip()
    return aloud.removeprefix("<answer>").removesuffix("</answer>").strip()
