import asyncio
import json
import random
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.config import CurriculumConfig, GateConfig, StageConfig
from curriculum.coordinator import Coordinator, assignment_seed
from curriculum.experts import Expert, Experts, depths
from curriculum.gate import StepFacts
from curriculum.memory import Kind
from envs.types import Assignment, Group, Message, Observation, Stop, Task, ToolCall, Trajectory, Turn

TASKS = {level: [Task(f"{level}-{at}", "shop", level, (), (), {}, ()) for at in range(6)] for level in ("1", "2")}
NEVER = GateConfig(plateau_validations=99)
CONFIG = CurriculumConfig(
    [
        StageConfig("syntax", {"1": 1.0}, reward="format", augmentation=1.0, max_steps=3, gate=NEVER),
        StageConfig("solve", {"1": 1.0, "2": 2.0}, sampler="frontier", group_size=4, gate=GateConfig(min_validation=0.9)),
    ]
)


def coordinator(config: CurriculumConfig = CONFIG, *, seed: int = 7) -> Coordinator:
    return Coordinator(config, env="shop", tasks=TASKS, oracle=oracle, seed=seed)


def oracle(task: Task) -> list[Message]:
    """Level 1: a call and an answer; level 2: two user turns of two calls and an answer."""
    num = {"1": 2, "2": 6}[task.level]
    return [Message("assistant", f"{task.id}, message {at}") for at in range(num)]


def played(assignment: Assignment, solved: int, *, faulted: int = 0, num: int = 4) -> Group:
    task_id = assignment.task.id
    good = [Trajectory(f"{assignment.id}-{at}", task_id, (), Stop.DONE, success=at < solved) for at in range(num)]
    bad = [Trajectory(f"{assignment.id}-f{at}", task_id, (), Stop.FAULT, fault="killed") for at in range(faulted)]
    return Group(assignment, (*good, *bad))


async def run(one: Coordinator, steps: range, order: random.Random | None = None) -> list[Assignment]:
    """Three assignments a step; success depends on the id alone, the order of observing on `order`."""
    handed = []
    for step in steps:
        fresh = [await one.next() for _ in range(3)]
        handed += fresh
        if order:
            order.shuffle(fresh)
        for assignment in fresh:
            await one.observe(played(assignment, assignment.id % 5))
        await one.advance(StepFacts(step, "", 1.0, 0.1))
    return handed


async def test_ids_count_up_and_an_assignment_carries_its_stage():
    one = coordinator()
    first, second = await one.next(), await one.next()
    assert (first.id, second.id) == (0, 1)
    assert (first.stage, first.reward, first.augmentation, first.group_size) == ("syntax", "format", 1.0, 8)
    assert first.reason == "stage 'syntax', level '1' (share 1.00), uniform: task 1 of 6 in pass 1"
    assert first.seed == assignment_seed(7, 0) != second.seed


def test_seeds_are_stable_and_fit_31_bits():
    assert assignment_seed(0, 0) == 1735201683
    assert all(0 <= assignment_seed(3, at) < 2**31 for at in range(1000))


@settings(max_examples=20)
@given(st.integers(0, 2**32))
async def test_the_order_of_observing_changes_nothing(shuffle):
    assert await run(coordinator(), range(8)) == await run(coordinator(), range(8), random.Random(shuffle))


async def test_observations_count_only_once_committed():
    one, other = coordinator(), coordinator()
    await run(one, range(4))
    await run(other, range(4))
    late = await one.next(), await one.next()
    await other.next(), await other.next()
    for assignment in late:
        await one.observe(played(assignment, 2))
    assert [await one.next() for _ in range(5)] == [await other.next() for _ in range(5)]


@pytest.mark.parametrize("cut", [0, 2, 3, 6])
async def test_a_restored_coordinator_has_the_same_future(cut):
    one = coordinator()
    await run(one, range(cut))
    await one.observe(played(await one.next(), 1))  # observed, not committed
    other = coordinator()
    await other.restore(await one.state())
    assert await one.state() == await other.state()
    assert await run(one, range(cut, 12)) == await run(other, range(cut, 12))
    assert await one.state() == await other.state()
    assert await one.story() == await other.story()


async def test_a_gate_that_never_fires_ends_by_max_steps():
    one = coordinator()
    handed = await run(one, range(1, 6))
    assert [assignment.stage for assignment in handed] == ["syntax"] * 9 + ["solve"] * 6
    story = await one.story()
    assert [(record.step, record.stage, record.kind) for record in story.records] == [
        (0, "syntax", Kind.STARTED),
        (3, "solve", Kind.ADVANCED),
    ]
    assert "3 steps are the most" in story.records[-1].reason
    assert story.steps == {"syntax": 3, "solve": 2}


async def test_the_last_stage_finishes_once_and_goes_on():
    one = coordinator()
    await run(one, range(1, 4))
    assert (await one.advance(StepFacts(4, "solve", 1.0, 0.95))).advance
    assert not (await one.advance(StepFacts(5, "solve", 1.0, 0.95))).advance
    status = await one.status()
    assert (status.stage, status.index, status.step_in_stage, status.is_finished) == ("solve", 1, 2, True)
    assert (await one.next()).stage == "solve"
    assert [record.kind for record in (await one.story()).records] == [Kind.STARTED, Kind.ADVANCED, Kind.FINISHED]


async def test_a_stage_added_on_resume_begins_though_the_last_had_finished():
    one = coordinator()
    await run(one, range(1, 4))
    assert (await one.advance(StepFacts(4, "solve", 1.0, 0.95))).advance
    first, last = CONFIG.stages
    added = CurriculumConfig([first, replace(last, max_steps=9), StageConfig("more", {"2": 1.0})])
    longer = coordinator(added)
    await longer.restore(await one.state())
    assert (await longer.advance(StepFacts(5, "solve", 1.0, 0.95))).advance
    assert (await longer.status()).stage == "more"


async def test_faults_and_expert_starts_are_no_evidence():
    one = coordinator()
    first, second, third = [await one.next() for _ in range(3)]
    await one.observe(played(first, 0, num=0, faulted=4))
    await one.observe(played(Assignment(second.id, second.task, "", 0, "", 4, (Message("assistant", "x"),)), 4))
    await one.advance(StepFacts(1, "syntax", 1.0))
    assert (await one.status()).tried == 0
    await one.observe(played(third, 1, faulted=3))
    await one.advance(StepFacts(2, "syntax", 1.0))
    status = await one.status()
    assert (status.tried, status.solved) == (1, 1)


async def test_the_temperature_rises_while_sampling_is_too_sure_and_goes_with_the_stages():
    held = {"temperature": 0.9, "entropy": 0.3, "max_steps": 2}
    stages = [StageConfig("a", {"1": 1.0}, **held), StageConfig("b", {"1": 1.0}, **held), StageConfig("c", {"1": 1.0})]
    one, found = coordinator(CurriculumConfig(stages)), []
    for step, entropy in enumerate([0.1, None, 0.5, 0.2, 0.1], 1):
        found.append((await one.next()).temperature)
        again = coordinator(CurriculumConfig(stages))
        await again.restore(await one.state())
        one = again
        await one.advance(StepFacts(step, "", 1.0, entropy=entropy))
    assert found == [0.9, 0.95, 1.0, 0.95, 0.0]


async def test_groups_begin_midway_as_often_as_their_stage_says_and_leave_a_call_to_make():
    one = coordinator(CurriculumConfig([StageConfig("easy", {"1": 1.0, "2": 1.0}, midway=0.5)]))
    handed = [await one.next() for _ in range(400)]
    starts = {level: [list(a.start) for a in handed if a.task.level == level] for level in ("1", "2")}
    assert not any(starts["1"])  # one call: nothing to replay
    assert 70 <= sum(map(bool, starts["2"])) <= 130
    assert {len(start) for start in starts["2"]} == {0, 1, 2, 3, 4}
    assert all(list(a.start) == oracle(a.task)[: len(a.start)] for a in handed)
    assert next(a.reason for a in handed if len(a.start) == 3).endswith(", after 3 of the reference's messages")
    again = coordinator(CurriculumConfig([StageConfig("easy", {"1": 1.0, "2": 1.0}, midway=0.5)]))
    assert [await again.next() for _ in range(400)] == handed


@pytest.mark.parametrize(("solved", "least", "most"), [(0, 60, 140), (2, 30, 80), (4, 3, 25)])
async def test_fewer_groups_begin_midway_the_more_are_solved_from_there(solved, least, most):
    one = coordinator(CurriculumConfig([StageConfig("easy", {"2": 1.0}, midway=0.5)]))
    for _ in range(12):
        await one.observe(played(await one.next(), solved))
    await one.advance(StepFacts(1, "easy", 1.0))
    again = coordinator(CurriculumConfig([StageConfig("easy", {"2": 1.0}, midway=0.5)]))
    await again.restore(await one.state())
    starts = [bool((await one.next()).start) for _ in range(200)]
    assert least <= sum(starts) <= most
    assert [bool((await again.next()).start) for _ in range(200)] == starts


@pytest.mark.parametrize("midway", [0.0, 1.0])  # level 1 has no state midway: a call and an answer are left at least
async def test_groups_of_one_message_begin_where_the_policy_was_itself(midway: float):
    config = CurriculumConfig([StageConfig("steps", {"1": 1.0}, one_message=True, midway=midway, gate=NEVER)])
    one = coordinator(config)
    said = [Message("assistant", f"said {at}", (ToolCall("add", {"n": [at]}),) if at < 2 else ()) for at in range(3)]
    turns = [Turn((1,), (2,), (-0.5,), (), said[at], Observation((Message("tool", "x"),), at == 2)) for at in range(3)]
    deepest, starts = 0, set[int]()
    for step in range(1, 80):
        assignment = await one.next()
        start = len(assignment.start)
        assert assignment.max_turns == 1 and assignment.start == tuple(said[:start]) and start <= deepest
        starts.add(start)
        deepest = min(max(deepest, start + 1), 2)
        own = replace(played(assignment, 0).trajectories[0], turns=tuple(turns[: start + 1]))
        await one.observe(Group(assignment, (own, *played(assignment, 0).trajectories[1:])).outcome)
        await one.advance(StepFacts(step, "", 1.0, 0.1))
    assert starts == {0, 1, 2}, "every state on the way, and none after the end"
    other = coordinator(config)
    await other.restore(await one.state())
    assert [await one.next() for _ in range(8)] == [await other.next() for _ in range(8)]


async def test_a_group_observed_twice_counts_once():
    one, other = coordinator(), coordinator()
    for curriculum, times in ((one, 2), (other, 1)):
        group = played(await curriculum.next(), 3)
        for _ in range(times):
            await curriculum.observe(group)
        await curriculum.advance(StepFacts(1, "syntax", 1.0))
    assert await one.state() == await other.state()


async def test_what_cannot_be_is_refused():
    one = coordinator()
    with pytest.raises(ValueError, match="assignment 3 was never handed out"):
        await one.observe(played(Assignment(3, TASKS["1"][0], "", 0, "", 4), 0))
    await one.advance(StepFacts(5, "syntax", 1.0))
    with pytest.raises(ValueError, match="step 5 is not after step 5"):
        await one.advance(StepFacts(5, "syntax", 1.0))
    with pytest.raises(ValueError, match="seed 7"):
        await coordinator(seed=8).restore(await one.state())
    renamed = CurriculumConfig([StageConfig("other", {"1": 1.0})])
    with pytest.raises(ValueError, match="stage 'syntax'; there are: other"):
        await coordinator(renamed).restore(await one.state())


def expert(task_id: str, *, num: int = 7, success: bool = False, name: str = "e") -> Expert:
    messages = tuple(Message("assistant", f"{name}{at}") for at in range(num))
    return Expert(f"{name}/{task_id}", task_id, messages, tuple((Message("tool", f"{at}"),) for at in range(num)), success)


def with_experts(stage: StageConfig, *experts: Expert) -> Coordinator:
    found = Experts({task.id: [one for one in experts if one.task_id == task.id] for pool in TASKS.values() for task in pool})
    config = CurriculumConfig([stage], experts="experts.parquet")
    return Coordinator(config, env="shop", tasks=TASKS, oracle=oracle, seed=7, experts=found)


@given(st.integers(0, 200), st.integers(0, 12))
def test_states_lie_at_one_interval_and_leave_an_action(num_actions: int, num_states: int):
    found = depths(num_actions, num_states)
    assert found[0] == 0 and len(found) <= num_states + 1
    assert len({after - before for before, after in pairwise(found)}) <= 1
    assert found[-1] < max(num_actions, 1)
    if num_actions > num_states:  # no stretch is longer than need be
        interval = found[1] if len(found) > 1 else num_actions
        assert num_actions - found[-1] <= interval and (interval - 1) * (num_states + 1) < num_actions


async def test_simulations_begin_at_the_beginning_and_at_states_of_an_expert():
    stage = StageConfig("eef", {"1": 1.0}, experts="states", num_states=3, group_size=2, credit="eef")
    one = with_experts(stage, expert("1-3"))
    handed = await one.next()
    assert (handed.task.id, handed.expert, handed.credit) == ("1-3", "e/1-3", "eef")
    assert handed.depths == (0, 2, 4, 6) and handed.group_size == 8
    assert [message.content for message in handed.start] == ["e0", "e1", "e2", "e3", "e4", "e5"]
    assert [answer[0].content for answer in handed.expected] == ["0", "1", "2", "3", "4", "5"]
    assert "from 4 states on the way of expert e/1-3" in handed.reason


async def test_of_simulations_those_from_the_beginning_alone_say_what_is_solved():
    one = with_experts(StageConfig("eef", {"1": 1.0}, experts="states", num_states=1, group_size=1), expert("1-3"))
    handed = await one.next()
    failed, won = (Trajectory(f"0-{n}", "1-3", (), Stop.DONE, success=bool(n)) for n in range(2))
    await one.observe(Group(handed, (failed, won)))
    await one.advance(StepFacts(1, "eef", 1.0))
    status = await one.status()
    assert (status.tried, status.solved) == (1, 0)


async def test_an_expert_to_be_imitated_whole_has_succeeded_and_is_no_evidence():
    stage = StageConfig("clone", {"1": 1.0}, experts="whole", group_size=1, credit="success")
    one = with_experts(stage, expert("1-3", name="bad"), expert("1-3", success=True), expert("1-4"))
    handed = [await one.next() for _ in range(4)]
    assert {(a.task.id, a.expert, len(a.start), a.group_size) for a in handed} == {("1-3", "e/1-3", 7, 1)}
    await one.observe(Group(handed[0], (Trajectory("0-0", "1-3", (), Stop.DONE, success=True),)))
    await one.advance(StepFacts(1, "clone", 1.0))
    assert (await one.status()).tried == 0
    with pytest.raises(ValueError, match="wants successful experts for level '1'.*tiltyard experts"):
        with_experts(stage, expert("1-4"))


async def test_an_expert_that_does_not_replay_is_not_handed_out_again():
    one = with_experts(StageConfig("eef", {"1": 1.0}, experts="states", num_states=1, group_size=1), expert("1-3"))
    first = await one.next()
    faulted = Trajectory("0-1", "1-3", (), Stop.FAULT, fault="does not replay")
    await one.observe(Group(first, (Trajectory("0-0", "1-3", (), Stop.DONE, success=True), faulted)))
    assert (await one.next()).expert == "e/1-3"  # nothing is known before the step is done
    await one.advance(StepFacts(1, "eef", 1.0))
    again = with_experts(StageConfig("eef", {"1": 1.0}, experts="states", num_states=1, group_size=1), expert("1-3"))
    await again.restore(await one.state())
    later = await again.next()
    assert (later.expert, later.start, later.depths, later.group_size) == ("", (), (), 1)
    assert (await again.status()).solved == 1  # what was played from the beginning counts


async def test_an_expert_recorded_anew_is_handed_out_again_after_a_resume():
    stage = StageConfig("eef", {"1": 1.0}, experts="states", num_states=1, group_size=1)
    one = with_experts(stage, expert("1-3"))
    first = await one.next()
    await one.observe(Group(first, (Trajectory("0-0", "1-3", (), Stop.FAULT, fault="does not replay"),)))
    await one.advance(StepFacts(1, "eef", 1.0))
    assert "since its experts were left out" in (await one.next()).reason
    older = with_experts(stage, expert("1-3"))
    await older.restore(json.dumps({**json.loads(await one.state()), "lost": ["e/1-3"]}))
    assert (await older.next()).expert == "e/1-3"
    anew = with_experts(stage, replace(expert("1-3"), answers=((Message("tool", "other"),),) * 7))
    await anew.restore(await one.state())
    assert (await anew.next()).expert == "e/1-3"


async def test_a_reference_that_cannot_be_found_is_one_start_from_the_beginning():
    def slow(task: Task) -> list[Message]:
        if task.id == "1-0":
            raise OSError("no machine")
        time.sleep(0.05)
        return oracle(task) * 3

    stage = StageConfig("midway", {"1": 1.0}, midway=1.0)
    one = Coordinator(CurriculumConfig([stage]), env="shop", tasks=TASKS, oracle=slow, seed=7)
    ticks, handed = 0, asyncio.gather(*(one.next() for _ in range(6)))
    while not handed.done():
        await asyncio.sleep(0.005)
        ticks += 1
    starts = {assignment.task.id: len(assignment.start) for assignment in await handed}
    assert [assignment.id for assignment in await handed] == list(range(6)) and ticks > 10  # others are heard meanwhile
    assert starts.pop("1-0") == 0 and all(starts.values()) and len(starts) == 5


async def test_a_task_without_its_expert_is_passed_over_while_others_have_theirs():
    one = with_experts(StageConfig("eef", {"1": 1.0}, experts="states"), expert("1-3"), expert("1-4"))
    first = await one.next()
    await one.observe(Group(first, (Trajectory("0-0", first.task.id, (), Stop.FAULT, fault="does not replay"),)))
    await one.advance(StepFacts(1, "eef", 1.0))
    assert first.task.id not in {(await one.next()).task.id for _ in range(4)}


async def test_backward_begins_close_to_the_end_and_moves_away_as_that_is_solved():
    stage = StageConfig("back", {"2": 1.0}, midway=1.0, backward=True, group_size=4)
    one, lengths = coordinator(CurriculumConfig([stage])), []
    for step, solved in enumerate([4, 0, 2, 4, 4, 4], start=1):
        handed = await one.next()
        lengths.append(6 - len(handed.start))
        await one.observe(played(handed, solved))
        await one.advance(StepFacts(step, "back", 1.0))
    # Two of six messages left at first; one more each time that half the group solved what was left; then all of them.
    assert lengths == [2, 3, 3, 4, 5, 6]
    assert (await one.next()).start == ()


async def test_backward_stays_where_nothing_was_played():
    one = coordinator(CurriculumConfig([StageConfig("back", {"2": 1.0}, midway=1.0, backward=True)]))
    for step in range(1, 4):
        handed = await one.next()
        assert len(handed.start) == 4
        await one.observe(played(replace(handed, expert="e"), 0, faulted=4, num=0))
        await one.advance(StepFacts(step, "back", 1.0))


async def test_backward_goes_a_successful_experts_way_where_there_is_one():
    stage = StageConfig("back", {"1": 1.0}, midway=1.0, backward=True)
    one = with_experts(stage, expert("1-0", name="bad"), expert("1-0", success=True))
    handed = next(a for a in [await one.next() for _ in range(6)] if a.task.id == "1-0")
    assert handed.expert == "e/1-0" and len(handed.start) == len(handed.expected) == 5 and handed.depths == ()
