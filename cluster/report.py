"""A run's report: one HTML page that needs nothing else, and curves.png, made from the files in the run's folder."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pyarrow as pa

from cluster import curves
from cluster.console import duration, figure, percent
from cluster.metrics import FILE, History, read_history, wilson
from cluster.store import read
from envs.types import Json

TEMPLATE = "report.html.jinja"
OUTCOMES = {
    (False, True): "learnt", (True, False): "lost", (False, False): "still failed", (True, True): "still solved",
}  # fmt: skip
MAX_TEXT = 4000  # characters of one message: a page is read by people
COLUMNS = ("task_id", "level", "step", "reward", "parts", "success", "stop", "hints", "messages")
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class LevelRow:
    """One level's share of tasks solved on the same tasks before and after."""

    level: str
    num_tasks: int
    before: float
    after: float

    @property
    def change(self) -> str:
        points = 100 * (self.after - self.before)
        return f"{points:+.1f} points" if math.isfinite(points) else "–"

    def margin(self, share: float) -> str:
        """Half of Wilson's 95 % interval, so that nobody reads noise as progress."""
        if not self.num_tasks or not math.isfinite(share):
            return ""
        low, high = wilson(share, self.num_tasks)
        return f"± {50 * (high - low):.0f}"


@dataclass(frozen=True, slots=True)
class Summary:
    """What the run wrote at its end; `facts` are label and value."""

    levels: tuple[LevelRow, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StageChange:
    step: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a conversation as shown."""

    role: str
    content: str
    calls: tuple[Call, ...]
    malformed: str


@dataclass(frozen=True, slots=True)
class Episode:
    step: int
    reward: float
    parts: tuple[tuple[str, float], ...]
    success: bool
    stop: str
    hints: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same test task before and after; `count` is how many tasks of the level went the same way."""

    task_id: str
    level: str
    before: Episode
    after: Episode
    count: int = 0

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.before.success, self.after.success]


def write_report(run_folder: Path) -> Path:
    """Write report.html and curves.png into the run's folder. Missing or torn files are named on the page."""
    if not run_folder.is_dir():
        raise ValueError(f"there is no run folder {run_folder}: give the folder of a run, such as runs/<name>")
    gaps: list[str] = []
    history = read_history(run_folder)
    if not history.steps:
        gaps.append(f"{FILE} has no step to draw: the run ended before its first step, or the file is missing.")
    if history.num_unread:
        gaps.append(f"{FILE}: {history.num_unread} lines could not be read and are left out.")
    summary = _summary(run_folder, history, gaps)
    changes = _changes(run_folder, history, gaps)
    pairs = _pairs(run_folder, gaps)
    light = curves.draw(history, curves.LIGHT)
    (run_folder / "curves.png").write_bytes(curves.png(light))
    page = _template().render(
        name=run_folder.name,
        history=history,
        summary=summary,
        changes=changes,
        pairs=pairs,
        gaps=gaps,
        light=_inline(curves.svg(light)),
        dark=_inline(curves.svg(curves.draw(history, curves.DARK))),
    )
    path = run_folder / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")  # half a surrogate pair, say
    return path


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    environment.filters["figure"] = figure
    return environment.get_template(TEMPLATE)


def _inline(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _summary(folder: Path, history: History, gaps: list[str]) -> Summary:
    """From summary.json; without it, the first and last validation stand in for the final evaluation."""
    path = folder / "summary.json"
    if not path.exists():
        gaps.append("summary.json is missing: the run has not ended. The table shows its validations instead.")
        return Summary(_validated(history))
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        levels = tuple(
            LevelRow(str(level), int(row["num_tasks"]), _share(row["before"]), _share(row["after"]))
            for level, row in sorted(saved["levels"].items())
        )
        return Summary(levels, _facts(saved))
    except BROKEN as error:
        gaps.append(f"summary.json cannot be read ({error!r}). The table shows the validations instead.")
        return Summary(_validated(history))


def _share(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _facts(saved: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    if "seed" in saved:
        facts.append(("seed", str(saved["seed"])))
    if "wall_s" in saved:
        facts.append(("wall time", duration(float(saved["wall_s"]))))
    if "peak_memory_gb" in saved:
        facts.append(("peak memory", f"{float(saved['peak_memory_gb']):.1f} GB"))
    return tuple(facts)


def _validated(history: History) -> tuple[LevelRow, ...]:
    levels = sorted({level for it in history.validations for level in it.levels})
    past = {level: [it.levels[level] for it in history.validations if level in it.levels] for level in levels}
    return tuple(LevelRow(level, rows[-1].num_tasks, rows[0].success, rows[-1].success) for level, rows in past.items())


def _changes(folder: Path, history: History, gaps: list[str]) -> tuple[StageChange, ...]:
    """The curriculum's own record; without it, what the steps said of their stage."""
    path = folder / "curriculum.json"
    if path.exists():
        try:
            records = json.loads(path.read_text(encoding="utf-8"))["records"]
            return tuple(StageChange(int(it["step"]), str(it["stage"]), str(it["reason"])) for it in records)
        except BROKEN as error:
            gaps.append(f"curriculum.json cannot be read ({error!r}). Stages are told from the steps instead.")
    firsts = {first: stage for stage, first, _ in curves.stage_spans(history.steps)}
    return tuple(StageChange(it.step - 1, it.stage, it.stage_reason) for it in history.steps if it.step in firsts)


def _pairs(folder: Path, gaps: list[str]) -> tuple[Pair, ...]:
    """One pair per level and outcome, not the best ones only."""
    try:
        table = read(folder, columns=COLUMNS, split="test")
        last = max(table["step"].to_pylist(), default=0)
        before, after = _episodes(table, 0), _episodes(table, last)
        levels = dict(zip(table["task_id"].to_pylist(), table["level"].to_pylist(), strict=True))
    except BROKEN as error:
        gaps.append(f"The stored trajectories cannot be read ({error!r}), so there are no conversations.")
        return ()
    pairs = [Pair(task, levels[task], before[task], after[task]) for task in sorted(before) if last and task in after]
    if not pairs:
        gaps.append("No test task is stored from both before and after training, so there are no conversations.")
    return tuple(_chosen(pairs))


def _chosen(pairs: Sequence[Pair]) -> Iterator[Pair]:
    for level in sorted({pair.level for pair in pairs}):
        for outcome in OUTCOMES.values():
            alike = [pair for pair in pairs if pair.level == level and pair.outcome == outcome]
            if alike:
                yield replace(alike[0], count=len(alike))


def _episodes(table: pa.Table, step: int) -> dict[str, Episode]:
    return {
        row["task_id"]: Episode(
            step=row["step"],
            reward=row["reward"],
            parts=tuple(row["parts"]),
            success=row["success"],
            stop=row["stop"],
            hints=tuple(row["hints"]),
            lines=tuple(_line(message) for message in json.loads(row["messages"])),
        )
        for row in table.to_pylist()
        if row["step"] == step
    }


def _line(message: dict[str, Json]) -> Line:
    asked = message["calls"]
    calls = tuple(_call(call) for call in asked) if isinstance(asked, list) else ()
    return Line(str(message["role"]), _shown(str(message["content"])), calls, str(message["malformed"]))


def _call(call: Json) -> Call:
    """The call as `name(key=value)`: shorter to read than JSON."""
    if not isinstance(call, dict) or not isinstance(call["arguments"], dict):
        raise ValueError(f"a stored message has {str(call)[:80]!r} for a tool call")
    arguments = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in call["arguments"].items())
    return Call(str(call["name"]), _shown(", ".join(arguments)))


def _shown(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text) - MAX_TEXT} more characters)"
