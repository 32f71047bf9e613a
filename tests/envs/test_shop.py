import json
from dataclasses import replace

import pytest

from envs.environment import environment
from envs.shop import LEVELS, Shop, oracle, taskset
from envs.shop.shop import MAX_MESSAGES, MAX_MISTAKES
from envs.shop.tasks import NUM_TASKS, PREFIX, call_message
from envs.shop.world import EXAMPLE_IDS, NAMES, NOVEL_NAMES, World
from envs.types import Message, Task, ToolCall

SPLITS = tuple(NUM_TASKS)
ANSWER = Message("assistant", "ok")
BAD = Message("assistant", "<tool_call>{", malformed="bad JSON")


def tasks(*splits: str) -> list[Task]:
    return [task for split in splits or SPLITS for level in LEVELS for task in taskset(split, level)]


def calls_in(task: Task) -> list[ToolCall]:
    return [call for message in oracle(task) for call in message.calls]


def opened(task: Task) -> Shop:
    shop = Shop()
    shop.reset(task)
    return shop


def test_the_splits_are_large_enough_and_disjoint_by_id_and_content():
    everything = tasks()
    assert len({task.id for task in everything}) == len(everything) == 3 * (600 + 120 + 200)
    contents = {(json.dumps(task.payload["requests"]), str(sorted(world_of(task)))) for task in everything}
    assert len(contents) == len(everything)
    assert len({str(sorted(world_of(task))) for task in everything}) == len(everything)


def world_of(task: Task) -> list[tuple[str, str, int, int]]:
    shop = opened(task)
    assert shop._world is not None
    return [(item.name, item.id, item.price, item.stock) for item in shop._world.items.values()]


def test_only_the_test_split_asks_for_novel_names():
    def named(*splits: str) -> set[str]:
        return {str(c.arguments["name"]) for task in tasks(*splits) for c in calls_in(task) if c.name == "find"}

    assert named("train", "validation") <= set(NAMES)
    assert named("test") & set(NOVEL_NAMES) and named("test") & set(NAMES)


def test_tasks_are_the_same_on_every_call():
    taskset.cache_clear()
    before = taskset("train", "3")
    taskset.cache_clear()
    assert taskset("train", "3") == before


def test_unknown_splits_levels_and_environments_are_named():
    with pytest.raises(ValueError, match="'dev'.*train"):
        taskset("dev", "1")
    with pytest.raises(ValueError, match="'9'.*1, 2, 3"):
        taskset("train", "9")
    with pytest.raises(ValueError, match="'shoe'.*shop"):
        environment("shoe")


def test_levels_need_one_call_two_calls_and_several_user_turns():
    assert all(len(calls_in(task)) == 1 for split in SPLITS for task in taskset(split, "1"))
    assert all(
        [c.name for c in calls_in(task)][0] == "find" and len(calls_in(task)) == 2
        for split in SPLITS
        for task in taskset(split, "2")
    )
    third = taskset("train", "3")
    assert {len(task.truth) for task in third} == {2, 3}
    names = {tuple(c["name"] for c in entry["calls"]) for task in third for entry in task.truth}
    assert {("find", "stock", "add"), ("checkout",), ("remove",)} <= names


def test_a_level_two_request_does_not_tell_the_id():
    assert not any(call.arguments.get("id", "no id") in str(t.messages) for t in taskset("train", "2") for call in calls_in(t))


def test_every_task_opens_with_the_same_prefix_and_its_first_request_alone():
    for task in tasks():
        assert task.messages[:-1] == PREFIX
        assert task.messages[-1] == Message("user", task.payload["requests"][0])
        assert Shop().reset(task).messages == task.messages


def test_worked_examples_use_items_of_no_split():
    text = str(PREFIX)
    assert not any(f'"{name}"' in text for name in NAMES + NOVEL_NAMES)
    assert not any(id in str(task.payload["requests"]) for task in tasks() for id in EXAMPLE_IDS)


def test_the_world_runs_without_the_truth():
    for task in taskset("test", "3"):
        shop, blind = opened(task), opened(replace(task, truth=()))
        assert [shop.step(message) for message in oracle(task)] == [blind.step(message) for message in oracle(task)]


def test_requests_are_revealed_one_by_one_and_the_last_answer_ends_the_episode():
    task = next(task for task in taskset("train", "3") if len(task.truth) == 3)
    shop = opened(task)
    requests = task.payload["requests"]
    for k in (1, 2):
        observation = shop.step(ANSWER)
        assert observation.messages == (Message("user", requests[k]),)
        assert not observation.done and observation.signals.state == {"cart": {}, "orders": []}
    last = shop.step(ANSWER)
    assert last.done and last.messages == () and last.signals.state is not None
    with pytest.raises(RuntimeError, match="reset"):
        shop.step(ANSWER)


def test_calls_of_one_message_run_in_order_with_one_compact_answer_each():
    task = taskset("train", "2")[0]
    find = calls_in(task)[0]
    bad = ToolCall("price", {"id": "i1"})
    observation = opened(task).step(Message("assistant", "", (find, bad)))
    id = calls_in(task)[1].arguments["id"]
    assert [message.content for message in observation.messages] == [f'{{"id":"{id}"}}', '{"error":"bad id"}']
    assert [outcome.error for outcome in observation.signals.outcomes] == ["", "bad id"]
    assert observation.signals.state is None


def test_a_malformed_message_runs_nothing_and_is_told_so():
    task = taskset("train", "1")[0]
    observation = opened(task).step(replace(BAD, calls=tuple(calls_in(task))))
    assert observation.messages == (Message("tool", '{"error":"malformed"}'),)
    assert observation.signals.malformed == "bad JSON" and observation.signals.outcomes == ()
    assert not observation.done


THREE_TURNS = taskset("train", "3")[0]
CALL = call_message(ToolCall("stock", {"id": min(World(THREE_TURNS.id, novel=False).items)}))
REFUSED = call_message(ToolCall("price", {"id": "lamp"}))


@pytest.mark.parametrize(("message", "most"), [(BAD, MAX_MISTAKES), (REFUSED, MAX_MISTAKES), (CALL, MAX_MESSAGES)])
def test_a_user_turn_too_long_ends_the_episode_unsolved(message: Message, most: int):
    shop = opened(THREE_TURNS)
    observations = [shop.step(message) for _ in range(most)]
    assert [observation.done for observation in observations] == [False] * (most - 1) + [True]
    assert observations[-1].signals.state is None


def test_messages_and_mistakes_count_anew_in_each_user_turn():
    shop = opened(THREE_TURNS)
    one = (REFUSED, CALL, CALL, CALL)
    assert not any(shop.step(message).done for message in (*one, ANSWER, *one))


def test_each_error_of_a_call_the_policy_may_send_is_a_tool_message():
    shop = opened(taskset("train", "1")[0])
    deep = json.loads("[" * 200 + "]" * 200)
    calls = (
        ToolCall("\ud800", {}),
        ToolCall("find", {"name": deep}),
        ToolCall("add", {"id": "i1", "quantity": 10**5000}),
    )
    contents = [message.content for message in shop.step(Message("assistant", "", calls)).messages]
    assert contents == ['{"error":"unknown tool"}', '{"error":"bad arguments"}', '{"error":"bad id"}']
