"""Checkpoints of a run: written aside, sealed by a manifest of checksums, renamed. A kill leaves the one before intact."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from learner.errors import reason
from learner.estimate import GIB
from learner.files import digest, seal, sync

MANIFEST = "manifest.json"
log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that is not what its manifest says, or that could not be written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    path: Path


@contextmanager
def writing(folder: Path, step: int, *, keep: int) -> Iterator[Path]:
    """An empty folder for everybody to write this step's files into; at its end the checkpoint, of which `keep` stay.

    Where that fails nothing is left of it, those before stay, and CheckpointError tells the room on the disk: torch's own
    words for a full one do not.
    """
    scratch = begin(folder, step)
    try:
        yield scratch
        commit(scratch)
    except Exception as error:
        free = shutil.disk_usage(folder).free / GIB
        shutil.rmtree(scratch, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written ({reason(error)}); {free:.1f} GiB are free for {folder}, and "
            "the checkpoints before it are untouched"
        ) from error
    prune(folder, keep)


def begin(folder: Path, step: int) -> Path:
    """An empty folder for everybody to write this step's files into; what an earlier attempt left there is gone."""
    scratch = folder / f"step-{step:06d}.tmp"
    for left in folder.glob("step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def commit(scratch: Path) -> Checkpoint:
    """Seal what `begin` opened. Until this returns, the checkpoint before it is the latest.

    A checkpoint of that step from before a resume is replaced.
    """
    target = scratch.with_suffix("")
    sums = {str(path.relative_to(scratch)): digest(path) for path in _files(scratch)}
    (scratch / MANIFEST).write_text(json.dumps(sums, indent=1))
    if target.exists():
        target.rename(target.with_suffix(".old"))
    seal(scratch, target)
    shutil.rmtree(target.with_suffix(".old"), ignore_errors=True)
    return Checkpoint(_step(target), target)


def verify(path: Path) -> None:
    """CheckpointError names the first file that is missing, unlisted or damaged."""
    try:
        sums: dict[str, str] = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / MANIFEST} cannot be read: {error}") from error
    found = {str(file.relative_to(path)) for file in _files(path)}
    for name in sorted(found ^ sums.keys()):
        raise CheckpointError(f"{path / name} is {'not in the manifest' if name in found else 'missing'}")
    for name, expected in sums.items():
        if (actual := digest(path / name)) != expected:
            raise CheckpointError(f"{path / name}: its checksum should be {expected} and is {actual}")


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. A damaged one is skipped with a warning that names it."""
    for path in reversed(_committed(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            log.warning("checkpoint %s is skipped: %s", path.name, error)
        else:
            return Checkpoint(_step(path), path)
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what was never committed."""
    for path in [*_committed(folder)[:-keep], *folder.glob("step-*.tmp"), *folder.glob("step-*.old")]:
        shutil.rmtree(path, ignore_errors=True)
    sync(folder)


def _committed(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name[5:])


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST)
