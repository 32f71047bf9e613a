"""Files that are whole or not there: digests, syncing and renaming."""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3


def scratch_base() -> Path:
    """Where large files of a moment live: shared memory, where there is some."""
    return Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")


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
