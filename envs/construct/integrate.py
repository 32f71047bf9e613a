"""Stage 3: documents that do the same thing, or answer about the same things, become one: n become m."""

from __future__ import annotations

from envs.construct.records import Toolset
from envs.construct.stage import Ask, Refused, read_toolset, shown

SYSTEM = """You tidy a set of tools. Merge those whose functions overlap (the same question about other things; other questions
about the same things) into one more general tool, and leave the others as they are. Rewrite the calls to fit; they must still
answer the same sub-questions. No document may tell a value of the question or of an answer. Where nothing overlaps, all stays.
Reply with one JSON object: {"tools": [documents], "calls": {sub-question's id: {"name": tool, "arguments": object}}}"""


def integrate(toolset: Toolset, ask: Ask) -> Toolset:
    """At most as many tools, every one of them with a call; the question's own as they are. Raises Refused."""
    if toolset.scenario.question.tools:
        return toolset
    merged = read_toolset(toolset.scenario, ask(SYSTEM, {"stage": "integrate", **shown(toolset)}))
    if len(merged.tools) > len(toolset.tools):
        raise Refused(f"there were {len(toolset.tools)} tools, now there are {len(merged.tools)}: merge, do not add")
    called = {call.name for call in merged.calls.values()}
    if idle := [str(tool["name"]) for tool in merged.tools if tool["name"] not in called]:
        raise Refused(f"no sub-question needs the tool {idle[0]!r} any more; leave it out")
    return merged
