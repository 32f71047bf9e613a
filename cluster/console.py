"""What a person sees while a run goes on: a live panel in a terminal, one plain line per step elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.breakdown import parts
from cluster.metrics import History, StepReport, Validation
from cluster.waits import Waits

BARS = "▁▂▃▄▅▆▇█"
PLAIN = (("reward", "rewards/mean"), ("success", "rewards/success"), ("loss", "learner/loss"),
         ("grad", "learner/grad_norm"), ("lag", "buffer/lag"))  # fmt: skip
SPEEDS = (("engine", "actors/tokens_per_s"), ("learner", "learner/tokens_per_s"))
HEALTH = (("loss", "learner/loss"), ("grad norm", "learner/grad_norm"), ("entropy", "actors/entropy"),
          ("logprob gap", "learner/logprob_gap"))  # fmt: skip
FLOW = (("lag", "buffer/lag"), ("filtered", "buffer/filtered"), ("stale", "buffer/stale"), ("hints", "actors/hints"))
NOT_PARTS = ("rewards/mean", "rewards/success")
REFRESHES_PER_S = 1
RECENT = 20  # steps whose mean duration makes the estimate
NUM_NOTES = 3
WORTH_TELLING = 0.05  # of a step's time


class PlainConsole:
    """One line per event, without control codes, for log files and pipes."""

    def __init__(self, stream: TextIO, history: History) -> None:
        self.stream = stream
        self.first = first_results(history)
        self.seconds = [report.seconds for report in history.steps[-RECENT:]]

    def step(self, report: StepReport) -> None:
        self.seconds = [*self.seconds, report.seconds][-RECENT:]
        words = [f"step {report.step}/{report.num_steps}", report.stage, *_figures(report, PLAIN)]
        words += [f"{speed} tok/s" for speed in _figures(report, SPEEDS)]
        left = (report.num_steps - report.step) * mean(self.seconds)
        self._line([*words, f"{report.seconds:.1f} s", *spent(report), f"eta {duration(left)}"])

    def validation(self, report: Validation) -> None:
        words = [f"level {level} {change(self.first.get(level), it.success)}" for level, it in report.levels.items()]
        self.first = {level: it.success for level, it in report.levels.items()} | self.first
        self._line([f"validation after step {report.step}", report.stage, *words])

    def note(self, text: str) -> None:
        self._line([text])

    def close(self) -> None:
        self.stream.flush()

    def _line(self, words: Sequence[str]) -> None:
        print(printable("  ".join(words)), file=self.stream, flush=True)


class LiveConsole:
    """A panel that is drawn over itself; what others print scrolls above it."""

    def __init__(self, run: str, history: History, *, waits: Waits, total_steps: int, console: Console | None = None) -> None:
        self.run = run
        self.waits = waits
        self.total_steps = total_steps
        self.started = time.monotonic()
        self.steps = list(history.steps)
        self.validations = list(history.validations)
        self.notes = [note.text for note in history.notes]
        self.live = Live(self, console=console, refresh_per_second=REFRESHES_PER_S, transient=False)
        self.live.start()

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def validation(self, report: Validation) -> None:
        self.validations.append(report)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.live.stop()

    def __rich__(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column(overflow="fold")
        self._progress(grid)
        if self.steps:
            self._step(grid, self.steps[-1])
        self._levels(grid)
        for wait in self.waits.now():
            grid.add_row("waiting", Text(printable(f"{wait.part} for {wait.what}, {duration(wait.seconds)}")))
        for text in self.notes[-NUM_NOTES:]:
            grid.add_row("note", Text(printable(text), style="dim"))
        return Panel(Group(grid), title=Text(f"tiltyard  {self.run}", style="bold"), border_style="blue")

    def _progress(self, grid: Table) -> None:
        done = self.steps[-1].step if self.steps else 0
        left = (self.total_steps - done) * mean([report.seconds for report in self.steps[-RECENT:]])
        elapsed = duration(time.monotonic() - self.started)
        row = Table.grid(padding=(0, 2))
        eta = f"eta {duration(left)}" if self.steps else "first step under way"
        row.add_row(
            Text(f"{done}/{self.total_steps}", style="bold"),
            ProgressBar(total=max(self.total_steps, 1), completed=done, width=24),
            Text(f"elapsed {elapsed}   {eta}"),
        )
        grid.add_row("step", row)

    def _step(self, grid: Table, report: StepReport) -> None:
        metrics = report.metrics
        reason = Text(f"  {printable(report.stage_reason)}", style="dim")
        grid.add_row("stage", Text(printable(report.stage), style="bold") + reason)
        rewards = [it.metrics.get("rewards/mean", math.nan) for it in self.steps]
        success = f"  success {percent(metrics['rewards/success'])}" if "rewards/success" in metrics else ""
        head = Text(f"{figure(metrics.get('rewards/mean', math.nan))}  ", style="bold green")
        grid.add_row("reward", head + Text(sparkline(rewards), style="green") + Text(success))
        parts = [(key.split("/", 1)[1], key) for key in metrics if key.startswith("rewards/") and key not in NOT_PARTS]
        for label, rows, unit in (("parts", parts, ""), ("learner", HEALTH, ""), ("flow", FLOW, ""),
                                  ("tok/s", SPEEDS, "")):  # fmt: skip
            figures = _figures(report, rows)
            if figures:
                grid.add_row(label, Text(printable("   ".join(word + unit for word in figures))))
        if times := spent(report):
            grid.add_row("time", Text(f"{report.seconds:.1f} s   " + "   ".join(times)))

    def _levels(self, grid: Table) -> None:
        if not self.validations:
            return
        first = first_results(History(validations=tuple(self.validations)))
        for level, result in self.validations[-1].levels.items():
            past = [it.levels[level].success for it in self.validations if level in it.levels]
            words = Text(printable(f"level {level}  {change(first.get(level), result.success)}  "))
            grid.add_row("validation", words + Text(sparkline(past), style="cyan"))


def first_results(history: History) -> dict[str, float]:
    """Each level's success at its first validation."""
    results: dict[str, float] = {}
    for validation in history.validations:
        results = {level: it.success for level, it in validation.levels.items()} | results
    return results


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The values as bars of eight heights, the mean of each of at most `width` equal slices; NaN is left out."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    width = min(width, len(finite))
    cuts = [len(finite) * cell // width for cell in range(width + 1)]
    means = [mean(finite[cut:end]) for cut, end in zip(cuts, cuts[1:], strict=False)]
    low, high = min(means), max(means)
    if high - low < 1e-9:
        return BARS[len(BARS) // 2] * width
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in means)


def duration(seconds: float) -> str:
    """Seconds in words as short as 42 s, 3 min 07 s, 2 h 05 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def spent(report: StepReport) -> list[str]:
    """What most of the step's wall time went to, such as "engine 58 %"."""
    shares = {name: seconds / report.seconds for name, seconds in parts(report.metrics).items() if report.seconds}
    return [f"{name} {share:.0%}".replace("%", " %") for name, share in shares.items() if share >= WORTH_TELLING]


def figure(value: float) -> str:
    """Three significant digits, whole numbers from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def change(before: float | None, now: float) -> str:
    return percent(now) if before is None else f"{percent(before)} → {percent(now)}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def printable(text: str) -> str:
    """Text that cannot move the cursor or colour the terminal: control characters become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def _figures(report: StepReport, rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{label} {figure(report.metrics[key])}" for label, key in rows if key in report.metrics]
