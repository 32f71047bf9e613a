"""Publications: what is read is what was written, or an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from learner import publish as module
from learner.publish import WeightsError, hold, publish, read, verify


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "embed": torch.randn(16, 8).bfloat16(),
        "norm": torch.tensor([float("nan"), 1.0]),
        "turned": torch.randn(3, 5).T,
        "scalar": torch.tensor(3),
    }


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(7), tensor.nan_to_num(7))


def test_round_trip(tmp_path):
    weights = publish(tensors().items(), 3, str(tmp_path))
    assert weights.version == 3 and Path(weights.where) == tmp_path / "v000003"
    assert_same(dict(read(weights)), tensors())
    (shard,) = verify(weights).shards
    assert {x.name: (x.shape, x.dtype) for x in shard.tensors}["embed"] == ((16, 8), "bfloat16")
    assert shard.bytes == (tmp_path / "v000003" / shard.file).stat().st_size


def test_large_weights_are_split_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 256)
    weights = publish(tensors().items(), 0, str(tmp_path))
    assert [len(shard.tensors) for shard in verify(weights).shards] == [1, 3]
    assert_same(dict(read(weights)), tensors())


@pytest.mark.parametrize("file", ["000.safetensors", "manifest.json"])
def test_one_changed_byte_is_detected(tmp_path, file):
    weights = publish(tensors().items(), 1, str(tmp_path))
    path = tmp_path / "v000001" / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{file}: its checksum should be [0-9a-f]{{64}} and is [0-9a-f]{{64}}"):
        list(read(weights))


def test_what_the_disk_did_is_found_by_who_reads(tmp_path, monkeypatch):
    def torn(given: dict[str, torch.Tensor], path: Path) -> None:
        save_file({name: torch.zeros_like(tensor) for name, tensor in given.items()}, path)

    monkeypatch.setattr(module, "save_file", torn)
    weights = publish(tensors().items(), 1, str(tmp_path))
    with pytest.raises(WeightsError, match="its checksum should be"):
        list(read(weights))


def test_what_is_missing_is_named(tmp_path):
    weights = publish(tensors().items(), 1, str(tmp_path))
    (tmp_path / "v000001" / "000.safetensors").unlink()
    with pytest.raises(WeightsError, match="000.safetensors.*no file"):
        verify(weights)
    with pytest.raises(WeightsError, match="version 9 cannot be read"):
        verify(replace(weights, version=9, where=str(tmp_path / "v000009")))


def test_tied_tensors_are_written_once(tmp_path):
    flat = torch.randn(32)
    embed, rest = flat[:16].view(4, 4), flat[16:].view(4, 4)  # as a sharding optimiser lays parameters out
    pairs = [("embed", embed), ("head", flat[:16].view(4, 4)), ("rest", rest), ("equal", embed.clone())]
    found = dict(read(publish(pairs, 0, str(tmp_path))))
    assert_same(found, {"embed": embed, "rest": rest, "equal": embed})


def test_publishing_the_same_again_gives_the_same_receipt(tmp_path):
    first = publish(tensors().items(), 2, str(tmp_path))
    assert publish(tensors().items(), 2, str(tmp_path)) == first
    with pytest.raises(WeightsError, match="v000002"):
        publish(tensors(1).items(), 2, str(tmp_path))
    assert_same(dict(read(first)), tensors())


def test_old_versions_and_half_written_ones_go(tmp_path):
    (tmp_path / "v000004.tmp").mkdir()
    for version in range(5):
        publish(tensors().items(), version, str(tmp_path), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v000003", "v000004"]


def inode(folder: Path, version: int) -> int:
    return (folder / f"v{version:06d}" / "000.safetensors").stat().st_ino


def test_the_version_that_goes_is_written_over(tmp_path):
    files = []
    for version in range(5):
        weights = publish(tensors(version).items(), version, str(tmp_path), keep=2)
        files.append(inode(tmp_path, version))
        assert_same(dict(read(weights)), tensors(version))
    assert files[2:] == files[:3] and len(set(files)) == 2
    assert sorted(path.name for path in (tmp_path / "v000004").iterdir()) == ["000.safetensors", "manifest.json"]


def test_a_version_that_is_held_stays_as_it_is(tmp_path):
    first = publish(tensors(0).items(), 0, str(tmp_path), keep=2)
    with hold(first):
        staged = dict(read(first))
        for version in range(1, 5):
            publish(tensors(version).items(), version, str(tmp_path), keep=2)
        assert_same(staged, tensors(0))
    with pytest.raises(WeightsError, match="version 0 cannot be read"):
        hold(first)


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "fewer", "spoilt"])
def test_other_tensors_are_written_anew(tmp_path, change):
    publish(tensors(0).items(), 0, str(tmp_path), keep=1)
    if change == "spoilt":
        (tmp_path / "v000000" / "000.safetensors").write_bytes(b"no")
    other = tensors(1)
    changed = {"shape": ("embed", torch.ones(4)), "dtype": ("embed", torch.ones(16, 8)), "name": ("more", torch.ones(2))}
    if change in changed:
        other |= [changed[change]]
    if change == "fewer":
        del other["norm"]
    assert_same(dict(read(publish(other.items(), 1, str(tmp_path), keep=1))), other)
