"""A run's curves as one picture: reward and success over stages, validation per level, time, the learner's health."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

from cluster.metrics import History, StepReport

# What overlaps with learning does not show; "rest" is validation, checkpoints and more.
PHASES = (("engine", ("engine",)), ("environment, reward", ("environment", "reward", "actor")),
          ("learn", ("assemble", "passes", "optimizer", "transfer")), ("publish", ("publish", "load")))  # fmt: skip
HEALTH = (("gradient norm", "learner/grad_norm"), ("entropy", "actors/entropy"),
          ("logprob gap, engine to learner", "learner/logprob_gap"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Palette:
    """`series` are told apart by lightness too, for readers who do not see all colours."""

    paper: str
    ink: str
    faint: str
    rule: str
    bands: tuple[str, ...]
    series: tuple[str, ...]


LIGHT = Palette("#ffffff", "#1f2933", "#6b7785", "#e3e7eb", ("#eef2f6", "#f8fafb"),
                ("#1f5fa8", "#c46a1b", "#2f8a63", "#8459a6", "#b3424a"))  # fmt: skip
DARK = Palette("#161b22", "#e2e8ef", "#94a1b0", "#2c3440", ("#1e2630", "#19202a"),
               ("#74aeea", "#eaa25c", "#6ccb9f", "#bf9ce0", "#e98a90"))  # fmt: skip


def draw(history: History, palette: Palette) -> Figure:
    """The picture; panels without figures say so."""
    style: dict[RcKeyType, object] = {
        "font.size": 9, "text.color": palette.ink, "axes.labelcolor": palette.faint, "axes.edgecolor": palette.rule,
        "xtick.color": palette.faint, "ytick.color": palette.faint, "axes.spines.top": False,
        "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 9.4), dpi=140, facecolor=palette.paper, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(3, 6, height_ratios=(1.25, 1, 0.72))
        _learning(figure.add_subplot(grid[0, :]), history.steps, palette)
        _validation(figure.add_subplot(grid[1, :3]), history, palette)
        _seconds(figure.add_subplot(grid[1, 3:]), history.steps, palette)
        for column, (title, key) in enumerate(HEALTH):
            axes = figure.add_subplot(grid[2, 2 * column : 2 * column + 2])
            _health(axes, history.steps, palette, title=title, key=key)
        figure.get_layout_engine().set(h_pad=0.09, w_pad=0.08, hspace=0.04)  # type: ignore[union-attr]
    return figure


def png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figures: neither date nor random ids."""
    file = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "tiltyard"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _learning(axes: Axes, steps: Sequence[StepReport], palette: Palette) -> None:
    _frame(axes, "Reward and success in training", palette)
    for number, (stage, first, last) in enumerate(stage_spans(steps)):
        axes.axvspan(first - 0.5, last + 0.5, color=palette.bands[number % 2], linewidth=0, zorder=0)
        axes.annotate(stage, (first - 0.5, 1), (5, -5), xycoords=("data", "axes fraction"), textcoords="offset points",
                      va="top", color=palette.faint, fontsize=8.5)  # fmt: skip
    drawn = [
        _smooth_line(axes, steps, key, color=color, label=label)
        for label, key, color in (
            ("reward", "rewards/mean", palette.series[0]),
            ("success", "rewards/success", palette.series[1]),
        )
    ]
    if steps:
        axes.set_xlim(steps[0].step - 0.5, steps[-1].step + 0.5)
        axes.margins(y=0.16)
    _finish(axes, palette, any(drawn))


def _validation(axes: Axes, history: History, palette: Palette) -> None:
    _frame(axes, "Validation: tasks solved", palette)
    levels = sorted({level for it in history.validations for level in it.levels})
    ends: dict[str, tuple[int, float, str]] = {}
    for number, level in enumerate(levels):
        points = [(it.step, it.levels[level].success) for it in history.validations if level in it.levels]
        color = palette.series[number % len(palette.series)]
        axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1.8)
        ends[level] = (*points[-1], color)
    places = spread([success for _, success, _ in ends.values()], gap=0.075)
    for (level, (step, _, color)), place in zip(ends.items(), places, strict=True):
        axes.annotate(f"level {level}", (step, place), (9, 0), textcoords="offset points", va="center", color=color,
                      fontsize=8.5, annotation_clip=False)  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.03, 1.03)
    _finish(axes, palette, bool(levels))


def _seconds(axes: Axes, steps: Sequence[StepReport], palette: Palette) -> None:
    _frame(axes, "Seconds per step", palette)
    spent = [[sum(_part(step, f"cluster/{name}_s") for name in names) for step in steps] for _, names in PHASES]
    rest = [max(it.seconds - sum(known), 0.0) for it, *known in zip(steps, *spent, strict=True)]
    if steps:
        colors = (*palette.series[: len(PHASES)], palette.faint)
        labels = (*(label for label, _ in PHASES), "rest")
        numbers = [step.step for step in steps]
        axes.stackplot(numbers, *spent, rest, colors=colors, labels=labels, alpha=0.85, linewidth=0, step="mid")
        axes.set_xlim(numbers[0], max(numbers[-1], numbers[0] + 1))
    _finish(axes, palette, bool(steps))


def _health(axes: Axes, steps: Sequence[StepReport], palette: Palette, *, title: str, key: str) -> None:
    _frame(axes, title, palette, size=9.5)
    drawn = _smooth_line(axes, steps, key, color=palette.series[3])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _finish(axes, palette, drawn)


def stage_spans(steps: Sequence[StepReport]) -> list[tuple[str, int, int]]:
    """Each run of steps in one stage: its name, first and last step."""
    spans: list[tuple[str, int, int]] = []
    for report in steps:
        if spans and spans[-1][0] == report.stage:
            spans[-1] = (report.stage, spans[-1][1], report.step)
        else:
            spans.append((report.stage, report.step, report.step))
    return spans


def smooth(values: Sequence[float], width: int) -> list[float]:
    """The mean of the last `width` values at each place; NaN stays out of it."""
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    finite = ([value for value in window if math.isfinite(value)] for window in windows)
    return [sum(window) / len(window) if window else math.nan for window in finite]


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """The places moved up as little as makes them `gap` apart, in the order given."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda index: places[index])
    for lower, upper in zip(order, order[1:], strict=False):
        moved[upper] = max(moved[upper], moved[lower] + gap)
    return moved


def _smooth_line(axes: Axes, steps: Sequence[StepReport], key: str, *, color: str, label: str = "_") -> bool:
    points = {it.step: it.metrics[key] for it in steps if key in it.metrics}
    if not any(math.isfinite(value) for value in points.values()):
        return False
    width = max(1, len(points) // 10)
    axes.plot(list(points), list(points.values()), color=color, alpha=0.3, linewidth=0.9)
    axes.plot(list(points), smooth(list(points.values()), width), color=color, linewidth=2, label=label)
    return True


def _part(step: StepReport, key: str) -> float:
    value = step.metrics.get(key, 0.0)
    return value if math.isfinite(value) else 0.0


def _frame(axes: Axes, title: str, palette: Palette, *, size: float = 11) -> None:
    axes.set_facecolor(palette.paper)
    axes.set_title(title, loc="left", fontsize=size, fontweight="bold", color=palette.ink, pad=9)
    axes.grid(axis="y", color=palette.rule, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _finish(axes: Axes, palette: Palette, drawn: bool) -> None:
    if not drawn:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color=palette.faint)
        axes.set_yticks([])
        axes.set_xticks([])
        return
    axes.set_xlabel("step", fontsize=8.5)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, frameon=False, fontsize=8.5, ncols=len(labels), labelcolor=palette.ink,
                    loc="lower right", bbox_to_anchor=(1.01, 0.99), borderaxespad=0, handlelength=1.1,
                    handletextpad=0.5, columnspacing=1.1)  # fmt: skip
