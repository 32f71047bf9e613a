"""The solve rewards on call lists written by hand, with their figures on paper; FTRL's own tasks where they are at hand."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.answers import tells
from envs.constructed import Constructed
from envs.constructed.tasks import task
from envs.environment import environment
from envs.truth import Reference, SubAnswer
from envs.types import Author, CallOutcome, Json, Message, Observation, Signals, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from rewards.reward import Score
from rewards.solve import counts, solve, solve_f1, solve_lenient, solve_p, solve_precision, solve_r, solve_recall, solve_square
from rewards.user_turns import verdict

FILE = Path(os.environ.get("TILTYARD_DATA", "")) / "ftrl_100.jsonl"
CASES = json.loads((Path(__file__).parent / "ftrl_calls.json").read_text())
needs_ftrl = pytest.mark.skipif(not FILE.is_file(), reason="TILTYARD_DATA has no ftrl_100.jsonl")

SUBS = (SubAnswer("age", "41"), SubAnswer("age", "52"), SubAnswer("town", "Kestrin"))
TASK = Task("t", "constructed", "single_hop", (), (), {}, (Reference((), (), {}, answers=SUBS, answer="Kestrin").as_json(),))


def outcome(name: str, result: Json, error: str = "", **arguments: Json) -> CallOutcome:
    return CallOutcome(ToolCall(name, arguments), result, error)


def turn(*outcomes: CallOutcome, say: str = "", malformed: str = "", author: Author = Author.POLICY) -> Turn:
    message = Message("assistant", say, tuple(one.call for one in outcomes), malformed)
    state = None if outcomes or malformed else {}
    observation = Observation((), False, Signals(outcomes, malformed, state))
    return Turn((), (), (), (), message, observation, author)


def played(*turns: Turn) -> Trajectory:
    return Trajectory("t/0", "t", turns, Stop.DONE)


FIRST, SECOND, TOWN = (
    outcome("age", {"age": 41}, who="A"),
    outcome("age", {"age": 52}, who="B"),
    outcome("town", "Kestrin", who="A"),
)
WRONG = outcome("age", None, "no such person", who="C")
SAID = turn(say="It is Kestrin.")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((turn(FIRST), turn(SECOND), turn(TOWN), SAID), (1 + 1 + 1 + 1) / 4),
        ((turn(FIRST, SECOND, TOWN), SAID), (2 * 3 / 4 + 1) / 2),
        ((turn(FIRST, WRONG), SAID), (2 / 3 + 1 / 3) / 2),
        ((turn(say=""),), -0.5),
        ((turn(malformed="not JSON"),), -0.3),
        ((turn(say="I do not know."),), 0.0),
        ((turn(say="Kestrin"),), 1 / 4),
        ((turn(FIRST, SECOND, TOWN), turn(say="Done.")), (1.5 + 0.5) / 2),
        ((), 0.0),
    ],
)
def test_solve_is_the_mean_of_what_each_message_is_worth(turns: tuple[Turn, ...], expected: float) -> None:
    assert solve(TASK, played(*turns)).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (solve, 4 / 4),
        (solve_recall, 2.0),
        (solve_precision, 2 / 3),
        (solve_square, 4 / 3),
        (solve_p, 2 / 3),
        (solve_r, 2 / 3),
        (solve_f1, 4 / 6),
    ],
)
def test_variants_and_metrics_on_one_message(part: object, expected: float) -> None:
    score = part(TASK, played(turn(FIRST, TOWN, WRONG)))  # type: ignore[operator]
    assert isinstance(score, Score) and score.value == pytest.approx(expected)


def test_a_call_made_again_or_of_another_tool_or_with_the_answer_in_it_solves_nothing() -> None:
    other = outcome("age", {"age": 41}, who="another")
    assert counts(TASK, played(turn(FIRST, FIRST))).solved == 1
    assert counts(TASK, played(turn(FIRST, other))).solved == 1, "that answer is no longer asked for"
    assert counts(TASK, played(turn(outcome("town", {"age": 41}, who="A")))).solved == 0
    echo = outcome("town", "nothing is known of Kestrin", who="Kestrin")
    assert counts(TASK, played(turn(echo))).solved == 0
    assert solve_lenient(TASK, played(turn(echo))).value == 1.0, "as published"


def test_a_dump_solves_nothing_but_leniently() -> None:
    dump = outcome("town", {str(n): f"name {n}" for n in range(100)} | {"x": "Kestrin"}, all=True)
    text = outcome("town", "x " * 500 + "Kestrin", all=True)
    for one in (dump, text):
        assert solve(TASK, played(turn(one))).value == 0.0
        assert solve_lenient(TASK, played(turn(one))).value == 1.0


def test_one_call_solves_one_sub_question() -> None:
    assert counts(TASK, played(turn(outcome("age", {"a": 41, "b": 52}, who="all")))).solved == 1


def test_the_policy_is_paid_for_its_own_messages_alone() -> None:
    begun = (turn(FIRST, author=Author.EXPERT), turn(SECOND, author=Author.EXPERT))
    assert solve(TASK, played(*begun, turn(TOWN))).value == 1.0
    assert solve(TASK, played(*begun, SAID)).value == 1 / 2
    assert solve_f1(TASK, played(*begun, turn(TOWN))).value == 1.0, "the metric is the whole episode's"


def test_the_verdict_is_that_all_are_answered() -> None:
    assert verdict(TASK, played(turn(FIRST, SECOND, TOWN), SAID)) == ""
    assert verdict(TASK, played(turn(FIRST), SAID)) == "user turn 1: 2 of 3 sub-questions not answered"
    assert verdict(TASK, played(turn(FIRST, SECOND, TOWN))) == "user turn 1: not finished"


def test_reference_calls_stand_in_where_there_are_no_sub_questions() -> None:
    shop = environment("shop")
    one = shop.taskset("train", "3")[0]
    env, turns = shop.make(), []
    env.reset(one)
    for message in shop.oracle(one):
        turns.append(Turn((), (), (), (), message, env.step(message)))
    assert solve_f1(one, played(*turns)).value == 1.0
    assert 0 < solve_r(one, played(*turns[:1])).value < 1


@given(st.lists(st.lists(st.sampled_from([FIRST, SECOND, TOWN, WRONG]), max_size=5), max_size=6))
def test_bounds(messages: Sequence[Sequence[CallOutcome]]) -> None:
    trajectory = played(*(turn(*outcomes) for outcomes in messages))
    found = counts(TASK, trajectory)
    assert found.solved <= min(found.calls, 3) and found.total == 3
    assert solve_f1(TASK, trajectory).value <= min(1.0, 2 * solve_r(TASK, trajectory).value)
    assert -0.5 <= solve(TASK, trajectory).value < 2
    assert solve_lenient(TASK, trajectory).value >= solve(TASK, trajectory).value


@pytest.fixture(scope="module")
def ftrl() -> list[dict[str, Json]]:
    return [json.loads(text) for text in FILE.read_text(encoding="utf-8").splitlines()]


def message_of(told: Json) -> Message:
    if isinstance(told, list):
        return Message("assistant", "", tuple(ToolCall(call["name"], call["arguments"]) for call in told))  # type: ignore[index,call-overload]
    assert isinstance(told, dict)
    return Message("assistant", str(told.get("say", "")), (), str(told.get("malformed", "")))


@needs_ftrl
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"line {case['line']}")
def test_ftrls_own_tasks_are_worth_what_they_are_on_paper(case: dict[str, Json], ftrl: list[dict[str, Json]]) -> None:
    one = task({"id": case["line"], **ftrl[int(str(case["line"]))]}, "constructed:x")
    rubric = rubrics(RewardsConfig())["progress"]
    for told in case["cases"]:  # type: ignore[union-attr]
        assert isinstance(told, dict)
        env, turns = Constructed(), []
        env.reset(one)
        for message in map(message_of, told["messages"]):  # type: ignore[arg-type]
            turns.append(Turn((), (), (), (), message, env.step(message)))
        scored = rubric(one, played(*turns))
        for part in ("solve_p", "solve_r", "solve_f1", "solve"):
            assert scored.parts[part] == pytest.approx(told[part], abs=1e-6), (told["name"], part)
        assert scored.success == (told["solve_r"] == 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"names": ["Kestrin", *("x" * n for n in range(1, 40))]},
        {"town": "Kestrin", "why": "because " * 100},
        {"first": "nobody", "second": {"name": "Kestrin"}},
    ],
)
def test_an_answer_that_is_guessed_in_the_call_solves_nothing_however_it_is_padded(arguments: dict[str, Json]) -> None:
    echo = outcome("town", {"Kestrin": {"error": "no person is called Kestrin"}}, **arguments)
    assert counts(TASK, played(turn(echo))).solved == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("<think>It may be Kestrin, or another town. " + "Let me see. " * 60 + "</think> It is Kestrin.", 1.0),
        ("<think>Kestrin or Marlow or Vemarton</think> It is Marlow.", 0.5),
        ("<think>hm</think>", -0.5),
        ("<think>hm</think><answer>Kestrin</answer>", 1.0),
    ],
)
def test_what_is_thought_is_not_said(said: str, expected: float) -> None:
    assert solve(TASK, played(turn(FIRST, SECOND, TOWN), turn(say=said))).value == pytest.approx((1.5 + expected) / 2)


def test_a_call_made_again_counts_for_the_same_call_of_the_reference_alone() -> None:
    calls = [ToolCall("open", {"door": door}) for door in (1, 1, 2)]
    same, other = [CallOutcome(call, "done") for call in (calls[0], calls[2])]

    def task_of(*made: ToolCall) -> Task:
        return Task("t", "x", "1", (), (), {}, (Reference(made, ("done",) * len(made), {}).as_json(),))

    assert counts(task_of(calls[0], calls[2]), played(turn(same, same))).solved == 1
    assert counts(task_of(calls[0], calls[2]), played(turn(same, other))).solved == 2
    assert counts(task_of(*calls[:2]), played(turn(same, same))).solved == 2


def test_where_results_are_not_recorded_the_call_itself_is_asked_for() -> None:
    """τ²-bench's: giving up at once must not pay more than solving."""
    call = ToolCall("open", {"door": 1})
    bare = Task("t", "x", "1", (), (), {}, (Reference((call,), (), {}).as_json(),))
    right, wrong = CallOutcome(call, "opened"), CallOutcome(ToolCall("open", {"door": 2}), "opened")
    assert counts(bare, played(turn(right))).solved == 1 and counts(bare, played(turn(wrong))).solved == 0
    assert solve(bare, played(turn(say="Done."))).value == 0.0 < solve(bare, played(turn(right), turn(say="Done."))).value
    nothing = Task("t", "x", "1", (), (), {}, (Reference((), (), {}).as_json(),))
    assert solve(nothing, played(turn(say="Done."))).value == 0.0


@pytest.mark.parametrize(
    ("piece", "text", "expected"),
    [
        ("5", "-5", False),
        ("-5", "-5", True),
        ("5", "3 - 5", True),
        ("5", "3 5", True),
        ("15", "2010-03-15", True),
        ("5", "x -5.0", False),
    ],
)
def test_a_number_has_its_sign(piece: str, text: str, expected: bool) -> None:
    assert tells(piece, text) is expected
