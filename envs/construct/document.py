"""Stage 2: every sub-question gets the document of a tool that can answer it, and the call that does.

A question that brings documents keeps to them: they get calls here, and code in stage 5, and what would alter them is left out.
"""

from __future__ import annotations

from envs.construct.records import Scenario, Toolset
from envs.construct.stage import Ask, Refused, read_toolset, told
from envs.types import Json

SYSTEM = """You write documents of tools. For each sub-question write one tool that would answer it and others like it, as a
function with a JSON schema, and the call of it that gives the answer.
 - The tool is general: neither its name nor its description nor its parameters may tell a value of the question or of an answer.
 - The call's arguments are values that the question tells, or answers of sub-questions that it needs, as they stand there.
Reply with one JSON object: {"tools": [{"name": text, "description": text, "parameters": JSON schema of an object in which each
property has a type and a description}], "calls": {sub-question's id: {"name": tool, "arguments": object}}}"""

GIVEN = """You write the call of a tool that answers each sub-question, one call each, of the tools that are given. Its
arguments are values that the question tells, or answers of sub-questions that it needs, as they stand there.
Reply with one JSON object: {"calls": {sub-question's id: {"name": tool, "arguments": object}}}"""


def document(scenario: Scenario, ask: Ask) -> Toolset:
    """As many tools as sub-questions, each with a call of its own, or the question's own tools. Raises Refused."""
    given: list[Json] = [dict(tool) for tool in scenario.question.tools]
    if given:
        reply = ask(GIVEN, {"stage": "document", **told(scenario), "tools": given})
        return read_toolset(scenario, {**reply, "tools": given})
    toolset = read_toolset(scenario, ask(SYSTEM, {"stage": "document", **told(scenario)}))
    if len(toolset.tools) != len(scenario.subs) or len({call.name for call in toolset.calls.values()}) != len(scenario.subs):
        raise Refused(f"{len(scenario.subs)} sub-questions need as many tools, each with a call of its own")
    return toolset
