"""Precision and completeness of tool use (FTRL, 2508.08791), the published variants of it, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envs.answers import holds
from envs.truth import references
from envs.types import Author, Message, Task, Trajectory
from envs.user import words
from rewards.reward import Score
from rewards.sub_questions import SubQuestions

EMPTY, MALFORMED, UNSAID = -0.5, -0.3, 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a whole episode: sub-questions answered, calls made, sub-questions."""

    solved: int
    calls: int
    total: int


def solve(task: Task, trajectory: Trajectory) -> Score:
    """The mean over the policy's messages of 2 q / (p + 1) for p calls of which q answer a sub-question each.

    With t of them left, without calls: -0.5 for an empty message, -0.3 for one that cannot be read, 1 / (t + 1) for the final
    answer, 0.5 for another where t is 0, else 0. Solved call by call and answered, a task is worth 1, and more where calls
    share a message.
    """
    return _mean(task, trajectory, lambda q, p: 2 * q / (p + 1))


def solve_lenient(task: Task, trajectory: Trajectory) -> Score:
    """`solve` by the published match rule: a substring of the result's text is enough, however long that is."""
    return _mean(task, trajectory, lambda q, p: 2 * q / (p + 1), lenient=True)


def solve_recall(task: Task, trajectory: Trajectory) -> Score:
    """`solve` with q in place of 2 q / (p + 1)."""
    return _mean(task, trajectory, lambda q, p: float(q))


def solve_precision(task: Task, trajectory: Trajectory) -> Score:
    """`solve` with q / p."""
    return _mean(task, trajectory, lambda q, p: q / p)


def solve_square(task: Task, trajectory: Trajectory) -> Score:
    """`solve` with q^2 / p."""
    return _mean(task, trajectory, lambda q, p: q * q / p)


def solve_p(task: Task, trajectory: Trajectory) -> Score:
    """Solve-P: sub-questions answered / calls, and 1 without any call."""
    found = counts(task, trajectory)
    return Score(found.solved / found.calls if found.calls else 1.0)


def solve_r(task: Task, trajectory: Trajectory) -> Score:
    """Solve-R: sub-questions answered / all of them."""
    found = counts(task, trajectory)
    return Score(found.solved / max(found.total, 1))


def solve_f1(task: Task, trajectory: Trajectory) -> Score:
    """Solve-F1: 2 x answered / (calls + sub-questions)."""
    found = counts(task, trajectory)
    return Score(2 * found.solved / max(found.calls + found.total, 1))


def counts(task: Task, trajectory: Trajectory) -> Counts:
    """An expert's messages count as the policy's."""
    subs = SubQuestions(references(task))
    outcomes = [outcome for turn in trajectory.turns for outcome in turn.observation.signals.outcomes]
    return Counts(subs.answer(outcomes), len(outcomes), subs.total)


def _mean(task: Task, trajectory: Trajectory, pay: Callable[[int, int], float], *, lenient: bool = False) -> Score:
    turns = references(task)
    subs, paid = SubQuestions(turns, lenient=lenient), list[float]()
    answer = next((reference.answer for reference in turns if reference.answer), "")
    for turn in trajectory.turns:
        outcomes = turn.observation.signals.outcomes
        solved = subs.answer(outcomes)
        if turn.author is Author.POLICY:
            without = _without_calls(turn.message, answer, subs, lenient=lenient)
            paid.append(pay(solved, len(outcomes)) if outcomes else without)
    return Score(sum(paid) / max(len(paid), 1))


def _without_calls(message: Message, answer: str, subs: SubQuestions, *, lenient: bool) -> float:
    """What is thought is not said."""
    if message.malformed:
        return MALFORMED
    said = words(message.content)
    if not said:
        return EMPTY
    if answer and holds(answer, said, lenient=lenient):
        return 1 / (subs.left + 1)
    return 0.0 if subs.left or not subs.total else UNSAID
