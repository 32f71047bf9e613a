"""What the console writes, to a pipe and to a terminal."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cluster.console import BARS, LiveConsole, PlainConsole, duration, figure, printable, sparkline
from cluster.metrics import History, LevelResult, StepReport, Validation
from cluster.waits import Waits

METRICS = {"rewards/mean": 0.4123, "rewards/success": 0.25, "rewards/format": 0.9, "buffer/lag": 1.0,
           "actors/tokens_per_s": 812.4, "learner/tokens_per_s": 401.0, "learner/loss": 0.0123}  # fmt: skip


def step(number: int, reward: float = 0.4123) -> StepReport:
    return StepReport(number, 10, number, "basics", "first", 30.0, {**METRICS, "rewards/mean": reward})


def validation(number: int, success: float) -> Validation:
    return Validation(number, "basics", {"1": LevelResult(success, 0.5, 20)})


def test_a_pipe_gets_one_plain_line_per_event() -> None:
    stream = io.StringIO()
    console = PlainConsole(stream, History())
    console.validation(validation(0, 0.2))
    console.step(step(1))
    console.validation(validation(1, 0.45))
    console.note("checkpoint \x1b[31mred")
    console.close()
    assert stream.getvalue().splitlines() == [
        "validation after step 0  basics  level 1 20.0 %",
        "step 1/10  basics  reward 0.412  success 0.25  loss 0.0123  lag 1  engine 812 tok/s  learner 401 tok/s"
        "  30.0 s  eta 4 min 30 s",
        "validation after step 1  basics  level 1 20.0 % → 45.0 %",
        "checkpoint  [31mred",
    ]


def test_a_resumed_run_compares_with_the_first_validation_of_all() -> None:
    stream = io.StringIO()
    PlainConsole(stream, History(validations=(validation(0, 0.1), validation(5, 0.2)))).validation(validation(10, 0.3))
    assert "10.0 % → 30.0 %" in stream.getvalue()


def drawn(console: LiveConsole) -> str:
    screen = Console(file=io.StringIO(), width=110, record=True)
    screen.print(console)
    return screen.export_text()


@pytest.fixture
def live() -> LiveConsole:
    quiet = Console(file=io.StringIO(), force_terminal=True, width=110)
    console = LiveConsole("demo[bold]", History(), waits=Waits(), total_steps=10, console=quiet)
    console.close()
    return console


def test_the_panel_shows_the_run_before_its_first_step(live: LiveConsole) -> None:
    live.waits.set("learner", "groups 5/8")
    text = drawn(live)
    assert "demo[bold]" in text and "0/10" in text and "first step under way" in text
    assert "learner for groups 5/8" in text


def test_the_panel_shows_step_parts_levels_and_notes(live: LiveConsole) -> None:
    for number, reward in enumerate((0.0, 2.0, 4.0, 6.0, 7.0), start=1):
        live.step(step(number, reward=reward))
    live.validation(validation(0, 0.2))
    live.validation(validation(5, 0.45))
    live.note("engine-0 was replaced [/red]")
    text = drawn(live)
    for shown in ("5/10", "eta 2 min 30 s", "basics", "▁▃▅▇█", "format 0.9", "success 25.0 %",
                  "engine 812", "level 1  20.0 % → 45.0 %  ▁█", "engine-0 was replaced [/red]"):  # fmt: skip
        assert shown in text


def test_a_wait_ends_when_it_is_said_to(live: LiveConsole) -> None:
    live.waits.set("engines", "weights v12")
    live.waits.set("engines", "")
    assert "weights v12" not in drawn(live)


def test_a_wait_keeps_its_start_until_what_it_waits_for_changes() -> None:
    waits = Waits()
    waits.set("learner", "groups 5/8")
    first = waits.now()[0]
    waits.set("learner", "groups 5/8")
    assert waits.now() == (first,)
    waits.set("learner", "groups 6/8")
    assert waits.now()[0].what == "groups 6/8" and waits.now()[0].since >= first.since


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=200), st.integers(1, 40))
def test_a_sparkline_is_never_wider_than_asked_and_has_bars_only(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, sum(math.isfinite(value) for value in values))
    assert set(line) <= set(BARS)


@given(st.text())
def test_no_text_can_steer_the_terminal(text: str) -> None:
    clean = printable(text)
    assert len(clean) == len(text) and clean.isprintable()


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (187, "3 min 07 s"), (7500, "2 h 05 min")]
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(0.41234, "0.412"), (1234.5, "1234"), (math.nan, "nan"), (7, "7")])
def test_figures_have_three_digits(value: float, words: str) -> None:
    assert figure(value) == words
