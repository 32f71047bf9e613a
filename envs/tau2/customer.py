"""The customer, played by a language model that knows the scenario and the package's guidelines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol

from tau2.user.base import OUT_OF_SCOPE, STOP, TRANSFER
from tau2.utils.utils import DATA_DIR

from envs.user import needed, say

ENDS = (STOP, TRANSFER, OUT_OF_SCOPE)
GUIDELINES = DATA_DIR / "tau2" / "user_simulator" / "simulation_guidelines.md"


class User(Protocol):
    def answer(self, told: str) -> str:
        """What the user says to these words of the agent. Raises EndpointError where nothing is said."""
        ...


class Customer:
    """The scenario, the package's guidelines and what was said are all that it knows: no call and no result of one."""

    def __init__(self, scenario: str) -> None:
        self._model = needed()
        system = f"{_guidelines()}\n\n<scenario>\n{scenario}\n</scenario>"
        self._heard: list[Mapping[str, str]] = [{"role": "system", "content": system}]

    def answer(self, told: str) -> str:
        heard = [*self._heard, {"role": "user", "content": told}]
        said = say(self._model, heard)
        self._heard = [*heard, {"role": "assistant", "content": said}]
        return said


@cache
def _guidelines() -> str:
    return GUIDELINES.read_text(encoding="utf-8")
