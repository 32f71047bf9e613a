"""The user of a conversation, played by a language model that was told what to want."""

from __future__ import annotations

import os

from envs.author import Author, AuthorError, Endpoint

URL, MODEL, KEY = "TILTYARD_USER_URL", "TILTYARD_USER_MODEL", "TILTYARD_USER_KEY"
DONE = "finish conversation"
MAX_REPLIES = 20
SYSTEM = f"""You play a user who talks to an assistant, and never the assistant. What you want, and all that you know:
{{instruction}}

Say one line at a time, in your own words, with what the assistant needs for the next thing to do, and no more. Where you want a
round trip or several things that belong together, say so at once. You cannot know what is not written above: where you are
asked for it, say that you do not know. Where you are asked to confirm or to choose, keep to what is written above. Offer no help.
As long as something that you want has not been done, ask for it. When all of it is done, write only: {DONE}"""


def endpoint() -> Endpoint | None:
    """The model that plays users, where one is named. Raises ValueError where half of it is."""
    url, model = os.environ.get(URL, ""), os.environ.get(MODEL, "")
    if bool(url) != bool(model):
        raise ValueError(f"{MODEL if url else URL} is not set: a user is played where {URL} and {MODEL} both are")
    return Endpoint(url, model, os.environ.get(KEY, ""), temperature=0.0, max_tokens=1024) if url else None


class User:
    def __init__(self, author: Author, instruction: str) -> None:
        self._author, self._system, self._said = author, SYSTEM.format(instruction=instruction), list[str]()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to say."""
        return len(self._said) >= 2 * MAX_REPLIES or (bool(self._said) and DONE in self._said[-1].lower())

    def reply(self, heard: str) -> str:
        """Raises AuthorError where the model says nothing."""
        self._said.append(f"Assistant: {heard}")
        told = "\n".join(self._said)
        text = self._author.ask(self._system, f"{told}\n\nWhat do you say next?").text
        said = text.rpartition("</think>")[2].strip().removeprefix("User:").strip()
        if not said:
            raise AuthorError(f"the model that plays the user ({MODEL}) said nothing")
        self._said.append(f"User: {said}")
        return said
