"""What the policy calls in one world of the package's, run by the package itself."""

from __future__ import annotations

from tau2.data_model.message import ToolCall as PackageCall
from tau2.environment.environment import Environment as PackageWorld

from envs.types import CallOutcome, ToolCall

MAX_EXPRESSION = 200  # characters


class Calls:
    """`made` are the calls in order, as the package wants them."""

    def __init__(self, world: PackageWorld) -> None:
        self._world = world
        self.made: list[PackageCall] = []

    def run(self, call: ToolCall) -> CallOutcome:
        asked = PackageCall(id=str(len(self.made)), name=call.name, arguments=dict(call.arguments), requestor="assistant")
        self.made.append(asked)
        if _is_endless(call):
            return CallOutcome(call, "Error: this cannot be calculated", "this cannot be calculated")
        reply = self._world.get_response(asked)
        content = reply.content or ""
        return CallOutcome(call, content, content.removeprefix("Error: ") if reply.error else "")


def _is_endless(call: ToolCall) -> bool:
    """The package's calculator evaluates 9**9**9 too, in which the whole process would hang."""
    expression = str(call.arguments.get("expression", ""))
    return call.name == "calculate" and ("**" in expression or len(expression) > MAX_EXPRESSION)
