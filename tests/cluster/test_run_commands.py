"""`tiltyard curriculum` and `tiltyard augment` on the folder of a run, made here by playing tasks."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from cluster import cli
from cluster.config import Config, dump
from cluster.metrics import MetricsFile, StepReport
from cluster.simulations import Simulations, sampled, simulations
from cluster.store import Store
from envs.augmentation import load_rules
from envs.environment import environment
from envs.shop.world import EXAMPLE_IDS
from envs.types import Assignment, Author, Group, Message, Span, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from tests.envs.openai_server import serving

SHOP = environment("shop")
TASKS = SHOP.taskset("train", "1")
DONE = Message("assistant", "Done.")


def wrong(number: int) -> list[Message]:
    return [Message("assistant", "", (ToolCall("price", {"id": EXAMPLE_IDS[number]}),)), DONE]


def episode(name: str, task: Task, messages: Sequence[Message], *, author: Author = Author.POLICY) -> Trajectory:
    env = SHOP.make()
    env.reset(task)
    turns: list[Turn] = []
    for message in messages:
        turns.append(Turn((1,), (2,), (-0.5,), (Span(0, 0, 1),), message, env.step(message), author))
        if turns[-1].observation.done:
            break
    return rubrics(RewardsConfig())["progress"](task, Trajectory(name, task.id, tuple(turns), Stop.DONE))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four groups: a task solved at its second try, one stuck after two, one begun on the reference's way."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(Config()))
    metrics = MetricsFile(folder, resumed_from=0)
    for step, (stage, reason) in enumerate(
        [("easy", "it is the first"), ("easy", "it is the first"), ("hard", "it plateaued")], 1
    ):
        metrics.step(StepReport(step, 3, step, stage, reason, 1.0, {"rewards/mean": 0.25 * step}))
    metrics.close()
    store = Store(folder)
    plays = [(0, wrong(0)), (1, wrong(1)), (0, SHOP.oracle(TASKS[0])), (1, wrong(2)), (2, SHOP.oracle(TASKS[2]))]
    for number, (at, messages) in enumerate(plays):
        author = Author.EXPERT if at == 2 else Author.POLICY
        group = [episode(f"{number}-{n}", TASKS[at], messages, author=author) for n in range(2)]
        store.put(Group(Assignment(number, TASKS[at], "easy", 0.0, "progress", 2), tuple(group)), split="train", step=number)
    return folder


def test_the_story_of_the_curriculum(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["curriculum", str(run)]) == 0
    told = capsys.readouterr().out
    assert "steps 1 to 2: easy\n    because it is the first" in told and "steps 3 to 3: hard\n    because it plateaued" in told
    (row,) = [line for line in told.splitlines() if line.startswith("level 1")]
    assert row.split()[2:] == ["1", "0", "1", "0", str(len(TASKS) - 2)]
    assert f"longest stuck: {TASKS[1].id} (2 groups)" in told


def test_errors_are_ranked_and_without_an_endpoint_it_says_what_to_set(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["augment", str(run)]) == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if "price: not found" in line or "price: bad id" in line)
    assert row.split()[:2] == ["6", "2"] and "--endpoint" in told and not (run / "hints-draft.yaml").exists()


def test_approved_rules_are_a_rules_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = {"error_category": "dependency_missing", "augmented_feedback": "Look the id up by the item's name first."}
    judged = {"solution_leakage": False, "exploration_constraint": False, "actionability": True, "hint_quality": "high"}
    with serving(lambda system, _: json.dumps(judged if "guard" in system else written)) as url:
        assert cli.main(["augment", str(run), "--all", "--endpoint", url, "--model", "m"]) == 0
    (rule,) = load_rules(str(run / "hints-draft.yaml")).rules["price"]
    assert rule.hint == written["augmented_feedback"]
    assert yaml.safe_load((run / "hints-draft.yaml").read_text())["version"] == load_rules(SHOP.rules).version + 1


def test_an_endpoint_that_is_down_and_a_folder_without_a_run_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["augment", str(run), "--all", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]) == 1
    assert "is the server up" in capsys.readouterr().err
    for command in ("augment", "curriculum"):
        assert cli.main([command, str(run / "none")]) == 2
        assert "name the folder of a run" in capsys.readouterr().err


def simulated(number: int, at: int, won: Sequence[bool]) -> Group:
    """One simulation from each state of an expert, two of its actions apart."""
    task, found = TASKS[at], list[Trajectory]()
    for n, success in enumerate(won):
        first = episode(f"{number}-{n}", task, SHOP.oracle(task)).turns[0]
        expert = Turn((1,), (2,), (0.0,), (), first.message, first.observation, Author.EXPERT)
        found.append(Trajectory(f"{number}-{n}", task.id, (*[expert] * (2 * n), first), Stop.DONE, success=success))
    return Group(Assignment(number, task, "eef", 0.0, "progress", len(won)), tuple(found))


def test_simulations_are_counted_by_their_state_and_tasks_by_what_solved_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulations(run) == Simulations((), 0, 0, 0)
    before = sampled(run)
    store = Store(run)
    for number, (at, won) in enumerate([(3, (False, True, True)), (4, (True, True, False)), (5, (False, False, False))], 10):
        store.put(simulated(number, at, won), split="train", step=9)
    store.put(simulated(13, 3, (False, False, True)), split="train", step=10)
    store.put(simulated(14, 6, (False, True)), split="train", step=10)
    found = simulations(run)
    assert found == Simulations(((5, 1), (5, 3), (4, 2)), 4, 1, 2) and found.share_through_states == 0.5
    assert sampled(run) == (before[0] + 14, before[1] + 14)  # an expert's tokens were not sampled
    assert cli.main(["curriculum", str(run)]) == 0
    told = capsys.readouterr().out
    assert "20% of 5, 60% of 5, 50% of 4" in told and "solved from the beginning 1, only from later states 2 (50%)" in told
