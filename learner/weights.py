"""A publication: an immutable, versioned artefact on disk or in shared memory, and its receipt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """The receipt of a publication. `where` is a folder of safetensors shards and a manifest; `checksum` is the manifest's."""

    version: int
    where: str
    checksum: str
