"""Which sub-questions the calls of an episode answered (FTRL, 2508.08791).

A sub-question of a tool is answered by the first call of it whose result holds the answer, and a call answers at most one: one
made before does not count again, nor does one that says the answer itself (the lenient rule, as published, forgives that).
Where a task has no sub-questions written down, its reference calls are those, and their results the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from envs.answers import holds
from envs.truth import Reference, canonical
from envs.types import CallOutcome


@dataclass(frozen=True, slots=True)
class SubQuestion:
    """Of a tool: the answer in words, or a result that is to be equal."""

    tool: str
    answer: str = ""
    result: str = ""

    def is_answered(self, outcome: CallOutcome, *, lenient: bool, is_new: bool) -> bool:
        if outcome.call.name != self.tool:
            return False
        if self.result:
            return not outcome.error and canonical(outcome.result) == self.result
        if lenient:
            return is_new and holds(self.answer, outcome.result, lenient=True)
        says_it = holds(self.answer, dict(outcome.call.arguments))
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
            key = canonical([outcome.call.name, dict(outcome.call.arguments)])
            for at, sub in enumerate(self._open):
                if sub.is_answered(outcome, lenient=self._lenient, is_new=key not in self._made):
                    del self._open[at]
                    break
            self._made.add(key)
        return before - self.left


def _of(turns: Sequence[Reference]) -> Iterator[SubQuestion]:
    for reference in turns:
        if reference.answers:
            yield from (SubQuestion(one.tool, one.answer) for one in reference.answers)
        else:
            for call, result in zip(reference.calls, reference.results, strict=False):
                yield SubQuestion(call.name, result=canonical(result))
