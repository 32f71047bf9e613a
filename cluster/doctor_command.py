"""`tiltyard doctor`: everything about a config that can be checked without a GPU, before it costs one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.renderer import Renderer
from cluster.config import Config, ConfigError, load
from cluster.preflight import check_levels
from envs.environment import environment
from envs.types import Message, Stop, Task, Trajectory, Turn
from learner.estimate import GIB, Shape, learner_gb, shape
from learner.model import prepare
from rewards.config import rubrics

Episode = tuple[Task, Trajectory]
SPLITS = ("train", "validation", "test")
NUM_ORACLES = 20  # tasks that the reference is played on, of every level as many and at least one
MIN_SOLVED = 0.9  # of them; some benchmarks have a few tasks that nothing solves


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; `is_bad` where the run would fail or learn nothing from it."""

    name: str
    text: str
    is_bad: bool = False


def main(arguments: argparse.Namespace) -> int:
    """Exit status 0 where nothing is wrong, 1 where something is, 2 where the config cannot be read."""
    try:
        config = load(Path(arguments.config), arguments.overrides)
        check_levels(config)
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    bad = 0
    for finding in examine(config, gpu_gb=arguments.gpu_gb):
        print(f"{'BAD' if finding.is_bad else 'ok':4} {finding.name:10} {finding.text}", flush=True)
        bad += finding.is_bad
    print(f"{bad} of these would stop or spoil the run" if bad else "nothing is wrong that can be seen without a GPU")
    return int(bad > 0)


def examine(config: Config, *, gpu_gb: float) -> Iterator[Finding]:
    """Each check in turn; what needs the model is left out where it is not here."""
    yield from _data(config)
    played: list[Episode] = []
    yield _guarded("reference", lambda: _reference(config, played))
    model: Path | None = None
    try:
        model = prepare(config.actors.model, Path(config.cluster.models).absolute())
        yield Finding("model", str(model))
    except ValueError as error:
        yield Finding("model", f"{error}; its template, lengths and memory are not checked", is_bad=True)
    if model:
        renderer: list[Renderer] = []
        yield _guarded("template", lambda: _template(config, model, renderer))
        if renderer:
            yield _lengths(config, renderer[0], played)
        yield _guarded("memory", lambda: _memory(config, shape(model), gpu_gb))


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except (ValueError, KeyError, OSError) as error:
        return Finding(name, str(error), is_bad=True)


def _levels(config: Config) -> list[str]:
    return list(dict.fromkeys(level for stage in config.curriculum.stages for level in stage.levels))


def _data(config: Config) -> Iterator[Finding]:
    entry = environment(config.envs.name)
    if told := entry.about():
        yield Finding("data", told)
    for level in _levels(config):

        def counted(level: str = level) -> Finding:
            counts = [len(entry.taskset(split, level)) for split in SPLITS]
            told = ", ".join(f"{count} {split}" for count, split in zip(counts, SPLITS, strict=True))
            return Finding("data", f"level {level}: {told}", is_bad=not counts[0])

        yield _guarded("data", counted)


def _reference(config: Config, played: list[Episode]) -> Finding:
    """The reference calls of a few tasks, played: they must succeed."""
    entry, levels = environment(config.envs.name), _levels(config)
    failed: list[str] = []
    for task in (task for level in levels for task in entry.taskset("train", level)[: max(1, NUM_ORACLES // len(levels))]):
        trajectory = _played(task, entry.oracle(task))
        played.append((task, trajectory))
        unsolved = [name for name, rubric in rubrics(config.rewards).items() if not rubric(task, trajectory).success]
        failed += [f"those of {task.id} do not ({', '.join(unsolved)})"] * bool(unsolved)
    paid = ", ".join(dict.fromkeys(stage.reward for stage in config.curriculum.stages))
    solved = len(played) - len(failed)
    text = f"the reference calls solve {solved} of {len(played)} tasks tried; rubrics used: {paid}"
    return Finding("reference", "; ".join([text, *failed[:1]]), is_bad=solved < MIN_SOLVED * len(played))


def _played(task: Task, messages: Sequence[Message]) -> Trajectory:
    env = environment(task.env).make()
    opening = env.reset(task).messages
    turns = [Turn((), (), (), (), message, env.step(message)) for message in messages]
    env.close()
    return Trajectory("doctor", task.id, tuple(turns), Stop.DONE, opening=opening)


def _template(config: Config, model: Path, found: list[Renderer]) -> Finding:
    renderer = Renderer(str(model), config.actors.calls)  # proves on a probe that a rendered prefix never changes
    found.append(renderer)
    calls = renderer.act(environment(config.envs.name).oracle(_first(config))[0])
    return Finding("template", f"append-only; a first action is {renderer.decode(calls)!r}")


def _first(config: Config) -> Task:
    return environment(config.envs.name).taskset("train", _levels(config)[0])[0]


def _lengths(config: Config, renderer: Renderer, played: Sequence[Episode]) -> Finding:
    """Openings and whole reference episodes, in tokens, against the engine's limit."""
    entry, limit = environment(config.envs.name), config.actors.engine.max_model_len - config.actors.max_action_tokens
    tasks = [task for level in _levels(config) for task in entry.taskset("train", level)]
    openings = [len(renderer.open(task.messages, task.tools)) for task in tasks]
    episodes = [_episode(task, trajectory, renderer) for task, trajectory in played]
    text = (
        f"openings {min(openings)} to {max(openings)} tokens, reference episodes up to {max(episodes, default=0)}; "
        f"there is room for {limit}"
    )
    if max(*openings, *episodes) <= limit:
        return Finding("lengths", text)
    remedy = "raise actors.engine.max_model_len or lower actors.max_action_tokens"
    return Finding("lengths", f"{text}: {remedy}", is_bad=True)


def _episode(task: Task, played: Trajectory, renderer: Renderer) -> int:
    turns = played.turns
    news = sum(len(renderer.extend(renderer.act(turn.message), turn.observation.messages)) for turn in turns[:-1])
    return len(renderer.open(played.opening, task.tools)) + news + sum(len(renderer.act(turn.message)) for turn in turns)


def _memory(config: Config, model: Shape, gpu_gb: float) -> Finding:
    parts = learner_gb(model, config.learner)
    rank, engine = sum(parts.values()), 2 * model.parameters / config.actors.engine.tensor_parallel / GIB
    told = " + ".join(f"{part} {size:.1f}" for part, size in parts.items())
    text = (
        f"{model.parameters / 1e6:.0f} M parameters; a learner's rank about {rank:.1f} GiB ({told}); an engine {engine:.1f} GiB"
    )
    kv = model.kv_per_token * config.actors.engine.max_model_len / config.actors.engine.tensor_parallel / GIB
    text += f" and {kv:.2f} GiB for each sequence of full length"
    if not gpu_gb:
        return Finding("memory", text)
    share = gpu_gb * config.actors.engine.gpu_memory_utilization
    room = config.actors.engine.kv_cache_gb or share - engine
    text += f"; of {gpu_gb:g} GB, {room:.1f} GiB hold {max(room, 0) / kv:.0f} such sequences"
    if rank > gpu_gb:
        return Finding("memory", f"{text}: raise learner.num_ranks or zero_stage, or lower learner.max_tokens", is_bad=True)
    if room < kv:
        return Finding("memory", f"{text}: raise actors.engine.gpu_memory_utilization or tensor_parallel", is_bad=True)
    return Finding("memory", text)
