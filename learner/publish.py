"""Publications of weights: written aside, verified, renamed; read back only where every checksum agrees."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from learner.files import digest, seal
from learner.weights import Weights

MANIFEST = "manifest.json"
MAX_SHARD_BYTES = 2 << 30


class WeightsError(RuntimeError):
    """A publication that is not what its receipt says."""


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Shard:
    file: str
    bytes: int
    blake3: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    version: int
    shards: tuple[Shard, ...]


def publish(tensors: Iterable[tuple[str, torch.Tensor]], version: int, folder: str, *, keep: int = 2) -> Weights:
    """Write the tensors as `folder`/v000000, each storage once, and remove the versions up to `version - keep`.

    The version that goes is written over where nobody holds it: fresh pages cost more than what is written into them.
    The receipt's checksum is the manifest's BLAKE3, and the manifest has each shard's. Publishing the same again is
    allowed; other content under the same version is a WeightsError.
    """
    target = Path(folder) / f"v{version:06d}"
    scratch = target.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    _begin(scratch, target.parent / f"v{version - keep:06d}")
    shards = tuple(_write(scratch / f"{i:03d}.safetensors", part) for i, part in enumerate(_parts(tensors)))
    _drop_others(scratch, shards)
    text = json.dumps(asdict(Manifest(version, shards)), indent=1).encode()
    (scratch / MANIFEST).write_bytes(text)
    weights = Weights(version, str(target), blake3(text).hexdigest())
    if target.exists():
        shutil.rmtree(scratch)
        verify(weights)
    else:
        seal(scratch, target)
    _remove_old(target.parent, version - keep)
    return weights


def hold(weights: Weights) -> IO[bytes]:
    """Nobody writes over this version until the file that is returned is closed. WeightsError where it is gone."""
    try:
        file = (Path(weights.where) / MANIFEST).open("rb")
    except OSError as error:
        raise WeightsError(f"version {weights.version} cannot be read: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise WeightsError(f"version {weights.version} is being written over; load a newer one") from error
    except OSError:
        pass  # a file system without locks, where nothing is written over
    return file


def verify(weights: Weights) -> Manifest:
    """Read every byte again. WeightsError names the file, the checksum it should have and the one it has."""
    folder = Path(weights.where)
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise WeightsError(f"version {weights.version} cannot be read: {error}") from error
    compare(folder / MANIFEST, weights.checksum, blake3(text).hexdigest())
    manifest = manifest_of(text)
    for shard in manifest.shards:
        path = folder / shard.file
        compare(path, shard.blake3, digest(path) if path.is_file() else "no file")
    return manifest


def read(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """The verified tensors. They are views of the mapped file: valid while it is held, not to be written."""
    for shard in verify(weights).shards:
        with safe_open(Path(weights.where) / shard.file, "pt") as file:
            for tensor in shard.tensors:
                yield tensor.name, file.get_tensor(tensor.name)


def _parts(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    part: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    size = 0
    for name, tensor in tensors:
        # A tied tensor shares its storage. Addresses are compared only while `part` keeps their tensors alive.
        key = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and key in seen:
            continue
        if part and size + tensor.nbytes > MAX_SHARD_BYTES:
            yield part
            part, seen, size = {}, set(), 0
        part[name] = tensor.detach()
        seen.add(key)
        size += tensor.nbytes
    yield part


def _begin(scratch: Path, oldest: Path) -> None:
    """Make the folder to write in: of the oldest version's files, or empty where a reader holds them."""
    try:
        with (oldest / MANIFEST).open("rb+") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            oldest.rename(scratch)
    except OSError:  # there is none, it is held, or the file system knows no locks
        scratch.mkdir(parents=True)


def _drop_others(scratch: Path, shards: Iterable[Shard]) -> None:
    for path in set(scratch.glob("*.safetensors")) - {scratch / shard.file for shard in shards}:
        path.unlink()


def _write(path: Path, part: dict[str, torch.Tensor]) -> Shard:
    here = {name: tensor.cpu().contiguous() for name, tensor in part.items()}
    if (places := _places(path, here)) is not None:
        with path.open("rb+", buffering=0) as file:
            for name, place in places.items():
                file.seek(place)
                file.write(_bytes(here[name]).data)
    else:
        path.unlink(missing_ok=True)
        save_file(here, path)
        path.chmod(0o644)
        places = _places(path, here)
    if places is None:
        raise WeightsError(f"{path} reads back other than it was written; is the disk full or failing?")
    listed = tuple(Tensor(name, tuple(x.shape), str(x.dtype).removeprefix("torch.")) for name, x in here.items())
    return Shard(path.name, path.stat().st_size, _meant(path, here, places), listed)


def _places(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, int] | None:
    """Where in the file each tensor's bytes begin, in that order; None unless it holds these very names, types and shapes."""
    try:
        with safe_open(path, "pt") as file:
            there = {name: file.get_tensor(name) for name in file.keys()}
        if {name: (t.dtype, t.shape) for name, t in there.items()} != {name: (t.dtype, t.shape) for name, t in tensors.items()}:
            return None
        with path.open("rb") as file:
            # The format: eight bytes tell the length of a JSON header, which tells where each tensor's bytes begin after it.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (OSError, ValueError, SafetensorError):
        return None
    places = {name: 8 + length + header[name]["data_offsets"][0] for name in tensors}
    return dict(sorted(places.items(), key=lambda item: item[1]))


def _meant(path: Path, tensors: Mapping[str, torch.Tensor], places: Mapping[str, int]) -> str:
    """The BLAKE3 that the file must have, from the tensors themselves: whoever reads it finds what the disk did to it."""
    with path.open("rb") as file:
        whole = blake3(file.read(min(places.values(), default=-1)), max_threads=blake3.AUTO)
    for name in places:
        whole.update(_bytes(tensors[name]).data)
    return whole.hexdigest()


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    return tensor.flatten().view(torch.uint8).numpy()


def manifest_of(text: bytes) -> Manifest:
    """The manifest that this is the text of."""
    document = json.loads(text)
    shards = (
        Shard(
            shard["file"],
            shard["bytes"],
            shard["blake3"],
            tuple(Tensor(tensor["name"], tuple(tensor["shape"]), tensor["dtype"]) for tensor in shard["tensors"]),
        )
        for shard in document["shards"]
    )
    return Manifest(document["version"], tuple(shards))


def compare(path: Path | str, expected: str, found: str) -> None:
    """Raise WeightsError, with the file and both checksums, unless they are equal."""
    if expected != found:
        raise WeightsError(f"{path}: its checksum should be {expected} and is {found}; publish the version again")


def _remove_old(folder: Path, last: int) -> None:
    for path in folder.glob("v??????"):
        if path.name[1:].isdigit() and int(path.name[1:]) <= last:
            shutil.rmtree(path, ignore_errors=True)
