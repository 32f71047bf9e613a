"""ScienceWorld as its package plays it, on fewer machines than episodes, none of which outlives its process."""

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import Sampling
from actors.renderer import Renderer
from actors.rollout import Limits, Rollout
from actors.scripted_engine import ScriptedEngine
from envs.environment import environment
from envs.scienceworld import LEVELS, ScienceWorld, machine, oracle, taskset
from envs.scienceworld.machine import Machine, MachineError
from envs.scienceworld.pool import VARIABLE, Episode, Pool, finder, most, pool
from envs.scienceworld.scienceworld import MAX_MESSAGES
from envs.scienceworld.tasks import SPLITS, VARIATIONS
from envs.types import Assignment, Message, Stop, Task, ToolCall, Trajectory, Turn
from rewards.points import points
from rewards.user_turns import verdict

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java on the path")
NUM_MACHINES = 2
SHORT = ("find-non-living-thing", "find-plant", "power-component")  # gold paths of a dozen actions
WRONG = ("xyzzy", "open door", "inventory", "wait1", "", "0", "7", "look at OBJ", "go hallway", "objects", "pick up agent")


@pytest.fixture(scope="module", autouse=True)
def few_machines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(NUM_MACHINES))
        pool.cache_clear()
        yield
        pool().close()
        pool.cache_clear()
        finder().close()


def act(action: object) -> Message:
    return Message("assistant", "", (ToolCall("act", {"action": action}),))


def played(task: Task, messages: Sequence[Message]) -> Trajectory:
    """All of the messages, or as many as the episode takes."""
    env, turns = ScienceWorld(), []
    env.reset(task)
    for message in messages:
        turns.append(Turn((), (), (), (), message, env.step(message)))
        if turns[-1].observation.done:
            break
    env.close()
    return Trajectory("t", task.id, tuple(turns), Stop.DONE)


@cache
def task_of(level: str) -> Task:
    return random.Random(level).choice(taskset("train", level))


def mixed(task: Task, rng: random.Random) -> list[str]:
    """The gold path with wrong actions in between."""
    actions = []
    for message in oracle(task):
        actions += [rng.choice(WRONG)] * (rng.random() < 0.4) + [str(message.calls[0].arguments["action"])]
    return actions


def texts(trajectory: Trajectory) -> list[str]:
    return [message.content for turn in trajectory.turns for message in turn.observation.messages]


@pytest.fixture(scope="module")
def package() -> Iterator:
    """The package's own environment, in which things have to stand in the same order."""
    from scienceworld import ScienceWorldEnv

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", " ".join(("-Xmx300m", *machine.OPTIONS, *machine.SAME_ORDER)))
        env = ScienceWorldEnv("", envStepLimit=MAX_MESSAGES)
    yield env
    env.close()


@pytest.mark.parametrize("level", SHORT)
def test_gold_paths_reach_the_full_score(level: str) -> None:
    trajectory = played(task_of(level), oracle(task_of(level)))
    assert trajectory.turns[-1].observation.done and trajectory.turns[-1].observation.signals.state == {"score": 1.0}
    assert verdict(task_of(level), trajectory) == "" and points(task_of(level), trajectory).value == 1.0


@pytest.mark.parametrize("level", ["power-component", "identify-life-stages-2"])
def test_observations_and_scores_equal_the_packages(level: str, package) -> None:
    task = task_of(level)
    package.load(level, task.payload["variation"], machine.SIMPLIFICATION)
    env = ScienceWorld()
    opening = env.reset(task).messages[-1].content
    look, info = package.reset()
    assert opening == f"{info['taskDesc'].replace('Description', 'description')}\n\n{look}"
    for action in mixed(task, random.Random(1)):
        observation = env.step(act(action))
        text, _, is_over, info = package.step(action)
        assert [message.content for message in observation.messages] == [text], action
        assert observation.done == is_over, action
        if is_over:
            assert observation.signals.state == {"score": max(0, info["score"]) / 100}
            return
    state = env.step(Message("assistant", "Done.")).signals.state
    assert state == {"score": max(0, info["score"]) / 100}


def test_the_splits_are_the_packages_and_share_no_task(package) -> None:
    for level, sizes in VARIATIONS.items():
        getattr(package.server, "taskStr_$eq")(level)  # to load each of them would take minutes
        told = package.get_variations_train(), package.get_variations_dev(), package.get_variations_test()
        ours = [[task.payload["variation"] for task in taskset(split, level)] for split in SPLITS]
        assert ours == list(told) and [len(ids) for ids in told] == sizes
    assert sorted(LEVELS) == sorted(package.get_task_names())
    ids = [task.id for split, level in product(SPLITS, LEVELS) for task in taskset(split, level)]
    assert len(set(ids)) == len(ids) == 7207


@pytest.mark.parametrize("level", ["find-plant", "power-component"])
def test_the_system_message_has_the_packages_actions(level: str, package) -> None:
    package.load(level, 0, machine.SIMPLIFICATION)
    told = re.search(r"for each OBJ: (.*)\.\n", task_of(level).messages[0].content)
    assert told and sorted(told[1].split(", ")) == package.get_possible_actions()


def test_an_unknown_action_is_an_error_that_is_told() -> None:
    trajectory = played(
        task_of("find-plant"), [act("xyzzy"), act("look around"), act(7), act([1]), Message("assistant", "Done.")]
    )
    told, errors = texts(trajectory), [o.error for turn in trajectory.turns for o in turn.observation.signals.outcomes]
    assert errors == ["no known action", "", "no known action", "bad arguments"]
    assert told[0] == "No known action matches that input." and told[1].startswith("This room is called")
    assert points(task_of("find-plant"), trajectory).value == 0.08  # for being in the right place


def test_a_failed_task_ends_with_nothing() -> None:
    trajectory = played(task_of("find-plant"), [act("focus on door"), act("0"), act("look around")])
    assert trajectory.turns[-1].observation.done and len(trajectory.turns) < 3
    assert trajectory.turns[-1].observation.signals.state == {"score": 0.0}
    assert verdict(task_of("find-plant"), trajectory) == "user turn 1: other state"


def test_which_of_several_things_is_answered_by_a_number() -> None:
    env = ScienceWorld()
    env.reset(task_of("find-plant"))
    env.step(act("teleport to hallway"))
    assert "Ambiguous request" in env.step(act("open door")).messages[0].content
    assert "The door is already open." in env.step(act(0)).messages[0].content
    env.close()


@cache
def lasting() -> ScienceWorld:
    env = ScienceWorld()
    env.reset(task_of("find-plant"))
    return env


@given(st.one_of(st.text(max_size=80), st.integers(), st.none(), st.booleans(), st.lists(st.text(max_size=3), max_size=2)))
@settings(max_examples=30)
def test_no_action_raises(action: object) -> None:
    for odd in (action, f"open {action}"):
        observation = lasting().step(act(odd))
        assert observation.messages
        if observation.done:
            lasting().reset(task_of("find-plant"))


@pytest.mark.parametrize("action", ["x" * 10**6, "open\ndoor", "\ud800", "\x00", "go " * 10**5, "9" * 30])
def test_no_odd_text_raises_even_where_a_number_is_asked_for(action: str) -> None:
    trajectory = played(task_of("find-plant"), [act("teleport to hallway"), act("open door"), act(action), act("look around")])
    assert texts(trajectory)[-1].startswith("This room is called the hallway")


def test_odd_calls_are_errors_of_the_tool() -> None:
    calls = (ToolCall("fly", {}), ToolCall("act", {}), ToolCall("act", {"action": "wait", "self": 1}))
    signals = played(task_of("find-plant"), [Message("assistant", "", calls)]).turns[0].observation.signals
    assert [outcome.error for outcome in signals.outcomes] == ["no such tool", "bad arguments", "bad arguments"]


def test_an_episode_that_lost_its_machine_goes_on_as_if_it_had_not() -> None:
    level, rng = "identify-life-stages-2", random.Random(2)
    task, one = task_of(level), Pool(1)
    actions = mixed(task, rng)
    first, second, other = (Episode(level, task.payload["variation"]) for _ in range(3))
    expected = [pool().act(first, action) for action in actions]
    at, found = set(rng.sample(range(len(actions)), 3)), []
    for number, action in enumerate(actions):
        if number in at:
            one.act(other, "wait")  # takes the only machine
        found.append(one.act(second, action))
    assert found == expected
    one.close()


async def test_more_episodes_than_machines_and_threads_come_to_their_end(byte_folder: str) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
    renderer, task = Renderer(byte_folder), task_of("find-non-living-thing")
    actions = [renderer.act(message) for message in oracle(task)]
    said: dict[str, int] = {}

    def script(tokens: Sequence[int], session: str) -> Sequence[int]:
        said[session] = said.get(session, -1) + 1
        return actions[said[session]]

    def play(number: int):
        rollout = Rollout(ScienceWorld(), ScriptedEngine(script), renderer, limits=Limits(50, 10**6, 200.0))
        assignment = Assignment(number, task, "", 0.0, "points", 1)
        return rollout(assignment, Sampling(max_tokens=400), trajectory_id=str(number))

    trajectories = await asyncio.gather(*map(play, range(6)))
    assert [trajectory.fault for trajectory in trajectories] == [""] * 6
    assert all(trajectory.turns[-1].observation.signals.state == {"score": 1.0} for trajectory in trajectories)
    assert len({tuple(texts(trajectory)) for trajectory in trajectories}) == 1
    assert len(pool().pids) <= NUM_MACHINES


def test_machines_are_kept_between_episodes_and_end_when_the_pool_is_closed() -> None:
    own, pids = Pool(NUM_MACHINES), set()
    for number in range(6):
        episode = Episode("find-plant", number)
        own.act(episode, "look around")
        episode.is_left = True
        pids |= set(own.pids)
    assert len(pids) == 1 and all(map(psutil.pid_exists, pids))
    own.close()
    assert not any(map(psutil.pid_exists, pids))


def test_nobody_can_tell_that_machines_died() -> None:
    own, episode, other = Pool(2), Episode("find-plant", 0), Episode("find-plant", 1)
    first = [own.act(episode, action) for action in ("open door", "look around")]
    own.act(other, "look around")
    other.is_left = True
    for pid in own.pids:
        os.kill(pid, signal.SIGKILL)
    again, new = Episode("find-plant", 0), Episode("find-plant", 1)
    assert own.act(episode, "inventory").text  # goes on where it was, on another machine
    assert [own.act(again, action) for action in ("open door", "look around")] == first
    assert own.act(new, "look around").text.startswith("This")
    own.close()


def test_a_machine_that_hangs_is_a_fault_and_the_next_episode_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TIMEOUT_S", 5.0)
    own, episode = Pool(1), Episode("find-plant", 0)
    own.act(episode, "look around")
    os.kill(own.pids[0], signal.SIGSTOP)
    with pytest.raises(MachineError, match="no longer answers"):
        own.act(episode, "look around")
    monkeypatch.undo()
    assert own.act(Episode("find-plant", 0), "look around").text.startswith("This")
    own.close()


def test_a_closed_episode_takes_no_machine() -> None:
    own, episode = Pool(1), Episode("find-plant", 0)
    own.act(episode, "look around")
    pids = own.pids
    episode.is_left = True
    with pytest.raises(MachineError, match="closed before"):
        own.act(episode, "look around")
    assert own.act(Episode("find-plant", 0), "look around").text.startswith("This") and own.pids == pids
    own.close()


def test_no_machine_outlives_a_process_that_is_killed() -> None:
    script = (
        "from envs.scienceworld.pool import Episode, pool\n"
        "for number in range(2): pool().act(Episode('find-plant', number), 'look around')\n"
        "print(*pool().pids, flush=True)\ninput()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))


def test_without_java_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ready = environment("scienceworld").ready
    ready()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"none in {tmp_path}: install a Java 8.*openjdk-17-jre-headless"):
        ready()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="none on the path: install"):
        ready()
    (tmp_path / "java").write_text("#!/bin/sh\necho 'java version \"1.7.0_80\"' >&2\n")
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(ValueError, match="too old"):
        ready()
    (tmp_path / "java").write_text("#!/bin/sh\necho 'Could not reserve enough space'\nexit 1\n")
    machine._version.cache_clear()
    with pytest.raises(ValueError, match="does not run: Could not reserve enough space; install"):
        ready()


def test_a_machine_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="did not start: Error occurred.* heap"):
        Machine(heap_mb=10**9)
    monkeypatch.setattr(machine, "OPTIONS", ("-XX:+NoSuchOption",))
    machine._version.cache_clear()
    with pytest.raises(ValueError, match="does not run: .*NoSuchOption"):
        environment("scienceworld").ready()


def test_options_that_java_finds_in_the_environment_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xlog:gc -XX:+UseG1GC")
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx4g")
    environment("scienceworld").ready()
    one = Machine()
    assert one.load("find-plant", 0) == [] and one.is_alive
    one.close()


def test_a_machine_that_never_says_its_port_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setattr(machine, "java", lambda: str(tmp_path / "java"))
    monkeypatch.setattr(machine, "TIMEOUT_S", 0.2)
    with pytest.raises(MachineError, match="it said nothing within 0.2 s"):
        Machine()


def test_unknown_levels_and_splits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'cook'.*boil, melt"):
        taskset("train", "cook")
    with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
        taskset("dev", "boil")
    monkeypatch.setenv(VARIABLE, "none")
    with pytest.raises(ValueError, match="TILTYARD_MACHINES is 'none'"):
        most()
    monkeypatch.delenv(VARIABLE)
    assert 2 <= most() <= 16
