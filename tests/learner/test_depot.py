"""A depot: what is brought is what was published, whichever way it came, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from learner import depot as module
from learner.depot import Depot, Replica, decode, encode, remove
from learner.publish import WeightsError, publish, read, verify
from learner.weights import Weights

SIZE = 1 << 16


def tensors(version: int) -> dict[str, torch.Tensor]:
    """16-bit weights of which a twentieth moves a little with every version, as an optimiser's step moves them."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(SIZE, generator=generator).bfloat16()
    for step in range(version):
        moved = torch.rand(SIZE, generator=torch.Generator().manual_seed(step + 1)) < 0.05
        flat = torch.where(moved, flat * 1.01, flat)
    return {"matrix": flat[: SIZE // 2].view(-1, 64), "vector": flat[SIZE // 2 :].clone(), "scale": torch.tensor(1.5)}


class Learner:
    """Publishes on its machine and sends on."""

    def __init__(self, folder: Path, *, whole_every: int) -> None:
        self.folder, self.depot = folder, Depot((folder / "depot").as_uri(), whole_every=whole_every)

    def publish(self, version: int) -> Weights:
        return self.depot.send(publish(tensors(version).items(), version, str(self.folder / "local")))

    def versions(self) -> list[int]:
        return sorted(int(path.name[1:]) for path in (self.folder / "depot").iterdir())


def assert_brought(replica: Replica, sent: Weights) -> None:
    here = replica.bring(sent)
    assert here.version == sent.version
    found = dict(read(here))  # every checksum of the publication itself is verified
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(sent.version).items())


@pytest.mark.parametrize("whole_every", [1, 3, 100])
def test_every_version_arrives(tmp_path: Path, whole_every: int) -> None:
    learner, replica = Learner(tmp_path, whole_every=whole_every), Replica(tmp_path / "replica")
    for version in range(1, 8):
        assert_brought(replica, learner.publish(version))
        assert [path.name for path in (tmp_path / "replica").iterdir()] == [f"v{version:06d}"]


def test_one_that_missed_versions_follows_the_chain(tmp_path: Path) -> None:
    learner, late, fresh = Learner(tmp_path, whole_every=100), Replica(tmp_path / "late"), Replica(tmp_path / "fresh")
    for version in range(1, 7):
        sent = learner.publish(version)
        if version in (2, 6):
            assert_brought(late, sent)
    assert_brought(fresh, sent)


def test_what_changed_is_a_small_part(tmp_path: Path) -> None:
    learner, sizes = Learner(tmp_path, whole_every=3), []
    for version in range(1, 7):
        learner.publish(version)
        sizes.append(learner.depot.sent_bytes / (2 * SIZE))
    assert all(0.5 < size <= 1.01 for size in (sizes[0], sizes[3]))
    assert all(size < 0.15 for size in (*sizes[1:3], *sizes[4:]))


def test_chains_before_the_last_whole_version_but_one_go(tmp_path: Path) -> None:
    learner = Learner(tmp_path, whole_every=3)
    for version in range(1, 9):
        learner.publish(version)
    assert learner.versions() == [4, 5, 6, 7, 8]  # 4 and 7 are whole
    remove((tmp_path / "depot").as_uri())
    remove((tmp_path / "depot").as_uri())
    assert not (tmp_path / "depot").exists()


def test_a_learner_that_begins_again_sends_a_whole_one(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "replica")
    first = Learner(tmp_path, whole_every=100)
    for version in (1, 2, 3):
        assert_brought(replica, first.publish(version))
    second = Learner(tmp_path, whole_every=100)  # resumed from step 2
    for version in (2, 3, 4):
        assert_brought(replica, second.publish(version))


def test_tensors_of_another_form_are_sent_whole(tmp_path: Path) -> None:
    depot, replica = Depot((tmp_path / "depot").as_uri(), whole_every=100), Replica(tmp_path / "replica")
    for version, size in ((1, 64), (2, 80)):
        sent = depot.send(publish([("w", torch.full((size,), float(version)))], version, str(tmp_path / "local")))
        assert torch.equal(dict(read(replica.bring(sent)))["w"], torch.full((size,), float(version)))


@pytest.mark.parametrize("file", ["000.part", "manifest.json"])
def test_one_changed_byte_is_detected_and_nothing_is_lost(tmp_path: Path, file: str) -> None:
    learner, replica = Learner(tmp_path, whole_every=100), Replica(tmp_path / "replica")
    assert_brought(replica, learner.publish(1))
    sent = learner.publish(2)
    path = tmp_path / "depot" / "v000002" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(WeightsError, match="its checksum should be [0-9a-f]{64} and is [0-9a-f]{64}"):
        replica.bring(sent)
    path.write_bytes(whole)
    assert_brought(replica, sent)


def test_a_copy_that_is_not_trusted_is_brought_whole(tmp_path: Path) -> None:
    learner, replica = Learner(tmp_path, whole_every=100), Replica(tmp_path / "replica")
    here = replica.bring(learner.publish(1))
    (Path(here.where) / "000.safetensors").write_bytes(b"\0" * 10)
    with pytest.raises(WeightsError):
        verify(replica.bring(learner.publish(2)))
    replica.forget()
    assert_brought(replica, learner.publish(3))


def test_what_is_gone_is_named(tmp_path: Path) -> None:
    learner, replica = Learner(tmp_path, whole_every=1), Replica(tmp_path / "replica")
    sent = learner.publish(1)
    (tmp_path / "depot" / "v000001" / "000.part").unlink()
    with pytest.raises(WeightsError, match="000.part cannot be read"):
        replica.bring(sent)
    remove((tmp_path / "depot").as_uri())
    with pytest.raises(WeightsError, match="version 1 cannot be read"):
        replica.bring(sent)


@given(st.data(), st.integers(0, 70), st.integers(1, 16), st.booleans())
def test_decoding_undoes_encoding(data, size: int, half: int, has_old: bool) -> None:
    new, old = (data.draw(arrays(np.uint8, size)) for _ in range(2))
    before = old if has_old else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 2 * half)
        pieces = list(decode(before, b"".join(encode(before, new)), size))
    assert b"".join(piece.tobytes() for piece in pieces) == new.tobytes()
