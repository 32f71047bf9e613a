"""Publications for engines elsewhere: in a shared folder or an object store, whole or as what changed since the last one.

A part of an artefact is a shard's bytes XOR those of the version before (or of nothing), its even and odd bytes apart, by
chunks, compressed: after one step most 16-bit weights are what they were, and where one moved its upper byte seldom did.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray
from pyarrow import fs

from learner.publish import MANIFEST, Manifest, WeightsError, compare, manifest_of
from learner.weights import Weights

CHUNK = 16 << 20  # bytes of a shard that are compressed together; even
CODEC = pa.Codec("zstd", compression_level=1)
KEPT = 2  # chains: those of the newest whole version and of the one before, which slow readers may still follow


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the artefact, and the BLAKE3 that it must have."""

    file: str
    bytes: int
    blake3: str


@dataclass(frozen=True, slots=True)
class Record:
    """An artefact's manifest. `base` is what it changes, None where it is whole; `whole` the text of the full manifest."""

    version: int
    base: Weights | None
    whole: str
    parts: tuple[Part, ...]


class Depot:
    """Sends publications of this machine to `uri` (file:///..., s3://..., whatever pyarrow.fs opens).

    The first is whole, and then every `whole_every`th; a reader of the others needs those before, back to a whole one.
    """

    def __init__(self, uri: str, *, whole_every: int = 1) -> None:
        self._uri, self._whole_every = uri.rstrip("/"), whole_every
        self._local: Weights | None = None
        self._sent: Weights | None = None
        self._since_whole = 0
        self._wholes: list[int] = []
        self.sent_bytes = 0  # of the last one

    def send(self, local: Weights) -> Weights:
        """The receipt that engines elsewhere are given. The one sent before must still be there on this machine."""
        where = f"{self._uri}/v{local.version:06d}"
        system, path = fs.FileSystem.from_uri(where)
        text = (Path(local.where) / MANIFEST).read_text()
        base = self._base(local, text)
        system.create_dir(path)
        parts = tuple(self._parts(system, path, local, base=base))
        record = Record(local.version, self._sent if base else None, text, parts)
        content = json.dumps(asdict(record)).encode()
        with system.open_output_stream(f"{path}/{MANIFEST}") as file:
            file.write(content)
        self._since_whole = self._since_whole + 1 if base else 1
        if not base:
            self._wholes.append(local.version)
        self._local, self._sent = local, Weights(local.version, where, blake3(content).hexdigest())
        self.sent_bytes = sum(part.bytes for part in parts)
        self._remove_old(system, path.rpartition("/")[0])
        return self._sent

    def _base(self, local: Weights, text: str) -> Weights | None:
        """The version to tell the difference from, where there is one of the same form."""
        if self._local is None or self._since_whole >= self._whole_every:
            return None
        former = Path(self._local.where) / MANIFEST
        is_alike = former.is_file() and _form(manifest_of(former.read_bytes())) == _form(manifest_of(text.encode()))
        return self._local if is_alike and self._local.version != local.version else None

    def _parts(self, system: fs.FileSystem, path: str, local: Weights, *, base: Weights | None) -> Iterator[Part]:
        for shard in sorted(Path(local.where).glob("*.safetensors")):
            old = _mapped(Path(base.where) / shard.name) if base else None
            file, size, checksum = f"{shard.stem}.part", 0, blake3()
            with system.open_output_stream(f"{path}/{file}") as stream:
                for piece in encode(old, _mapped(shard)):
                    stream.write(piece)
                    checksum.update(piece)
                    size += len(piece)
            yield Part(file, size, checksum.hexdigest())

    def _remove_old(self, system: fs.FileSystem, folder: str) -> None:
        first = self._wholes[-KEPT] if len(self._wholes) >= KEPT else -1
        for found in system.get_file_info(fs.FileSelector(folder)):
            number = found.base_name.removeprefix("v")
            if number.isdigit() and int(number) < first:
                system.delete_dir(found.path)


class Replica:
    """A copy, in a folder of this machine, of what was sent to a depot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._origin: Weights | None = None
        self._local: Weights | None = None

    def bring(self, weights: Weights) -> Weights:
        """The same publication here, in place of the one before; one that no depot has is here already.

        WeightsError where what is there is not what was sent.
        """
        if "://" not in weights.where:
            return weights
        chain: list[tuple[Weights, Record]] = []
        at: Weights | None = weights
        while at is not None and at != self._origin:
            record = _record(at)
            chain.append((at, record))
            at = record.base
        for sent, record in reversed(chain):
            self._apply(sent, record)
        assert self._local is not None
        return self._local

    def forget(self) -> None:
        """Trust nothing that is here: the next one is brought whole."""
        self._origin = self._local = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _apply(self, sent: Weights, record: Record) -> None:
        former = self._local if record.base else None
        target = self._folder / f"v{record.version:06d}"
        scratch = target.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        system, path = fs.FileSystem.from_uri(sent.where)
        manifest = manifest_of(record.whole.encode())
        for part, shard in zip(record.parts, manifest.shards, strict=True):
            content = _checked(system, f"{path}/{part.file}", part)
            old = _mapped(Path(former.where) / shard.file) if former else None
            if old is not None and len(old) != shard.bytes:
                raise WeightsError(f"{former}: {shard.file} has {len(old)} bytes, not {shard.bytes}; bring it whole")
            with (scratch / shard.file).open("wb") as file:
                for piece in decode(old, content, shard.bytes):
                    file.write(piece.data)
        (scratch / MANIFEST).write_text(record.whole)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        if self._local is not None and self._local.where != str(target):
            shutil.rmtree(self._local.where, ignore_errors=True)
        self._origin, self._local = sent, Weights(record.version, str(target), blake3(record.whole.encode()).hexdigest())


def remove(uri: str) -> None:
    """Delete the depot, if it is there."""
    system, path = fs.FileSystem.from_uri(uri)
    if system.get_file_info(path).type is not fs.FileType.NotFound:
        system.delete_dir(path)


def encode(old: NDArray[np.uint8] | None, new: NDArray[np.uint8]) -> Iterator[bytes]:
    """What turns `old` (zeros without one) into `new`, both of the same length: pieces to be written on end."""

    def piece(start: int) -> bytes:
        change = new[start : start + CHUNK]
        if old is not None:
            change = change ^ old[start : start + CHUNK]
        packed = CODEC.compress(np.concatenate([change[0::2], change[1::2]]), asbytes=True)
        return len(packed).to_bytes(8, "little") + packed

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(piece, range(0, len(new), CHUNK))


def decode(old: NDArray[np.uint8] | None, content: bytes, size: int) -> Iterator[NDArray[np.uint8]]:
    """The `size` bytes that `encode` was given as `new`, by chunks."""

    def chunk(work: tuple[int, int, int]) -> NDArray[np.uint8]:
        start, begin, end = work
        length = min(CHUNK, size - start)
        halves = np.frombuffer(CODEC.decompress(content[begin:end], length, asbytes=True), np.uint8)
        found = np.empty(length, np.uint8)
        found[0::2], found[1::2] = halves[: (length + 1) // 2], halves[(length + 1) // 2 :]
        if old is not None:
            found ^= old[start : start + length]
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(chunk, _places(content, size))


def _places(content: bytes, size: int) -> Iterable[tuple[int, int, int]]:
    """Where each chunk begins in the shard, and where its compressed bytes begin and end."""
    at = 0
    for start in range(0, size, CHUNK):
        begin = at + 8
        at = begin + int.from_bytes(content[at:begin], "little")
        yield start, begin, at


def _mapped(path: Path) -> NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r")


def _form(manifest: Manifest) -> list[tuple[str, int]]:
    return [(shard.file, shard.bytes) for shard in manifest.shards]


def _record(weights: Weights) -> Record:
    """The artefact's manifest, read and verified."""
    system, path = fs.FileSystem.from_uri(weights.where)
    try:
        with system.open_input_stream(f"{path}/{MANIFEST}") as file:
            content = file.read()
    except OSError as error:
        raise WeightsError(f"version {weights.version} cannot be read: {error}") from error
    compare(weights.where, weights.checksum, _digest(content))
    found = json.loads(content)
    base = Weights(**found["base"]) if found["base"] else None
    return Record(found["version"], base, found["whole"], tuple(Part(**part) for part in found["parts"]))


def _checked(system: fs.FileSystem, path: str, part: Part) -> bytes:
    try:
        with system.open_input_stream(path) as file:
            content = file.read()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    compare(path, part.blake3, _digest(content))
    return content


def _digest(content: bytes) -> str:
    return blake3(content, max_threads=blake3.AUTO).hexdigest()
