"""An episode: what ends it, and whose failure is whose."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from actors.calls import CALL_FORMATS
from actors.engine import Sampling
from actors.renderer import Renderer
from actors.rollout import Limits, NotReplayed, Rollout
from actors.scripted_engine import ScriptedEngine
from envs.environment import environment
from envs.types import Assignment, Author, Message, Observation, Stop, Task, Trajectory

SHOP = environment("shop")
TASK = SHOP.taskset("train", "2")[0]
LIMITS = Limits(max_turns=20, max_tokens=100_000, deadline_s=20)
SAMPLING = Sampling(max_tokens=400)


@dataclass
class Play:
    """Says given texts, one an action."""

    renderer: Renderer
    texts: Sequence[str]
    said: int = 0

    def __call__(self, tokens: Sequence[int], session: str) -> Sequence[int]:
        text = self.texts[min(self.said, len(self.texts) - 1)]
        self.said += 1
        return (*self.renderer.encode(text), self.renderer.eos)


@dataclass
class Faulty:
    """An environment whose machine fails."""

    error: Exception | None = None
    hang: asyncio.Event | None = None
    closed: list[bool] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)

    def reset(self, task: Task) -> Observation:
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        self.threads.add(threading.current_thread())
        if self.error:
            raise self.error
        return Observation((Message("tool", "{}"),))

    def close(self) -> None:
        self.closed.append(True)


def said(move: Message) -> str:
    return move.content or CALL_FORMATS["json"].write(move.calls)


def assignment(start: tuple[Message, ...] = (), *, expert: str = "") -> Assignment:
    return Assignment(0, TASK, "s", 0.0, "progress", 1, start, expert=expert)


async def play(
    folder: str, texts: Sequence[str], *, env=None, limits: Limits = LIMITS, start=(), latency=None, is_quick: bool = False
) -> Trajectory:
    renderer = Renderer(folder)
    engine = ScriptedEngine(Play(renderer, texts), latency=latency)
    rollout = Rollout(env or SHOP.make(), engine, renderer, limits=limits, is_quick=is_quick)
    return await rollout(assignment(start), SAMPLING, trajectory_id="0-0")


@pytest.mark.parametrize("is_quick", [False, True])
async def test_the_oracle_is_recorded_turn_by_turn(byte_folder: str, is_quick: bool) -> None:
    moves = SHOP.oracle(TASK)
    trajectory = await play(byte_folder, [said(move) for move in moves], is_quick=is_quick)
    assert trajectory.stop is Stop.DONE and len(trajectory.turns) == len(moves)
    renderer = Renderer(byte_folder)
    tokens = [token for turn in trajectory.turns for token in (*turn.context, *turn.action)]
    history = [*TASK.messages]
    for turn in trajectory.turns:
        history += [turn.message, *turn.observation.messages]
    closing = renderer.encode(renderer.text(history, TASK.tools)[len(renderer.decode(tokens)) :])
    assert renderer.decode(tokens) + renderer.decode(closing) == renderer.text(history, TASK.tools)
    assert all(len(turn.action) == len(turn.logprobs) for turn in trajectory.turns)


@pytest.mark.parametrize("is_quick", [False, True])
async def test_an_environment_works_in_a_thread_unless_it_is_quick(byte_folder: str, is_quick: bool) -> None:
    env = Faulty()
    await play(byte_folder, ["x"], env=env, limits=Limits(3, 100_000, 20), is_quick=is_quick)
    assert (env.threads == {threading.main_thread()}) is is_quick


async def test_the_machines_failure_is_a_fault_and_the_environment_is_closed(byte_folder: str) -> None:
    env = Faulty(error=OSError("disk is gone"))
    trajectory = await play(byte_folder, ["hello"], env=env)
    assert trajectory.stop is Stop.FAULT and "disk is gone" in trajectory.fault
    assert env.closed == [True]


@pytest.mark.parametrize(
    ("limits", "stop"),
    [
        (Limits(3, 100_000, 20), Stop.MAX_TURNS),
        (Limits(20, 3_000, 20), Stop.MAX_TOKENS),
    ],
)
async def test_limits_end_an_episode(byte_folder: str, limits: Limits, stop: Stop) -> None:
    trajectory = await play(byte_folder, ["x" * 300], env=Faulty(), limits=limits)
    assert trajectory.stop is stop


async def test_a_deadline_ends_an_episode_and_keeps_what_was_played(byte_folder: str) -> None:
    trajectory = await play(byte_folder, ["x"], env=Faulty(), limits=Limits(10**6, 10**9, 0.3), latency=lambda _: 0.05)
    assert trajectory.stop is Stop.DEADLINE and trajectory.turns


async def test_a_start_state_is_replayed_before_the_policy_speaks(byte_folder: str) -> None:
    moves = SHOP.oracle(TASK)
    trajectory = await play(byte_folder, [said(move) for move in moves[1:]], start=tuple(moves[:1]))
    assert [turn.author for turn in trajectory.turns[:2]] == [Author.EXPERT, Author.POLICY]
    assert trajectory.stop is Stop.DONE and trajectory.turns[0].versions == ()


async def test_an_expert_that_fits_is_replayed_whole_and_one_that_does_not_is_left_out(byte_folder: str) -> None:
    """A replayed message needs its own room, and none for what could be sampled in its place."""
    moves, renderer = tuple(SHOP.oracle(TASK)), Renderer(byte_folder)

    def rollout(max_tokens: int) -> Rollout:
        engine = ScriptedEngine(Play(renderer, ["x"]))
        return Rollout(SHOP.make(), engine, renderer, limits=Limits(20, max_tokens, 20))

    whole = await rollout(100_000)(assignment(moves, expert="e"), SAMPLING, trajectory_id="0-0")
    again = await rollout(whole.num_tokens)(assignment(moves, expert="e"), SAMPLING, trajectory_id="0-0")
    assert again.turns == whole.turns and again.stop is Stop.DONE
    with pytest.raises(NotReplayed, match=rf"e of task .* ends beyond {whole.num_tokens - 1} tokens; raise actors.engine"):
        await rollout(whole.num_tokens - 1)(assignment(moves, expert="e"), SAMPLING, trajectory_id="0-0")
    cut = await rollout(whole.num_tokens - 1)(assignment(moves), SAMPLING, trajectory_id="0-0")
    assert cut.stop is Stop.MAX_TOKENS and len(cut.turns) == len(moves) - 1


async def test_what_differs_from_a_recording_is_shown_where_it_differs(byte_folder: str) -> None:
    env = Faulty()
    env.step = lambda message: Observation((Message("tool", "a" * 500 + "new"),))  # type: ignore[method-assign]
    told = replace(assignment((Message("assistant", "x"),), expert="e"), expected=((Message("tool", "a" * 500 + "old"),),))
    renderer = Renderer(byte_folder)
    with pytest.raises(NotReplayed, match=r"answered 'a+old' and now is 'a+new'; it is left out"):
        await Rollout(env, ScriptedEngine(Play(renderer, ["x"])), renderer, limits=LIMITS)(told, SAMPLING, trajectory_id="0-0")


async def test_a_time_out_of_the_tools_is_the_machines(byte_folder: str) -> None:
    trajectory = await play(byte_folder, ["hello"], env=Faulty(error=TimeoutError("the shop's server")))
    assert trajectory.stop is Stop.FAULT and "the shop's server" in trajectory.fault


async def test_an_engine_that_takes_most_of_an_episode_is_at_fault(byte_folder: str) -> None:
    trajectory = await play(byte_folder, ["hello"], limits=replace(LIMITS, deadline_s=0.2), latency=lambda session: 60.0)
    assert trajectory.stop is Stop.FAULT and "no engine answered for" in trajectory.fault
