"""A run folder as the loop leaves it, and what the report makes of it whole, torn and empty."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.curves import smooth, spread, stage_spans
from cluster.metrics import LevelResult, MetricsFile, StepReport, Validation
from cluster.report import LevelRow, write_report
from cluster.store import Store
from envs.types import Assignment, Group, Message, Observation, Signals, Span, Stop, Task, ToolCall, Trajectory, Turn

LEVELS = ("1", "2", "3")
NASTY = '<script>alert("x")</script>'
STEPS = 24


def step(number: int) -> StepReport:
    wave = 0.05 * math.sin(number)
    metrics = {
        "rewards/mean": 0.2 + 0.02 * number + wave,
        "rewards/success": 0.1 + 0.02 * number - wave,
        "learner/grad_norm": 0.8 + wave,
        "actors/entropy": 1 / number,
        "learner/logprob_gap": 0.004 + wave / 50,
        "cluster/engine_s": 17.0,
        "cluster/environment_s": 1.0,
        "cluster/passes_s": 9.0,
        "cluster/publish_s": 2.0,
    }
    stage = "basics" if number <= 10 else "everything"
    return StepReport(number, STEPS, number, stage, f"why {stage}", 30 + wave, metrics)


def task(name: str, level: str) -> Task:
    messages = (Message("system", "You run a shop."), Message("user", f"Please buy {name}."))
    return Task(name, "shop", level, messages, (), {}, ())


def trajectory(of: Task, *, success: bool, text: str, hints: tuple[str, ...] = ()) -> Trajectory:
    call = ToolCall("buy", {"item": of.id, "count": 2})
    answer = Observation((Message("tool", '{"error": "no such item"}'),), signals=Signals(hints=hints))
    spans = (Span(0, 0, 2),)
    turns = (
        Turn((1, 2), (3, 4), (-0.1, -0.2), spans, Message("assistant", "", (call,)), answer),
        Turn((5,), (6, 7), (-0.1, -0.2), spans, Message("assistant", text, (), "no call"), Observation((), True)),
    )
    reward = float(success)
    return Trajectory(of.id, of.id, turns, Stop.DONE, reward, {"progress": reward, "format": 0.5}, (), success)


def put(folder: Path, of: Task, one: Trajectory, *, at: int, number: int) -> None:
    assignment = Assignment(number, of, "test", 0.0, "progress", 1)
    Store(folder).put(Group(assignment, (one,)), split="test", step=at)


def fake_run(folder: Path) -> Path:
    folder.mkdir()
    metrics = MetricsFile(folder, resumed_from=0)
    for number in range(1, STEPS + 1):
        metrics.step(step(number))
        if number % 8 == 0:
            results = {level: LevelResult(number / 30 / int(level), 0.3, 20) for level in LEVELS}
            metrics.validation(Validation(number, "basics", results))
    metrics.note("checkpoint after step 24")
    metrics.close()
    levels = {level: {"before": 0.1, "after": 0.6, "num_tasks": 20} for level in LEVELS}
    unknown = {"before": None, "after": 0.25, "num_tasks": 20}
    summary = {"levels": levels | {"4": unknown}, "seed": 7, "wall_s": 3900.0, "peak_memory_gb": 9.5}
    (folder / "summary.json").write_text(json.dumps(summary))
    record = {"step": 10, "stage": "everything", "kind": "advanced", "reason": "validation rose by 0.004 in 3"}
    (folder / "curriculum.json").write_text(json.dumps({"records": [record], "steps": {}}))
    for number, level in enumerate(LEVELS):
        for part, (before, after) in enumerate(((False, True), (False, False))):
            of = task(f"task-{level}-{part}", level)
            at = 2 * number + part
            put(folder, of, trajectory(of, success=before, text=f"Sorry {NASTY}"), at=0, number=at)
            put(folder, of, trajectory(of, success=after, text="Bought.", hints=("unknown_item",)), at=STEPS, number=at)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(fake_run(tmp_path_factory.mktemp("runs") / "demo"))


def test_the_page_shows_every_level_stage_note_and_conversation(report: Path) -> None:
    page = report.read_text()
    for level in LEVELS:
        assert f"<b>level {level}</b> · learnt (1 of its tasks)" in page
        assert f"<b>level {level}</b> · still failed (1 of its tasks)" in page
    assert page.count("+50.0 points") == 3
    for shown in ("validation rose by 0.004 in 3", "checkpoint after step 24", "1 h 05 min", "hint: unknown_item",
                  "<b>buy</b>(item=&#34;task-1-0&#34;, count=2)", "progress 1", "24 of 24 steps",
                  "<td class=\"number\">– ", "<b>25.0 %</b>"):  # fmt: skip
        assert shown in page
    assert 'class="gaps"' not in page


def test_what_the_model_wrote_is_text_and_the_page_asks_the_network_for_nothing(report: Path) -> None:
    page = report.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert 'src="http' not in page and "href=" not in page and "url(" not in page


def test_half_a_surrogate_pair_spoils_no_report(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "odd")
    of = task("odd", "1")
    call = Message("assistant", "", (ToolCall("buy", {"item": "\ud83d"}),))
    one = trajectory(of, success=True, text="x")
    one = replace(one, turns=(replace(one.turns[0], message=call), *one.turns[1:]))
    put(folder, of, one, at=0, number=99)
    put(folder, of, one, at=STEPS, number=99)
    assert "buy" in write_report(folder).read_text(encoding="utf-8")


def test_the_curves_are_a_picture_beside_the_page(report: Path) -> None:
    assert (report.parent / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_torn_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "demo")
    (run / "summary.json").write_text('{"levels": {"1": ')
    (run / "curriculum.json").write_text("[]")
    next(run.glob("trajectories/test/*.arrow")).write_bytes(b"ARROW1")
    page = write_report(run).read_text()
    for named in ("summary.json cannot be read", "curriculum.json cannot be read", "trajectories cannot be read"):
        assert named in page
    assert page.count(" points</td>") == 3
    assert "why everything" in page


def test_an_empty_run_whose_test_was_played_once_says_what_is_missing(tmp_path: Path) -> None:
    of = task("alone", "1")
    put(tmp_path, of, trajectory(of, success=True, text="ok"), at=0, number=0)
    page = write_report(tmp_path).read_text()
    for missing in ("has no step to draw", "summary.json is missing", "there are no conversations"):
        assert missing in page


def test_a_run_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run folder .*nowhere: give the folder of a run"):
        write_report(tmp_path / "nowhere")


def test_the_margin_is_wilsons() -> None:
    row = LevelRow("1", 100, 0.5, 0.0)
    assert row.margin(0.5) == "± 10"
    assert row.margin(0.0) == "± 2"
    assert replace(row, num_tasks=0).margin(0.5) == ""


def test_stage_spans_follow_a_return_to_a_stage() -> None:
    steps = [replace(step(number), stage=stage) for number, stage in enumerate("aabba", start=1)]
    assert stage_spans(steps) == [("a", 1, 2), ("b", 3, 4), ("a", 5, 5)]


def test_smoothing_looks_back_only_and_leaves_nan_out() -> None:
    assert smooth([1.0, 3.0, math.nan, 5.0], 2) == [1.0, 2.0, 3.0, 5.0]


def test_labels_keep_their_order_and_their_distance() -> None:
    assert spread([0.5, 0.1, 0.12], gap=0.1) == pytest.approx([0.5, 0.1, 0.2])
