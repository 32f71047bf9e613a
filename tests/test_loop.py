"""The whole system in one process: real curriculum, actors, environment, rewards, buffer, learner, books; no Ray, no GPU."""

import asyncio
import json
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from actors.config import ActorsConfig
from actors.desk import Caller
from actors.engine import Completion, EngineStats, Sampling
from actors.engine_pool import Deadlines, EnginePool
from actors.env_actor import EnvActor, GroupFault
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from cluster import phases
from cluster.breakdown import parts
from cluster.config import ClusterConfig, Config
from cluster.evaluate import by_level, evaluate, fault_of
from cluster.experts import experts_of, following, write
from cluster.experts import play as played
from cluster.gang import Gang
from cluster.keeper import Keeper, Stopped
from cluster.ledger import Ledger
from cluster.metrics import LevelResult
from cluster.placement import tasks
from cluster.store import read
from cluster.system import System
from cluster.telemetry import Telemetry, TelemetryConfig
from cluster.train import train
from curriculum.config import CurriculumConfig, StageConfig, ValidationConfig
from curriculum.coordinator import Coordinator
from envs.config import EnvsConfig, rules
from envs.environment import environment
from envs.types import Assignment, Group, Message, Stop, Trajectory
from learner import checkpoint
from learner.buffer import Buffer, Verdict
from learner.config import LearnerConfig
from learner.credits import Credits
from learner.deepspeed_learner import DeepSpeedLearner, LearnerPlace
from learner.learner import Learner
from learner.publish import read as read_weights
from learner.tiny_learner import TinyLearner
from learner.weights import Weights
from rewards.config import RewardsConfig, rubrics

QUIET = TelemetryConfig(console=False, tensorboard=False, prometheus=False)


class Registered(Coordinator):
    """Remembers what it handed out, so that a scripted policy can know its task."""

    issued: dict[int, Assignment]

    async def next(self) -> Assignment:
        assignment = await super().next()
        self.issued[assignment.id] = assignment
        return assignment


@dataclass
class Policy:
    """Plays the reference calls, and now and then stops early: drawn from the session's name alone."""

    renderer: Renderer
    issued: dict[int, Assignment] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    skill: float = 0.6

    def __call__(self, tokens: Sequence[int], session: str) -> Sequence[int]:
        turn = self.turns[session]
        self.turns[session] += 1
        id, number = map(int, session.split("-"))
        assignment = self.issued[id]
        begun = assignment.depths[number % len(assignment.depths)] if assignment.depths else len(assignment.start)
        moves = environment("shop").oracle(assignment.task)[begun:]
        draw = random.Random(zlib.crc32(f"{session}/{turn}".encode())).random()
        action = self.renderer.act(moves[min(turn, len(moves) - 1)])
        return action if draw < self.skill else (*self.renderer.encode("no"), self.renderer.eos)


@dataclass
class Broken:
    """An engine that fails a machine's way on some calls."""

    inner: ScriptedEngine
    every: int
    calls: int = 0

    async def ready(self) -> None:
        return None

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        self.calls += 1
        if self.calls % self.every == 0:
            raise ConnectionError("the machine is gone")
        return await self.inner.generate(tokens, sampling, session=session)

    async def forget(self, session: str) -> None:
        return None

    async def load(self, weights) -> None:
        await self.inner.load(weights)

    async def stats(self) -> EngineStats:
        return await self.inner.stats()


class Counted(TinyLearner):
    """Tells how many updates it has made."""

    num_updates = 0

    def __init__(self, *args, **keywords) -> None:
        super().__init__(*args, **keywords)
        self.change = asyncio.Condition()

    async def update(self, batch):
        metrics = await super().update(batch)
        async with self.change:
            self.num_updates += 1
            self.change.notify_all()
        return metrics


def config(**learner) -> Config:
    stage = StageConfig("all", {"1": 1.0, "2": 1.0, "3": 1.0}, augmentation=1.0, group_size=4)
    first = replace(stage, name="easy", levels={"1": 1.0}, max_steps=2)
    settings = {"num_steps": 5, "groups_per_batch": 4, "checkpoint_every": 2, "max_tokens": 100_000, **learner}
    return Config(
        curriculum=CurriculumConfig([first, stage], ValidationConfig(2, 2)),
        actors=ActorsConfig(max_open_groups=6, max_action_tokens=400),
        learner=LearnerConfig(**settings),
        cluster=ClusterConfig(spawn="local", telemetry=QUIET),
    )


def build(
    folder: Path, byte_folder: str, config: Config, *, broken: int = 0, learner: Learner | None = None, skill: float = 0.6
) -> tuple[System, Keeper]:
    renderer = Renderer(byte_folder)
    policy = Policy(renderer, skill=skill)
    pool = tasks(config, "train", most=30)
    oracle, experts = environment("shop").oracle, experts_of(config, pool)
    curriculum = Registered(config.curriculum, env="shop", tasks=pool, oracle=oracle, seed=config.seed, experts=experts)
    curriculum.issued = policy.issued
    scripted = ScriptedEngine(policy)
    engine = Broken(scripted, broken) if broken else scripted

    async def respawn(index: int) -> ScriptedEngine:
        return scripted

    engines = EnginePool([engine], respawn)
    actor_config = replace(config.actors, engine=replace(config.actors.engine, max_model_len=20_000))
    make = lambda: EnvActor(  # noqa: E731
        actor_config, engines, model=byte_folder, rules=rules(EnvsConfig()), rubrics=rubrics(RewardsConfig())
    )
    learner = learner or TinyLearner(258, 0.01, seed=config.seed, folder=str(folder / "weights"))
    limits = config.learner
    size, teaches = limits.groups_per_batch, Credits(limits.credit, limits.solutions).teaches
    buffer = Buffer(groups_per_batch=size, max_lag=limits.max_lag, max_refills=limits.max_refills, teaches=teaches)
    system = System(config, curriculum, (make(), make()), engines, learner, buffer)
    telemetry = Telemetry(folder, QUIET, total_steps=limits.num_steps)
    return system, Keeper(system, folder, telemetry, validation=())


async def play(
    folder: Path,
    byte_folder: str,
    config: Config,
    *,
    resume: bool = False,
    broken: int = 0,
    learner: Learner | None = None,
) -> System:
    system, keeper = build(folder, byte_folder, config, broken=broken, learner=learner)
    if resume:
        await restored(folder, system, keeper)
    await train(system, keeper)
    keeper.close()
    return system


async def restored(folder: Path, system: System, keeper: Keeper) -> None:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    await keeper.restore(found.path)
    assert isinstance(system.curriculum, Registered)
    system.curriculum.issued |= {assignment.id: assignment for assignment in keeper._again}  # the scripted policy's knowledge


def steps(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "metrics" in line]


@pytest.mark.parametrize("max_lag", [0, 2])
async def test_the_whole_loop(tmp_path: Path, byte_folder: str, max_lag: int) -> None:
    system = await play(tmp_path, byte_folder, config(max_lag=max_lag))
    assert system.buffer.version == 5
    counts = Ledger(tmp_path / "ledger.jsonl").counts
    assert counts.is_balanced and 5 * 4 - 5 <= counts.trained <= 5 * 4
    assert {file.suffix for file in (tmp_path / "trajectories").rglob("*.*")} == {".parquet"}
    rows = read(tmp_path, split="train").to_pylist()
    finished = counts.trained + counts.filtered + counts.stale
    assert len(rows) >= 4 * finished
    assert {row["stage"] for row in rows} == {"easy", "all"}
    assert all(len(row["tokens"]) == len(row["mask"]) == len(row["logprobs"]) for row in rows)
    assert all(set(dict(row["spent"])) == {"engine", "environment", "reward"} for row in rows)
    for line in steps(tmp_path):
        assert sum(parts(line["metrics"]).values()) == pytest.approx(line["seconds"])
        assert {"engine", "passes", "publish", "load", "books"} <= set(parts(line["metrics"]))
    assert {phase.part for phase in phases.read(tmp_path)} == {"group", "learner", "engines", "actors"}
    lags = [line["metrics"]["buffer/lag"] for line in steps(tmp_path)]
    assert len(lags) == 5 and max(lags) <= max_lag


async def test_the_learner_does_not_wait_for_engines(tmp_path: Path, byte_folder: str) -> None:
    """Each load ends only once the learner has made its next update: with a lag of 2 that is no deadlock."""
    learner = Counted(258, 0.01, seed=0, folder=str(tmp_path / "weights"))
    settings = config(max_lag=2, num_steps=6)
    settings = replace(settings, curriculum=replace(settings.curriculum, validation=ValidationConfig(2, 100)))
    system, keeper = build(tmp_path, byte_folder, settings, learner=learner)
    load = system.engines.load

    async def load_late(weights: Weights) -> None:
        async with learner.change:
            await learner.change.wait_for(lambda: learner.num_updates > min(weights.version, 5))
        await load(weights)

    system.engines.load = load_late  # type: ignore[method-assign]
    await asyncio.wait_for(train(system, keeper), 60)
    keeper.close()
    assert learner.num_updates == 6 and Ledger(tmp_path / "ledger.jsonl").counts.stale == 0
    assert max(line["metrics"]["buffer/lag"] for line in steps(tmp_path)) <= 2


@pytest.mark.parametrize("max_refills", [0, 2])
async def test_a_run_whose_groups_all_lack_signal_ends(tmp_path: Path, byte_folder: str, max_refills: int) -> None:
    """All is solved: nothing is left to learn, steps are counted and the weights stay."""
    system, keeper = build(tmp_path, byte_folder, config(max_refills=max_refills), skill=1.0)
    first = dict(read_weights(await system.learner.publish()))
    await asyncio.wait_for(train(system, keeper), 60)
    keeper.close()
    assert keeper.step == 5 and system.buffer.version == 5
    counts = Ledger(tmp_path / "ledger.jsonl").counts
    assert counts.is_balanced and counts.trained == 0 and counts.filtered == 5 * (4 + max_refills)
    last = dict(read_weights(await system.learner.publish()))
    assert all(torch.equal(first[name], last[name]) for name in first)


async def test_a_resumed_run_equals_an_unstopped_one_bit_for_bit(tmp_path: Path, byte_folder: str) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    one = await play(whole, byte_folder, config(num_steps=6))
    await play(half, byte_folder, config(num_steps=2))
    other = await play(half, byte_folder, config(num_steps=6), resume=True)
    assert (await one.learner.publish()).checksum == (await other.learner.publish()).checksum
    assert Ledger(whole / "ledger.jsonl").counts == Ledger(half / "ledger.jsonl").counts
    state = json.loads(await one.curriculum.state())
    assert state == json.loads(await other.curriculum.state())


@pytest.mark.e2e
async def test_stopping_after_step_5_and_resuming_gives_the_same_step_10_on_deepspeed(tmp_path: Path, byte_folder: str) -> None:
    """The real learner; the engine is scripted, since vLLM's numerics depend on which requests share a batch."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=258, max_position_embeddings=8192, **shape))
    model.save_pretrained(tmp_path / "model")

    def learner(name: str) -> Gang:
        place = LearnerPlace(0, 1, f"file://{tmp_path}/meet-{name}", 1)
        settings = config(num_steps=10).learner
        return Gang([DeepSpeedLearner(settings, place, model=str(tmp_path / "model"), folder=str(tmp_path / name), seed=0)])

    whole, half = tmp_path / "whole", tmp_path / "half"
    one, first, second = learner("a"), learner("b"), learner("c")
    await play(whole, byte_folder, config(num_steps=10, checkpoint_every=5), learner=one)
    await play(half, byte_folder, config(num_steps=5, checkpoint_every=5), learner=first)
    await play(half, byte_folder, config(num_steps=10, checkpoint_every=5), resume=True, learner=second)
    assert (await one.publish()).checksum == (await second.publish()).checksum != (await first.publish()).checksum


async def test_faults_are_played_again_and_never_trained_on(tmp_path: Path, byte_folder: str) -> None:
    await play(tmp_path, byte_folder, config(), broken=17)
    rows = read(tmp_path, split="train").to_pylist()
    assert rows and all(row["stop"] != Stop.FAULT for row in rows)
    assert Ledger(tmp_path / "ledger.jsonl").counts.is_balanced


async def test_stopping_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, byte_folder: str) -> None:
    system, keeper = build(tmp_path, byte_folder, config(num_steps=50, checkpoint_every=100))
    original = keeper.step_done

    async def stop_after_three(step: int, groups, *, metrics) -> None:
        await original(step, groups, metrics=metrics)
        if step == 3:
            keeper.stop()

    keeper.step_done = stop_after_three
    with pytest.raises(ExceptionGroup) as caught:
        await train(system, keeper)
    assert caught.group_contains(Stopped)
    await keeper.checkpoint()
    keeper.close()
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None and found.step == 3
    system, keeper = build(tmp_path, byte_folder, config(num_steps=50))
    await keeper.restore(found.path)
    assert keeper.step == 3 and system.buffer.version == 3
    assert Ledger(tmp_path / "ledger.jsonl").counts.is_balanced


@pytest.mark.parametrize("max_lag", [1, 2])
async def test_a_run_with_lag_resumes_though_groups_ended_after_its_last_books(
    tmp_path: Path, byte_folder: str, max_lag: int
) -> None:
    """Stopped when a group that was open in the snapshot has ended without signal meanwhile: it is played again."""
    settings = config(max_lag=max_lag, checkpoint_every=100)
    system, keeper = build(tmp_path, byte_folder, settings, skill=0.85)
    finish, ended = keeper.finish, list[int]()

    def stop_after(group: Group, verdict: Verdict) -> None:
        finish(group, verdict)
        if keeper._snapshot and verdict is Verdict.FILTERED and group.assignment.id < keeper._snapshot.next_id:
            ended.append(group.assignment.id)
            keeper.stop()

    keeper.finish = stop_after
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(train(system, keeper), 60)
    await keeper.checkpoint()
    keeper.close()
    assert ended
    system, keeper = build(tmp_path, byte_folder, settings, skill=0.85)
    await restored(tmp_path, system, keeper)
    assert set(ended) & set(keeper._ledger.open_ids)
    await asyncio.wait_for(train(system, keeper), 60)
    keeper.close()
    assert keeper.step == system.buffer.version == 5 and Ledger(tmp_path / "ledger.jsonl").counts.is_balanced


async def test_a_snapshot_is_of_one_moment_though_the_curriculum_is_far_away(tmp_path: Path, byte_folder: str) -> None:
    settings = config(max_lag=2)
    system, keeper = build(tmp_path, byte_folder, settings)
    state, torn = system.curriculum.state, list[int]()

    async def state_late() -> str:
        text = await state()
        await asyncio.sleep(0.05)  # on its way
        return text

    system.curriculum.state = state_late  # type: ignore[method-assign]
    snap = keeper._snap

    async def checked() -> None:
        await snap()
        assert keeper._snapshot is not None
        kept = [*keeper._snapshot.open, *(group.assignment for group in keeper._snapshot.buffer.groups)]
        torn.extend(one.id for one in kept if one.id >= json.loads(keeper._snapshot.curriculum)["next_id"])

    keeper._snap = checked
    await asyncio.wait_for(train(system, keeper), 60)
    keeper.close()
    assert not torn
    system, keeper = build(tmp_path, byte_folder, config(max_lag=2, num_steps=7))
    await restored(tmp_path, system, keeper)
    await asyncio.wait_for(train(system, keeper), 60)
    keeper.close()
    assert keeper.step == 7


async def test_stopping_in_a_validation_keeps_learner_and_books_together(tmp_path: Path, byte_folder: str) -> None:
    settings = config(num_steps=6, checkpoint_every=100)
    settings = replace(settings, curriculum=replace(settings.curriculum, validation=ValidationConfig(1, 3)))
    system, keeper = build(tmp_path, byte_folder, settings)

    async def evaluate(tasks, *, split: str) -> dict[str, LevelResult]:
        keeper.stop()
        await keeper.unless_stopped(asyncio.sleep(60))
        return {}

    keeper.evaluate = evaluate
    with pytest.raises(ExceptionGroup) as caught:
        await train(system, keeper)
    assert caught.group_contains(Stopped)
    await keeper.checkpoint()
    keeper.close()
    system, keeper = build(tmp_path, byte_folder, settings)
    await restored(tmp_path, system, keeper)
    assert (await system.learner.publish()).version == keeper.step == system.buffer.version == 3


async def test_an_evaluation_beside_training_disturbs_nobody(tmp_path: Path, byte_folder: str) -> None:
    """Both begin with their first task; with sessions of the same names each would cancel the other's requests."""
    pools = {split: environment("shop").taskset(split, "3")[:4] for split in ("train", "test")}
    renderer = Renderer(byte_folder)

    def act(tokens: Sequence[int], session: str) -> Sequence[int]:
        text = renderer.decode(list(tokens))
        task = next(task for pool in pools.values() for task in pool if task.messages[-1].content in text)
        moves = environment("shop").oracle(task)
        return renderer.act(moves[min(text.count("<|im_start|>assistant") - 1, len(moves) - 1)])

    engine = ScriptedEngine(act, latency=lambda session: 0.05)

    async def respawn(index: int) -> ScriptedEngine:
        return engine

    settings = ActorsConfig(max_action_tokens=400, deadline_s=5, fault_retries=0, deadlines=Deadlines(generate_s=4.9))
    settings = replace(settings, engine=replace(settings.engine, max_model_len=20_000))
    actor = EnvActor(
        settings,
        Caller(EnginePool([engine], respawn)),
        model=byte_folder,
        rules=rules(EnvsConfig()),
        rubrics=rubrics(RewardsConfig()),
    )
    training = [actor.rollout(Assignment(at, task, "s", 0.0, "progress", group_size=1)) for at, task in enumerate(pools["train"])]
    *trained, tested = await asyncio.gather(*training, evaluate([actor], pools["test"], stage="test"))
    assert {one.stop for group in (*trained, *tested) for one in group.trajectories} == {Stop.DONE}


async def test_a_task_that_the_machine_fails_costs_its_own_result_and_not_the_evaluation(byte_folder: str) -> None:
    pool = environment("shop").taskset("test", "1")[:3]

    class Machine:
        def __init__(self, *broken: int) -> None:
            self.broken = {pool[at].id for at in broken}

        async def rollout(self, assignment: Assignment, *, greedy: bool = False) -> Group:
            if assignment.task.id in self.broken:
                raise GroupFault("a trace\nthe machine is gone")
            return Group(assignment, (Trajectory("t", assignment.task.id, (), Stop.DONE, success=True),))

    groups = await evaluate([cast(EnvActor, Machine(1))], pool, stage="test")
    assert [fault_of(group) for group in groups] == ["", "the machine is gone", ""]
    assert by_level(groups)["1"].num_tasks == 2 and by_level(groups)["1"].success == 1.0
    with pytest.raises(GroupFault, match="all 3 tasks of an evaluation; the last: the machine is gone"):
        await evaluate([cast(EnvActor, Machine(0, 1, 2))], pool, stage="test")


def recorded(path: Path, *, num_tasks: int) -> None:
    """References of level 2; the first one's answers are others than the environment gives."""
    shop = environment("shop")
    pool = shop.taskset("train", "2")[:num_tasks]
    found = [played(task, following(shop.oracle(task)), id=f"expert-{n}", most=9) for n, task in enumerate(pool)]
    turn = found[0].turns[0]
    other = replace(turn, observation=replace(turn.observation, messages=(Message("tool", '{"id":"i0"}'),)))
    found[0] = replace(found[0], turns=(other, *found[0].turns[1:]))
    write(path, list(zip(pool, found, strict=True)), split="train")


@pytest.mark.parametrize("max_lag", [0, 2])
async def test_cloning_then_eef_then_reinforcement_in_one_run(tmp_path: Path, byte_folder: str, max_lag: int) -> None:
    recorded(tmp_path / "experts.parquet", num_tasks=4)
    clone = StageConfig("clone", {"2": 1.0}, experts="whole", group_size=1, credit="success", max_steps=2)
    eef = replace(clone, name="eef", experts="states", num_states=2, group_size=2, credit="eef")
    rl = StageConfig("rl", {"2": 1.0}, midway=0.5, backward=True, group_size=4)
    whole = config(num_steps=6, max_lag=max_lag)
    stages = CurriculumConfig([clone, eef, rl], ValidationConfig(2, 2), str(tmp_path / "experts.parquet"))
    system = await play(tmp_path, byte_folder, replace(whole, curriculum=stages))
    assert system.buffer.version == 6 and Ledger(tmp_path / "ledger.jsonl").counts.is_balanced
    rows = read(tmp_path, split="train").to_pylist()
    clones, simulated, own = ([row for row in rows if row["stage"] == name] for name in ("clone", "eef", "rl"))
    assert {author for row in clones for author in row["authors"]} == {"expert"}
    begun = Counter(row["authors"].count("expert") for row in simulated)
    assert set(begun) >= {0, 2} and own  # from the beginning, and from states of the expert's
    # The expert whose answers changed is left out, told once a group, and never stops the run.
    lost = {row["fault"] for row in rows if row["stop"] == "fault"}
    assert len(lost) == 1 and "expert expert-0 of task shop/train/2/0 does not replay" in lost.pop()
    told = await system.curriculum.status()
    assert told.stage == "rl"
