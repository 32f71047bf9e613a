"""Files that are whole or not there: digests, syncing and renaming."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from blake3 import blake3


def scratch(name: str) -> Path:
    """A folder of this process's for large files of a moment, not made yet: in shared memory, where there is some.

    What processes that were killed left there is removed.
    """
    base = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")
    for left in base.glob("tiltyard-*-*"):
        owner = left.name.rsplit("-", 1)[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return base / f"tiltyard-{name}-{os.getpid()}"


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
