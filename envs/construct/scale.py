"""Stage 4: tools as intricate as real ones: more general, with more parameters, richer types, and distractors beside them."""

from __future__ import annotations

from typing import cast

from envs.construct.records import Toolset, name_of
from envs.construct.stage import Ask, Refused, read_toolset, shown
from envs.types import Json

SYSTEM = """You make tools as intricate as real ones.
 - Generalise what a tool does, add optional parameters with defaults, and give parameters richer types (enumerations, lists,
   units). Every parameter that there was stays, and what was optional stays optional.
 - Add one to three tools that look useful beside these and answer none of the sub-questions.
 - No document may tell a value of the question or of an answer. The calls must still answer the same sub-questions.
Reply with one JSON object: {"tools": [documents], "calls": {sub-question's id: {"name": tool, "arguments": object}}}"""


def scale(toolset: Toolset, ask: Ask) -> Toolset:
    """Every tool with the parameters that it had, each call of the same tool; the question's own as they are. Raises Refused."""
    if toolset.scenario.question.tools:
        return toolset
    scaled = read_toolset(toolset.scenario, ask(SYSTEM, {"stage": "scale", **shown(toolset)}))
    now = {name_of(tool): cast(dict[str, Json], tool["parameters"]) for tool in scaled.tools}
    for tool in toolset.tools:
        name, before = name_of(tool), cast(dict[str, Json], tool["parameters"])
        if name not in now:
            raise Refused(f"the tool {name!r} is gone; keep every tool")
        had, has = (set(cast(dict[str, Json], parameters.get("properties", {}))) for parameters in (before, now[name]))
        if lost := sorted(had - has):
            raise Refused(f"the tool {name!r} has lost its parameter {lost[0]!r}")
        if stricter := sorted(_required(now[name]) - _required(before)):
            raise Refused(f"the tool {name!r} now requires {stricter[0]!r}; what is new has to be optional")
    for id, call in toolset.calls.items():
        if scaled.calls[id].name != call.name:
            raise Refused(f"sub-question {id} was answered by {call.name!r} and has to be still")
    return scaled


def _required(parameters: dict[str, Json]) -> set[str]:
    return set(cast(list[str], parameters.get("required", [])))
