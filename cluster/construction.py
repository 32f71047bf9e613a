"""One construction: its questions taken through the stages, a journal of what is done, and the folder that comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.codec import dumps, loads
from cluster.config import ConfigError
from cluster.remote import LocalSpawn, RaySpawn, Resources, Spawn
from envs.construct.pipeline import STAGES, Advance, Builder, Record, Usage
from envs.construct.records import Built, Question, Rejected
from envs.constructed.tasks import FILE, SPLITS, line
from envs.endpoint import EndpointError
from envs.types import Json

JOURNAL, REJECTED, MANIFEST = "journal.jsonl", "rejected.jsonl", "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """`shares` of train, validation and test; `parallel` questions are worked on at once."""

    author: str
    model: str
    shares: tuple[int, ...]
    parallel: int

    def __post_init__(self) -> None:
        if len(self.shares) != len(SPLITS) or min(self.shares) < 0 or not self.shares[0]:
            raise ConfigError(f"--shares {self.shares}: give three numbers for {', '.join(SPLITS)}, the first above 0")

    def split(self, position: int) -> str:
        """Of the question at this place; four neighbours, which may be of the four kinds, stay together."""
        at = (position // 4) % sum(self.shares)
        return SPLITS[0] if at < self.shares[0] else SPLITS[1] if at < self.shares[0] + self.shares[1] else SPLITS[2]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a construction came to; `rejected` counts by stage, `kinds` the accepted."""

    kinds: dict[str, int]
    rejected: dict[str, int]
    usage: Usage

    @property
    def text(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        at = ", ".join(f"{count} at {stage}" for stage, count in sorted(self.rejected.items()))
        accepted, refused = sum(self.kinds.values()), sum(self.rejected.values())
        return f"{accepted} environments ({kinds or 'none'}), {refused} rejected{f' ({at})' if at else ''}"


class Builders:
    """Ray actors, or one builder in this process; one that dies is replaced, and what it was at is begun again."""

    def __init__(self, make: Callable[[], Builder], num_actors: int) -> None:
        self._make, self._names = make, count()
        self._spawn: Spawn = RaySpawn("construct") if num_actors else LocalSpawn()
        self._resources = Resources(1.0 if num_actors else 0.0)
        self._builders = [self._start() for _ in range(max(num_actors, 1))]

    async def advance(self, number: int, id: str, stage: str, record: Record) -> Advance:
        """Raises EndpointError, and what a builder's process died of the third time."""
        place = number % len(self._builders)
        for deaths_left in (2, 1, 0):
            builder = self._builders[place]
            try:
                return await builder.advance(id, stage, record)
            except Exception as error:
                if isinstance(error, EndpointError) or not deaths_left:
                    raise
                if self._builders[place] is builder:  # others may have met the same death
                    self._builders[place] = self._start()
        raise AssertionError("the last death is raised")

    def _start(self) -> Builder:
        return self._spawn(self._make, f"builder-{next(self._names)}", resources=self._resources)


class Construction:
    """In a folder. What its journal has is not done again; once all is done the journal goes and a manifest stands."""

    def __init__(self, folder: Path, settings: Settings, questions: Sequence[Question]) -> None:
        """Raises ConfigError where the folder holds another construction."""
        self._folder, self._settings, self._questions = folder, settings, questions
        text = dumps(list(questions)) + json.dumps([settings.author, settings.model, settings.shares, FORMAT])
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._records: dict[str, Record | Rejected] = {question.id: question for question in questions}
        self._next = dict.fromkeys(self._records, 0)
        self._usage = Usage()
        self.summary = self._finished()

    async def run(self, make: Callable[[], Builder], num_actors: int) -> Summary:
        """All questions, by as many Ray actors, or in this process. Raises EndpointError; what is done by then is kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._read_journal()
        builders = Builders(make, num_actors)
        with (self._folder / JOURNAL).open("a", encoding="utf-8") as journal, _progress() as bar:
            left = asyncio.Semaphore(self._settings.parallel)
            shown = bar.add_task("environments", total=len(self._questions), completed=sum(map(self._is_done, self._records)))

            async def work(number: int, id: str) -> None:
                async with left:
                    await self._take(builders, number, id, journal)
                bar.advance(shown)

            try:
                async with asyncio.TaskGroup() as tasks:
                    for number, id in enumerate(id for id in self._records if not self._is_done(id)):
                        tasks.create_task(work(number, id))
            except* EndpointError as failed:
                raise EndpointError(str(failed.exceptions[0])) from failed
        return self._finish()

    async def _take(self, builders: Builders, number: int, id: str, journal: TextIO) -> None:
        """One question through the stages that are left for it."""
        for stage in list(STAGES)[self._next[id] :]:
            record = self._records[id]
            if isinstance(record, Rejected):
                return
            advance = await builders.advance(number, id, stage, record)
            journal.write(_entry(advance) + "\n")
            journal.flush()
            self._note(advance)

    def _note(self, advance: Advance) -> None:
        self._records[advance.id] = advance.record
        self._next[advance.id] = list(STAGES).index(advance.stage) + 1
        self._usage += advance.usage

    def _is_done(self, id: str) -> bool:
        return isinstance(self._records[id], Rejected) or self._next[id] == len(STAGES)

    def _read_journal(self) -> None:
        """Raises ConfigError where it is another construction's."""
        path = self._folder / JOURNAL
        if not path.exists() or not path.read_bytes().strip():
            path.write_text(json.dumps({"key": self._key}) + "\n")
            return
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a line cut off by a kill is done again
        first, *entries = whole.split("\n")[:-1]
        if json.loads(first)["key"] != self._key:
            raise ConfigError(f"{self._folder} holds another construction, begun; name another folder by --out, or delete it")
        path.write_text(whole, encoding="utf-8")
        for entry in entries:
            self._note(_advance(entry))

    def _finished(self) -> Summary | None:
        path = self._folder / MANIFEST
        if not path.exists():
            return None
        manifest = json.loads(path.read_text())
        if manifest["key"] != self._key:
            raise ConfigError(f"{self._folder} holds another construction; name another folder by --out, or delete it")
        for name, written in manifest["sha256"].items():
            file = self._folder / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != written:
                raise ConfigError(f"{file} is not as it was written; delete {self._folder} to build it anew")
        return Summary(manifest["accepted"], manifest["rejected"], Usage(**manifest["usage"]))

    def _finish(self) -> Summary:
        built = [(at, self._records[question.id]) for at, question in enumerate(self._questions)]
        entries = [line(one, self._settings.split(at)) for at, one in built if isinstance(one, Built)]
        rejected = [asdict(one) for _, one in built if isinstance(one, Rejected)]
        kinds = Counter(str(entry["data_source"]) for entry in entries)
        summary = Summary(
            dict(sorted(kinds.items())), dict(sorted(Counter(one["stage"] for one in rejected).items())), self._usage
        )
        hashes = {name: self._write(name, lines) for name, lines in ((FILE, entries), (REJECTED, rejected))}
        manifest = {
            "format": FORMAT, "key": self._key, "author": self._settings.author, "model": self._settings.model,
            "questions": len(self._questions), "accepted": summary.kinds, "rejected": summary.rejected,
            "usage": asdict(self._usage), "sha256": hashes,
        }  # fmt: skip
        temporary = self._folder / f"{MANIFEST}.new"
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
        temporary.rename(self._folder / MANIFEST)
        (self._folder / JOURNAL).unlink()
        return summary

    def _write(self, name: str, lines: Sequence[dict[str, Json]]) -> str:
        """Its hash."""
        body = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode()
        (self._folder / name).write_bytes(body)
        return hashlib.sha256(body).hexdigest()


def _entry(advance: Advance) -> str:
    is_rejected = isinstance(advance.record, Rejected)
    head = [advance.id, advance.stage, is_rejected, asdict(advance.usage)]
    return json.dumps([*head, dumps(advance.record)], ensure_ascii=False)


def _advance(text: str) -> Advance:
    id, stage, is_rejected, usage, record = json.loads(text)
    return Advance(id, stage, loads(Rejected if is_rejected else STAGES[stage], record), Usage(**usage))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
