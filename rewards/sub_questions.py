"""Which sub-questions the calls of an episode answered (FTRL, 2508.08791).

A sub-question of a tool is answered by the first call of it whose result holds the answer, and a call answers at most one: one
made before does not count again, nor does one that says the answer itself (the lenient rule, as published, forgives that).
Where a task has no sub-questions written down, its reference calls are those, and their results the answers; made again such a
call counts for the same call of the reference alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from envs.answers import holds, says
from envs.truth import Reference, canonical
from envs.types import CallOutcome, ToolCall


@dataclass(frozen=True, slots=True)
class SubQuestion:
    """Of a tool: the answer in words; or a reference call, and where it is recorded the result that is to be equal."""

    tool: str
    answer: str = ""
    call: str = ""
    result: str = ""

    def is_answered(self, outcome: CallOutcome, *, lenient: bool, key: str, is_new: bool) -> bool:
        if outcome.call.name != self.tool:
            return False
        if self.call:
            is_same = key == self.call
            is_right = canonical(outcome.result) == self.result and (is_new or is_same) if self.result else is_same
            return is_right and not outcome.error
        if lenient:
            return is_new and holds(self.answer, outcome.result, lenient=True)
        says_it = says(self.answer, outcome.call.arguments)
        return is_new and not outcome.error and not says_it and holds(self.answer, outcome.result)


class SubQuestions:
    """Those of an episode, `left` of `total` not answered so far."""

    def __init__(self, turns: Sequence[Reference], *, lenient: bool = False) -> None:
        self._open, self._lenient = list(_of(turns)), lenient
        self._made: set[str] = set()
        self.total = len(self._open)

    @property
    def left(self) -> int:
        return len(self._open)

    def answer(self, outcomes: Iterable[CallOutcome]) -> int:
        """How many of those left these calls answer, in their order."""
        before = self.left
        for outcome in outcomes:
            key = _key(outcome.call)
            for at, sub in enumerate(self._open):
                if sub.is_answered(outcome, lenient=self._lenient, key=key, is_new=key not in self._made):
                    del self._open[at]
                    break
            self._made.add(key)
        return before - self.left


def _of(turns: Sequence[Reference]) -> Iterator[SubQuestion]:
    for reference in turns:
        if reference.answers:
            yield from (SubQuestion(one.tool, one.answer) for one in reference.answers)
        else:
            results = chain(map(canonical, reference.results), repeat(""))
            for call, result in zip(reference.calls, results, strict=False):
                yield SubQuestion(call.name, call=_key(call), result=result)


def _key(call: ToolCall) -> str:
    return canonical([call.name, dict(call.arguments)])
