"""The user of a conversation, played by a language model that was told what to want."""

from __future__ import annotations

from envs.endpoint import Endpoint
from envs.user import say

DONE = "finish conversation"
MAX_REPLIES = 20
SYSTEM = f"""You play a user who talks to an assistant, and never the assistant. What you want, and all that you know:
{{instruction}}

Say one line at a time, in your own words, with what the assistant needs for the next thing to do, and no more. Where you want a
round trip or several things that belong together, say so at once. You cannot know what is not written above: where you are
asked for it, say that you do not know. Where you are asked to confirm or to choose, keep to what is written above. Offer no help.
As long as something that you want has not been done, ask for it. When all of it is done, write only: {DONE}"""


class User:
    def __init__(self, model: Endpoint, instruction: str) -> None:
        self._model, self._system, self._said = model, SYSTEM.format(instruction=instruction), list[str]()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to say."""
        return len(self._said) >= 2 * MAX_REPLIES or (bool(self._said) and DONE in self._said[-1].lower())

    def reply(self, heard: str) -> str:
        """Raises EndpointError where the model says nothing."""
        self._said.append(f"Assistant: {heard}")
        told = "\n".join(self._said)
        asked = [{"role": "system", "content": self._system}, {"role": "user", "content": f"{told}\n\nWhat do you say next?"}]
        said = say(self._model, asked).removeprefix("User:").strip()
        self._said.append(f"User: {said}")
        return said
