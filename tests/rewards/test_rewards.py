import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from envs.augmentation import Augmented, load_rules
from envs.environment import Environment
from envs.shop import LEVELS, RULES, Shop, oracle, taskset
from envs.shop.tasks import call_message
from envs.shop.world import NAMES
from envs.truth import references
from envs.types import Author, CallOutcome, Json, Message, Observation, Signals, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import PARTS, RewardsConfig, rubrics
from rewards.reward import Rubric
from rewards.user_turns import failures, verdict

RUBRICS = rubrics(RewardsConfig())
BAD = Message("assistant", "<tool_call>", malformed="bad JSON")
ANSWER = Message("assistant", "ok")
LOOK, SEE = ToolCall("look", {"at": "a"}), ToolCall("see", {"id": 1})
TOY = Task(
    "toy/0", "toy", "1", (), (), {},
    (
        {"calls": [{"name": "look", "arguments": {"at": "a"}}, {"name": "see", "arguments": {"id": 1}}],
         "results": ["A", "B"], "state": {"n": 0}},
        {"calls": [{"name": "put", "arguments": {}}], "results": ["C"], "state": {"n": 1}},
    ),
)  # fmt: skip


def play(env: Environment, task: Task, messages: Iterable[Message]) -> Trajectory:
    env.reset(task)
    turns: list[Turn] = []
    for message in messages:
        observation = env.step(message)
        turns.append(Turn((), (), (), (), message, observation))
        if observation.done:
            return Trajectory("t", task.id, tuple(turns), Stop.DONE)
    return Trajectory("t", task.id, tuple(turns), Stop.MAX_TURNS)


def scored(task: Task, messages: Iterable[Message]) -> Trajectory:
    return RUBRICS["progress"](task, play(Shop(), task, messages))


def ran(*outcomes: CallOutcome, state: Json = None, malformed: str = "") -> Turn:
    return Turn((), (), (), (), ANSWER, Observation((), False, Signals(outcomes, malformed, state)))


def toy(*turns: Turn, stop: Stop = Stop.DONE) -> Trajectory:
    return RUBRICS["progress"](TOY, Trajectory("t", TOY.id, turns, stop))


def good(call: ToolCall, result: Json) -> CallOutcome:
    return CallOutcome(call, result)


def wrong(name: str) -> CallOutcome:
    return CallOutcome(ToolCall(name, {"at": "z"}), None, "bad")


PUT = good(ToolCall("put", {}), "C")
FIRST = (ran(good(LOOK, "A")), ran(good(SEE, "B")), ran(state={"n": 0}))
SECOND = (ran(PUT), ran(state={"n": 1}))


def test_the_reference_calls_earn_everything():
    trajectory = toy(*FIRST, *SECOND)
    assert trajectory.success and trajectory.reward == 1.0 and trajectory.turn_rewards == (1.0, 1.0)
    assert trajectory.parts == {
        "format": 2.0, "well_formed": 1.0, "progress": 1.0, "success": 1.0, "matching": 3.0, "calls": 1.0,
        "points": 0.0, "errors": 0, "given_up": 0, "idle": 0, "malformed": 0, "extra": 0,
        "solve_p": 1.0, "solve_r": 1.0, "solve_f1": 1.0,
        # Three calls of one each, an answer too early, one at the end.
        **dict.fromkeys(("solve", "solve_lenient", "solve_recall", "solve_precision", "solve_square"), (3 + 0 + 0.5) / 5),
    }  # fmt: skip


def test_a_user_turn_counts_by_its_state_at_its_end():
    parts = toy(*FIRST, ran(PUT), ran(state={"n": 7})).parts
    assert parts["progress"] == 0.5 and parts["calls"] == 1.0


def test_a_missing_result_is_no_progress_though_the_state_is_right():
    trajectory = toy(ran(good(LOOK, "A")), ran(state={"n": 0}), *SECOND)
    assert trajectory.parts["progress"] == 0.5 and not trajectory.success
    assert trajectory.parts["calls"] == pytest.approx(2 / 3)
    assert trajectory.turn_rewards == (0.0, 1.0)


def test_results_are_contained_in_any_order_with_more_around_them():
    other = good(ToolCall("look", {"at": "b"}), "D")
    assert toy(ran(good(SEE, "B"), other, good(LOOK, "A")), ran(state={"n": 0}), *SECOND).success


def test_results_are_counted_and_not_only_named():
    twice = replace(TOY, truth=({**TOY.truth[0], "results": ["A", "A"]},))
    once = Trajectory("t", "toy", (ran(good(LOOK, "A"), state={"n": 0}),), Stop.DONE)
    assert RUBRICS["progress"](twice, once).parts["progress"] == 0.0


def test_true_is_not_one():
    assert toy(ran(good(LOOK, "A"), good(SEE, "B")), ran(state={"n": False})).parts["progress"] == 0.0


def test_a_user_turn_that_never_ended_is_unsolved():
    trajectory = toy(ran(good(LOOK, "A"), good(SEE, "B")), stop=Stop.MAX_TURNS)
    assert trajectory.parts["progress"] == 0.0 and trajectory.parts["calls"] == pytest.approx(2 / 3)


def test_the_first_missing_call_counts_half_where_its_tool_was_called_wrongly_and_only_once():
    assert toy(ran(wrong("look"))).parts["calls"] == pytest.approx(0.5 / 3)
    assert toy(ran(wrong("look"), wrong("look"), wrong("see"))).parts["calls"] == pytest.approx(0.5 / 3)
    assert toy(ran(wrong("see"), wrong("look"))).parts["calls"] == 0.0  # as a second thought it counts nothing
    assert toy(ran(good(LOOK, "A"), wrong("see"))).parts["calls"] == pytest.approx(1.5 / 3)


def test_calls_out_of_order_repeated_or_useless_earn_nothing_more():
    assert toy(ran(wrong("see"))).parts["calls"] == 0.0
    assert toy(ran(*[good(LOOK, "A")] * 9)).parts["calls"] == pytest.approx(1 / 3)
    assert toy(*FIRST, ran(wrong("look"), good(SEE, "B"))).parts["calls"] == pytest.approx(2 / 3)


def test_a_solved_user_turn_has_made_its_calls_in_whatever_words():
    other = (ran(good(ToolCall("look", {"at": "a", "far": False}), "A")), ran(good(ToolCall("see", {"id": 1.0}), "B")))
    trajectory = toy(*other, ran(state={"n": 0}), *SECOND)
    assert trajectory.success and trajectory.parts["calls"] == 1.0
    assert toy(*other).parts["calls"] == pytest.approx(0.5 / 3), "not solved, as it has not ended"


def test_a_call_whose_result_is_known_from_an_earlier_user_turn_need_not_be_made_again():
    again = replace(TOY, truth=(TOY.truth[0], {**TOY.truth[0], "results": ["A", "B"]}))
    trajectory = RUBRICS["progress"](again, Trajectory("t", "toy", (*FIRST, ran(state={"n": 0})), Stop.DONE))
    assert trajectory.success and trajectory.parts["calls"] == 1.0 and trajectory.parts["idle"] == 0.0


def test_the_penalties_count():
    bad = (ran(wrong("look")), ran(malformed="x"), ran(*[good(LOOK, "A")] * 4))
    parts = toy(*bad).parts
    assert (parts["errors"], parts["malformed"], parts["extra"], parts["idle"]) == (1, 1, 2, 1)


def test_giving_up_is_paid_for_and_being_cut_off_while_trying_is_not():
    stopped = toy(ran(good(LOOK, "A")), ran(state={"n": 0}), *SECOND)
    cut_off = toy(*FIRST, ran(wrong("put")))
    never_reached = toy(ran(wrong("look")))
    assert [one.parts["given_up"] for one in (stopped, cut_off, never_reached)] == [1, 0, 1]


def test_format_is_zero_without_a_call_and_two_at_best():
    assert toy(ran(malformed="x"), ran(state={"n": 0})).parts["format"] == 0.0
    assert toy(ran(good(LOOK, "A"), wrong("see")), ran(malformed="x")).parts["format"] == pytest.approx(0.5 + 0.5)
    assert toy().parts["format"] == 0.0


def test_format_is_of_the_policys_own_messages():
    replayed = replace(ran(good(LOOK, "A")), author=Author.EXPERT)
    assert toy(replayed, ran(state={"n": 0})).parts["format"] == 0.0  # it only answered
    assert toy(replayed, ran(wrong("see"))).parts["format"] == 1.0 and toy(replayed).parts["format"] == 2.0


def test_a_faulted_trajectory_is_left_as_it_is():
    faulted = Trajectory("t", TOY.id, (*FIRST, *SECOND), Stop.FAULT, fault="engine died")
    assert all(rubric(TOY, faulted) is faulted for rubric in RUBRICS.values())


def test_success_does_not_hang_on_the_rubrics_weights():
    done = Trajectory("t", TOY.id, (*FIRST, *SECOND), Stop.DONE)
    assert RUBRICS["format"](TOY, done).success and RUBRICS["format"](TOY, done).reward == 1.0
    assert Rubric({}, {})(TOY, done).turn_rewards == ()
    assert set(RUBRICS["format"](TOY, done).parts) == set(PARTS)


def test_a_rubric_with_an_unknown_part_or_none_is_refused():
    with pytest.raises(ValueError, match="'fast'.*'speed'.*progress"):
        RewardsConfig({"fast": {"speed": 1.0}})
    with pytest.raises(ValueError, match="'empty'"):
        RewardsConfig({"empty": {}})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("hints", [False, True])
def test_the_oracle_earns_everything_on_every_task_with_and_without_hints(level: str, hints: bool):
    rules = load_rules(RULES)
    for task in [task for split in ("train", "validation", "test") for task in taskset(split, level)]:
        env = Augmented(Shop(), rules, strength=1.0) if hints else Shop()
        trajectory = RUBRICS["progress"](task, play(env, task, oracle(task)))
        assert trajectory.success and trajectory.reward == 1.0 and trajectory.stop is Stop.DONE
        assert RUBRICS["format"](task, trajectory).reward == 1.0


def random_messages(rng: random.Random) -> Iterable[Message]:
    """Random tools with arguments of the right kind; an answer now and then. It does not read the request."""
    while True:
        id: Json = f"i{rng.randint(100, 999)}"
        quantity: Json = rng.randint(1, 9)
        choices: list[tuple[str, dict[str, Json]]] = [
            ("find", {"name": rng.choice(NAMES)}), ("price", {"id": id}), ("stock", {"id": id}),
            ("add", {"id": id, "quantity": quantity}), ("remove", {"id": id, "quantity": quantity}), ("checkout", {}),
        ]  # fmt: skip
        yield ANSWER if rng.random() < 0.3 else Message("assistant", "", (ToolCall(*rng.choice(choices)),))


@pytest.mark.parametrize("level", LEVELS)
def test_a_random_agent_earns_next_to_nothing(level: str):
    rng = random.Random(3)
    trajectories = [scored(task, random_messages(rng)) for task in taskset("train", level)]
    assert sum(t.success for t in trajectories) / len(trajectories) < 0.02
    assert sum(t.parts["calls"] for t in trajectories) / len(trajectories) < 0.15


@pytest.mark.parametrize("level", LEVELS)
def test_every_way_of_doing_nothing_pays_less_than_trying(level: str):
    for task in taskset("validation", level):
        firsts = [call_message(reference.calls[0]) for reference in references(task)]
        clumsies = [call_message(replace(first.calls[0], arguments={"wrong": "x"})) for first in firsts]
        lazy = scored(task, [ANSWER] * 3).reward
        garbage = scored(task, [BAD] * 5).reward
        mumbling = scored(task, [BAD, ANSWER] * 3).reward
        repeater = scored(task, [Message("assistant", "", (ToolCall("find", {"name": NAMES[0]}),))] * 5).reward
        trying = scored(task, [message for clumsy in clumsies for message in (clumsy, ANSWER)]).reward
        honest = scored(task, [message for first in firsts for message in (first, ANSWER)]).reward
        stuck = scored(task, [firsts[0]] * 5).reward
        assert max(garbage, mumbling) < lazy < trying < honest
        assert max(stuck, repeater) < honest


def test_giving_up_after_an_error_pays_less_than_erring_again():
    task = taskset("train", "1")[0]
    hopeless = Message("assistant", "", (ToolCall("fly", {}),))
    assert scored(task, [hopeless, ANSWER]).reward < scored(task, [hopeless, hopeless]).reward


def test_erring_to_the_end_of_a_user_turn_still_pays_more_than_never_having_tried():
    task = taskset("train", "1")[0]
    hopeless = ToolCall("fly", {})
    assert scored(task, [Message("assistant", "", (hopeless,))] * 5).reward > scored(task, [ANSWER]).reward


@pytest.mark.parametrize(
    ("made", "value"),
    [
        ([LOOK, SEE], 3.0),
        ([SEE, LOOK], 3.0),
        ([], -3.0),
        ([ToolCall("jump", {})], -3.0),
        # Names: one in common of two; arguments of one: both equal, 1 + 1 of 4. 6 * (0.5 + 2) / (1 + 2 + 2) - 3.
        ([LOOK], 0.0),
        # The name and the argument's name are right, its value is not: 6 * (1 + 2 + 1) / 5 - 3.
        ([ToolCall("look", {"at": "z"}), SEE], 1.8),
        # One call too many: names 2 of 3.
        ([LOOK, LOOK, SEE], 6 * (2 / 3 + 4) / 5 - 3),
        # The likest of two is the one that is compared.
        ([ToolCall("look", {"to": "z"}), LOOK, SEE], 6 * (2 / 3 + 4) / 5 - 3),
    ],
)
def test_matching_compares_names_and_arguments(made: list[ToolCall], value: float):
    right_second = [ran(good(ToolCall("put", {}), "C")), ran(state={"n": 1})]
    turns = [ran(*(good(call, "any") for call in made)), ran(state={"n": 0}), *right_second]
    assert toy(*turns).parts["matching"] == pytest.approx((value + 3.0) / 2)


def test_the_binary_reward_pays_whole_episodes_alone():
    assert toy(*FIRST, *SECOND).parts["success"] == 1.0 and toy(*FIRST, ran(PUT), ran(state={"n": 7})).parts["success"] == 0.0


def test_an_episode_is_judged_as_bfcls_checker_does():
    task = replace(
        TOY, truth=(TOY.truth[0] | {"needs_call": True}, {"calls": [], "results": [], "state": {"n": 0}, "forbids_calls": True})
    )

    def judged(*turns: Turn) -> tuple[str, tuple[str, ...]]:
        trajectory = Trajectory("t", "toy/0", turns, Stop.DONE)
        return verdict(task, trajectory), failures(task, trajectory)

    ended = ran(state={"n": 0})
    assert judged(*FIRST, ended) == ("", ("", ""))
    assert judged(*FIRST, ran(wrong("put")), ended) == ("", ("", "needless call"))
    assert judged(*FIRST) == ("user turn 2: not finished", ("", "not finished"))
    assert judged(ended, ended) == ("user turn 1: no call", ("no call", ""))
    assert judged(FIRST[0], ended, ended) == ("user turn 1: results not seen", ("results not seen", ""))
    assert judged(*FIRST[:2], ran(state={"n": 5}), ended) == ("user turn 1: other state", ("other state", ""))


def test_points_are_the_environments_own_score_at_the_end_or_so_far():
    one = Task("t", "toy", "1", (), (), {}, ({"calls": [], "results": [], "state": {"score": 1.0}},))
    part = lambda *turns: RUBRICS["points"](one, Trajectory("t", "t", turns, Stop.DONE))  # noqa: E731
    assert part(ran(state={"score": 1.0})).reward == 1.0 and part(ran(state={"score": 1.0})).success
    half = part(ran(good(LOOK, {"text": "a", "score": 0.25})), ran(good(SEE, {"text": "b", "score": 0.5})))
    assert half.reward == 0.5 and not half.success
    # A result without a score does not hide the one before; the state at the end is what counts where there is one.
    assert part(ran(good(LOOK, {"score": 0.25})), ran(wrong("see"))).reward == 0.25
    assert part(ran(good(LOOK, {"score": 0.25})), ran(state={"score": 0.0})).reward == 0.0
    assert part().reward == part(ran(state=True)).reward == part(ran(good(LOOK, "A"))).reward == 0.0
