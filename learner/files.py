"""Files that are whole or not there: digests, syncing and renaming."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from pathlib import Path

from blake3 import blake3

BASE = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")
OWNED = re.compile(r"tiltyard-.+-([0-9a-f]{8})-(\d+)")
ABANDONED_S = 86_400.0


def scratch(name: str) -> Path:
    """A folder of this process's for large files of a moment, not made yet: in shared memory, where there is some.

    What processes that were killed left there is removed. A learner writes on its own machine into a folder that is named
    after the driver's process: of those only time tells.
    """
    here = blake3(platform.node().encode()).hexdigest()[:8]
    for left in BASE.glob("tiltyard-*"):
        if (found := OWNED.fullmatch(left.name)) and _is_left(left, *found.groups(), here=here):
            shutil.rmtree(left, ignore_errors=True)
    return BASE / f"tiltyard-{name}-{here}-{os.getpid()}"


def _is_left(folder: Path, machine: str, owner: str, *, here: str) -> bool:
    return not Path(f"/proc/{owner}").exists() if machine == here else _age_s(folder) > ABANDONED_S


def _age_s(folder: Path) -> float:
    """Since something was made or renamed in it."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:  # another process was first
        return 0.0


def digest(path: Path) -> str:
    """BLAKE3 of a file's content, by all cores."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() if path.stat().st_size else blake3().hexdigest()


def sync(path: Path) -> None:
    """Push a file, or a folder's list of names, down to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(scratch: Path, target: Path) -> None:
    """Sync everything below `scratch`, then give it its name: after a crash `target` is whole or not there."""
    for path in sorted(scratch.rglob("*"), reverse=True):
        sync(path)
    sync(scratch)
    scratch.rename(target)
    sync(target.parent)


def replace_text(path: Path, text: str) -> None:
    """The file has this text, or where it cannot be written what it had before."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)
