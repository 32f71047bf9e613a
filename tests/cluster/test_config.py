"""A wrong word in a config is told by its name, before anything starts."""

import json
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import preflight
from cluster.config import ConfigError, dump, load, load_run
from cluster.placement import tasks
from cluster.preflight import check, check_levels

EXPERIMENTS = sorted((Path(__file__).parents[2] / "deploy" / "experiments").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_load_and_come_back_equal(path: Path, tmp_path: Path) -> None:
    config = load(path)
    copy = tmp_path / "config.yaml"
    copy.write_text(dump(config))
    assert load(copy) == config


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("learner.num_stepz=3", "num_steps"),
        ("learner.lr=3", "'lr'.*there are: .*learning_rate"),
        ("learner.num_steps=abc", "abc"),
        ("learner.clip_low=3", "3"),
        ("actors.temperature=0", "above 0"),
        ("actors.top_p=0.9", "actors.temperature"),
        ("cluster.spawn=slurm", "slurm"),
        ("learner.num_steps", "key=value"),
        ("name=a/b", "a/b"),
        ("curriculum.stages=[]", "at least one stage"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, reward: gold}]', "gold"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, credit: luck}]', "credit of stage 'a' is 'luck'"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, credit: reward}]', "credit of stage 'a' is 'reward'"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, experts: states}]', "tiltyard experts"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, experts: some}]', "experts 'some'"),
        ('curriculum.stages=[{name: a, levels: {"1": 1}, backward: true}]', "backward and no midway"),
        ("rewards.rubrics.progress.luck=1", "luck"),
        ("envs.name=casino", "casino"),
        ("curriculum.stages.9.max_steps=2", "stages.9.max_steps=2 cannot be set.*count from 0"),
        ("curriculum.stages.easy.max_steps=2", "stages.easy.max_steps=2 cannot be set"),
        ("learner.num_steps=[", "num_steps=.: the value is no YAML"),
    ],
)
def test_a_bad_value_is_named(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(EXPERIMENTS[0], [override])


def test_an_override_reaches_into_lists() -> None:
    config = load(EXPERIMENTS[0], ["curriculum.stages.1.max_steps=99", "learner.betas=[0.8, 0.9]", "learner.kl=1e-3"])
    assert config.curriculum.stages[1].max_steps == 99 and config.curriculum.stages[0].max_steps != 99
    assert (config.learner.betas, config.learner.kl) == ([0.8, 0.9], 0.001)


def test_a_file_stands_on_its_base(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("learner: {num_steps: 3, kl: 0.1}\ncurriculum: {stages: [{name: a, levels: {'1': 1.0}}]}")
    (tmp_path / "mid.yaml").write_text("base: low.yaml\nlearner: {num_steps: 4}")
    (tmp_path / "top.yaml").write_text("base: mid.yaml\nset: [curriculum.stages.0.augmentation=0.5, name=top]\nseed: 7")
    config = load(tmp_path / "top.yaml", ["seed=8"])
    assert (config.learner.num_steps, config.learner.kl, config.seed, config.name) == (4, 0.1, 8, "top")
    assert config.curriculum.stages[0].augmentation == 0.5 and config.curriculum.stages[0].name == "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: none.yaml", "none.yaml"),
        ("base: top.yaml", "its own base"),
        ("set: [learner.kl]", "learner.kl"),
        ("set: [a=1]", "'a'"),
    ],
)
def test_a_bad_base_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        load(tmp_path / "top.yaml")


def test_more_ranks_than_one_process_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_ranks"):
        load(EXPERIMENTS[0], ["cluster.spawn=local", "learner.num_ranks=2"])


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config file"):
        load(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (['curriculum.stages=[{name: a, levels: {"9": 1}}]'], "level '9'"),
        (["cluster.min_memory_gb=1e6"], "min_memory_gb"),
        (["actors.model=/no/such/model", "cluster.min_memory_gb=0"], "/no/such/model"),
    ],
)
def test_what_the_machine_lacks_is_named(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(load(EXPERIMENTS[0], overrides))


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A model folder whose weights are said to be 10^15 parameters; nothing of them is there."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [10**9, 10**6], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "huge" / name).write_text("{}")
    return tmp_path / "huge"


def test_room_on_the_disk_is_asked_for_before_anything_starts(huge: Path, tmp_path: Path) -> None:
    config = load(
        EXPERIMENTS[0],
        ["cluster.min_memory_gb=0", f"actors.model={huge}", "learner.num_steps=60", f"cluster.runs={tmp_path}/new"],
    )
    with pytest.raises(ConfigError, match=rf"free for {tmp_path}/new/.*checkpoints take 13038516.*keep_checkpoints=2"):
        check(config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("overrides", "held_gb", "free_gb", "asked"),
    [
        ([], 0.0, 20.0, 24.0),  # two that are kept and one that is written, of 7 GB; three versions of 1 GB
        (["learner.num_steps=10"], 0.0, 9.0, 10.0),  # one in all
        ([], 14.0, 9.0, 10.0),  # resumed
        (["learner.keep_checkpoints=1"], 14.0, 9.0, 10.0),  # pruned only after the next is written
        (["cluster.address=head:6379"], 0.0, 20.5, 21.0),  # the learner's shared memory is that of another machine
    ],
)
def test_what_a_run_asks_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: list[str], held_gb: float, free_gb: float, asked: float
) -> None:
    gib = 2**30
    path = next(path for path in EXPERIMENTS if path.name == "shop.yaml")
    told = ["learner.num_steps=60", "learner.checkpoint_every=10", f"cluster.runs={tmp_path}"]
    config = load(path, [*told, f"cluster.weights={tmp_path}/w", *overrides])
    if config.cluster.address:
        config = load(path, [*told, *overrides])
    held = tmp_path / config.name / "checkpoints" / "step-000010"
    held.mkdir(parents=True)
    (held / "sparse").touch()
    os.truncate(held / "sparse", int(held_gb * gib))
    monkeypatch.setattr(preflight, "parameters", lambda model: gib // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_gb * gib))
    with pytest.raises(ConfigError, match=rf"{free_gb:.1f} GiB are free for .*needs {asked:.1f}"):
        preflight._check_disk(config, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=asked * gib))
    preflight._check_disk(config, tmp_path)


def test_a_run_of_an_older_version_is_read(tmp_path: Path) -> None:
    text = dump(load(EXPERIMENTS[0])).replace("generate_s: 240.0", "generate_s: 300.0")
    (tmp_path / "config.yaml").write_text(text)
    assert "generate_s: 300.0" in text and load_run(tmp_path).actors.deadlines.generate_s == 240.0


def test_a_level_without_quotes_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("curriculum: {stages: [{name: a, levels: {1: 1.0}}]}")
    with pytest.raises(ConfigError, match='put it in quotes, as in {"1": 1.0}'):
        load(tmp_path / "c.yaml")


def test_an_engine_that_hangs_is_found_before_the_episode_ends() -> None:
    with pytest.raises(ConfigError, match="generate_s is 240, not below actors.deadline_s 100"):
        load(EXPERIMENTS[0], ["actors.deadline_s=100"])


def test_simulations_from_states_go_without_redundancy() -> None:
    stage = 'curriculum.stages=[{name: a, levels: {"1": 1}, experts: states, credit: eef}]'
    with pytest.raises(ConfigError, match="actors.redundancy is 1.*needs every simulation"):
        load(
            next(path for path in EXPERIMENTS if path.name == "shop.yaml"),
            [stage, "curriculum.experts=x.parquet", "actors.redundancy=1"],
        )


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("experts: whole", "credit 'tree' and experts 'whole'.*set its credit to success"),
        ("experts: whole, credit: eef", "set its credit to success"),
        ("experts: states", "credit 'tree' and begins in 5 states of experts.*eef or eef_initial"),
        ("experts: states, credit: success", "set its credit to eef or eef_initial, or num_states to 0"),
        ("credit: eef", "set its experts to states, or its credit to success"),
        ("credit: eef_initial, midway: 0.5", "set its experts to states"),
    ],
)
def test_a_credit_that_does_not_fit_where_a_stage_begins_is_refused(stage: str, told: str) -> None:
    shop = next(path for path in EXPERIMENTS if path.name == "shop.yaml")
    with pytest.raises(ConfigError, match=told):
        load(shop, [f'curriculum.stages=[{{name: a, levels: {{"1": 1}}, {stage}}}]', "curriculum.experts=x.parquet"])


def test_the_config_of_an_older_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("learner: {loss: nll, credit: success}")
    assert load(tmp_path / "config.yaml").learner.credit == "success"


def test_levels_are_those_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("envs: {name: shop, levels: ['2', '9']}\n")
    with pytest.raises(ConfigError, match=r"envs.levels has '9'; shop has 1, 2, 3; \[\] is all of them"):
        load(path)
    path.write_text("envs: {name: shop, levels: ['2']}\n")
    assert list(tasks(load(path), "test", most=3)) == ["2"]
    with pytest.raises(ConfigError, match="stage 'all' names level '1'; envs.levels has 2"):
        check_levels(load(path))
