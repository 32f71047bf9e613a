"""The one place that reads YAML: structured defaults <- file <- command line -> frozen dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from actors.config import ActorsConfig
from cluster.telemetry import TelemetryConfig
from curriculum.config import CurriculumConfig, StageConfig
from envs.config import EnvsConfig
from learner.config import LearnerConfig, check_credit
from learner.files import replace_text, scratch
from learner.imitation import EEF, IMITATIONS
from rewards.config import RewardsConfig

MOST_NAMED = 5


class ConfigError(ValueError):
    """The configuration cannot be used: the message names the key, the value and the remedy."""


@dataclass(frozen=True)
class ClusterConfig:
    """`spawn` is "ray" or "local". CPUs and GPUs are per actor.

    `weights` is where publications live: a folder that all nodes see, the URI of an object store (s3://...), or "" for this
    machine's shared memory. Of a folder or store, every `whole_every`th is whole and the others are what changed.
    """

    spawn: str = "ray"
    address: str = ""  # of a running cluster; "" starts one here, unless this is a submitted job
    runs: str = "runs"
    models: str = "models"
    weights: str = ""
    whole_every: int = 1
    env_cpus: float = 0.0
    engine_cpus: float = 0.0
    engine_gpus: float = 0.0
    learner_cpus: float = 0.0
    learner_gpus: float = 0.0
    learner_threads: int = 0
    dashboard: bool = False  # of a cluster started here; one that is there has its own
    min_memory_gb: float = 11.0
    num_test_tasks: int = 100  # a level, played before and after training; 0 plays none
    test_before: bool = True
    stall_s: float = 900.0
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    def __post_init__(self) -> None:
        if self.spawn not in ("ray", "local"):
            raise ValueError(f'cluster.spawn is {self.spawn!r}; it is "ray" or "local"')
        if self.whole_every < 1:
            raise ValueError(
                f"cluster.whole_every is {self.whole_every}; it must be at least 1, which makes every publication whole"
            )
        if self.whole_every > 1 and not self.weights:
            raise ValueError(
                f"cluster.whole_every is {self.whole_every} and cluster.weights is empty: shared memory needs no differences; "
                "set cluster.weights to a folder or a store, or whole_every to 1"
            )
        if self.stall_s <= 0:
            raise ValueError(f"cluster.stall_s is {self.stall_s}; it must be above 0 seconds")


@dataclass(frozen=True)
class Config:
    """A run. The tree of the YAML is the tree of the folders."""

    name: str = "run"
    seed: int = 0
    envs: EnvsConfig = field(default_factory=EnvsConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name is {self.name!r}; it names the folder of the run, so it has no slash and is not empty")
        if self.cluster.spawn == "local" and self.learner.num_ranks > 1:
            raise ValueError(
                f"learner.num_ranks is {self.learner.num_ranks} with cluster.spawn=local, which is one process; "
                "set learner.num_ranks=1 or cluster.spawn=ray"
            )
        credits = {stage.credit or self.learner.credit for stage in self.curriculum.stages}
        if self.actors.top_p < 1 and not credits <= set(IMITATIONS):
            raise ValueError(
                f"actors.top_p is {self.actors.top_p}: the engine's log-probabilities would be of the tokens that it left, the "
                "learner's of all; set actors.top_p=1 and lower actors.temperature, which both apply"
            )
        for stage in self.curriculum.stages:
            check_credit(stage.credit or self.learner.credit, self.learner.normalize, f"the credit of stage {stage.name!r}")
            _check_start(stage, stage.credit or self.learner.credit)
            if stage.experts and self.actors.redundancy:
                raise ValueError(
                    f"actors.redundancy is {self.actors.redundancy}, and stage {stage.name!r} needs every simulation from an "
                    "expert's states; set actors.redundancy=0"
                )
            if stage.reward not in self.rewards.rubrics:
                known = ", ".join(sorted(self.rewards.rubrics))
                raise ValueError(f"stage {stage.name!r} asks for the rubric {stage.reward!r}; rewards.rubrics has: {known}")


def _check_start(stage: StageConfig, credit: str) -> None:
    """Where a stage's episodes begin decides what can be made of them."""
    where = f"stage {stage.name!r} has the credit {credit!r}"
    if stage.experts == "whole" and credit != "success":
        raise ValueError(f"{where} and experts 'whole', which are imitated as they are; set its credit to success")
    if stage.experts == "states" and stage.num_states and credit not in EEF:
        raise ValueError(
            f"{where} and begins in {stage.num_states} states of experts, which are not alike; set its credit to "
            f"{' or '.join(EEF)}, or num_states to 0, or leave experts out and set midway to reinforce from such states"
        )
    if stage.experts != "states" and credit in EEF:
        raise ValueError(f"{where}, which compares states of experts; set its experts to states, or its credit to success")


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file and `key=value` overrides. Raises ConfigError before anything starts."""
    if path.is_dir():
        its = f", such as {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path} is a folder; name a YAML file{its}")
    if not path.is_file():
        there = sorted(str(p) for p in Path("deploy/experiments").rglob("*.yaml"))
        raise ConfigError(
            f"no config file {path}; there are: {', '.join(get_close_matches(str(path), there) or there[:MOST_NAMED]) or 'none'}"
        )
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"{override!r} is no override; write key=value, such as learner.num_steps=20")
    try:
        told = _read(path)
        for override in overrides:
            _override(told, *override.split("=", maxsplit=1))
        tree = OmegaConf.merge(OmegaConf.structured(Config), told)
        return OmegaConf.to_object(tree)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, path)) from None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); name a YAML file") from None
    except (TypeError, YAMLError) as error:
        raise ConfigError(f"{path} and its overrides: {_first_line(error)}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def load_run(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run was started with. ConfigError where the folder holds none."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} has no config.yaml: name the folder of a run, such as runs/shop")
    return load(path, overrides)


def _read(path: Path, *below: Path) -> DictConfig | ListConfig:
    """A file on top of the one that its `base` names; its `set` has single values as `key=value`, list items too."""
    told = OmegaConf.load(path)
    if not isinstance(told, DictConfig):
        return told
    if isinstance(learner := told.get("learner"), DictConfig):
        learner.pop("loss", None)  # older runs say it; it always followed from the credit
    if isinstance(acting := told.get("actors"), DictConfig) and isinstance(limits := acting.get("deadlines"), DictConfig):
        if limits.get("generate_s") == acting.get("deadline_s") == 300.0:
            limits.pop("generate_s")  # older runs' default, with which an engine that hangs was never found
    base, single = told.pop("base", None), told.pop("set", None) or []
    if base is not None:
        under = path.parent / str(base)
        if not under.is_file() or under.resolve() in below:
            raise ConfigError(
                f"{path}: base is {base!r}: {'no such file beside it' if not under.is_file() else 'it is its own base'}"
            )
        told = OmegaConf.merge(_read(under, *below, path.resolve()), told)
    for line in single:
        key, equals, value = str(line).partition("=")
        if not equals:
            raise ConfigError(f"{path}: set has {line!r}; write key=value, such as learner.num_steps=20")
        _override(told, key, value)
    return told


def _override(told: DictConfig | ListConfig, key: str, value: str) -> None:
    """Set one value; a number in the key stands for an item of a list, as in curriculum.stages.1.max_steps."""
    try:
        OmegaConf.update(told, key, OmegaConf.from_dotlist([f"value={value}"])["value"])
    except YAMLError as error:
        raise ConfigError(f"{key}={value}: the value is no YAML ({_first_line(error)})") from None
    except (AssertionError, IndexError, TypeError) as error:
        raise ConfigError(f"{key}={value} cannot be set ({_first_line(error)}); items of a list count from 0") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def dump(config: Config) -> str:
    """The resolved configuration as YAML: what a resume reads."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def save(config: Config, folder: Path) -> None:
    """Into a run's folder, from which a resume reads it."""
    replace_text(folder / "config.yaml", dump(config))


def _explain(error: OmegaConfBaseException, path: Path) -> str:
    first, section = str(error.msg or error).splitlines()[0], error.object_type
    if "incompatible with (str)" in first:
        first += '; put it in quotes, as in {"1": 1.0}'
    if isinstance(error, ConfigKeyError) and "Did you mean" not in first and is_dataclass(section):
        first += f"; there are: {', '.join(one.name for one in fields(section))}"
    return f"{path} and its overrides: {error.full_key or 'the file'}: {first}"


def depot_uri(config: Config) -> str:
    """Where publications are sent to, for engines that copy them; "" where engines read them as the learner writes them."""
    told = config.cluster.weights.rstrip("/")
    if told and "://" not in told and config.cluster.whole_every > 1:
        told = Path(told).absolute().as_uri()
    return f"{told}/{config.name}" if "://" in told else ""


def weights_folder(config: Config) -> str:
    """Where the learner writes, a folder of this run's own: in the one that the config names, or in shared memory."""
    if config.cluster.weights and not depot_uri(config):
        return str(Path(config.cluster.weights).absolute() / config.name)
    return str(scratch(config.name))
