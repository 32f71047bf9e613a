import pytest

from curriculum.config import CurriculumConfig, GateConfig, StageConfig, ValidationConfig
from curriculum.stages import stages
from envs.types import Task

TASK = Task("t", "shop", "1", (), (), {}, ())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "empty name"),
        ({"levels": {}}, "no levels"),
        ({"levels": {"1": 0.0}}, "share 0.0"),
        ({"levels": {"1": float("nan")}}, "share nan"),
        ({"augmentation": 1.5}, "augmentation 1.5"),
        ({"midway": -0.1}, "midway -0.1"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"entropy": -0.1, "temperature": 1.0}, "entropy -0.1"),
        ({"entropy": 0.3}, "entropy 0.3 and no temperature to start from"),
        ({"sampler": "best"}, "'best'; there are: uniform, frontier"),
        ({"group_size": 0}, "group_size 0"),
        ({"min_steps": 0}, "min_steps 0"),
        ({"min_steps": 9, "max_steps": 3}, "max_steps 3 below min_steps 9"),
    ],
)
def test_a_bad_stage_is_refused_with_its_value(fields, words):
    with pytest.raises(ValueError, match=words):
        StageConfig(**{"name": "a", "levels": {"1": 1.0}, **fields})


@pytest.mark.parametrize("fields", [{"plateau_validations": 1}, {"plateau_delta": -1.0}, {"grad_norm_spread": -0.1}])
def test_a_bad_gate_is_refused_with_its_value(fields):
    (name, value), *_ = fields.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        GateConfig(**fields)


@pytest.mark.parametrize("name", ["num_tasks", "every_steps"])
def test_a_bad_validation_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        ValidationConfig(**{name: 0})


def test_stages_need_unique_names_and_an_end():
    last = StageConfig("a", {"1": 1.0})
    with pytest.raises(ValueError, match="empty"):
        CurriculumConfig([])
    with pytest.raises(ValueError, match="'a' more than once"):
        CurriculumConfig([StageConfig("a", {"1": 1.0}, max_steps=2), last])
    with pytest.raises(ValueError, match="'b' has max_steps 0"):
        CurriculumConfig([StageConfig("b", {"1": 1.0}), last])


def test_a_level_without_tasks_is_refused_and_the_others_are_named():
    config = CurriculumConfig([StageConfig("a", {"4": 1.0})])
    with pytest.raises(ValueError, match="level '4' without tasks; there are: 1"):
        stages(config, {"1": [TASK], "4": []})


def test_shares_are_scaled_to_one():
    (stage,) = stages(CurriculumConfig([StageConfig("a", {"1": 1.0, "2": 3.0})]), {"1": [TASK], "2": [TASK]})
    assert stage.shares == {"1": 0.25, "2": 0.75}
