"""By how much parameters changed: hand-made checkpoints through the command."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cluster.cli import main
from cluster.inspect_command import claim
from learner.change import Change, changes

NAMES = [
    f"model.layers.{layer}.{part}.weight" for layer in range(4) for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
]


def checkpoint(folder: Path, grown: dict[str, float], names: list[str] = NAMES) -> Path:
    """Every weight is 2 by 2 ones, times 1 + what it has grown."""
    folder.mkdir()
    tensors = {name: torch.full((2, 2), 1 + grown.get(name, 0.0)) for name in [*names, "model.embed_tokens.weight"]}
    half = len(tensors) // 2
    save_file(dict(list(tensors.items())[:half]), folder / "model-1.safetensors")
    save_file(dict(list(tensors.items())[half:]), folder / "model-2.safetensors")
    return folder


def test_relative_change_by_layer_and_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = checkpoint(tmp_path / "before", {})
    low = {"model.layers.0.mlp.up_proj.weight": 0.5, "model.layers.3.self_attn.q_proj.weight": -0.25}
    after = checkpoint(tmp_path / "after", {**low, "model.embed_tokens.weight": 0.125})
    by_place = {(change.layer, change.module): change for change in changes(before, after)}
    assert by_place[0, "mlp.up_proj"].relative == pytest.approx(0.5) and by_place[0, "mlp.up_proj"].size == pytest.approx(2.0)
    assert by_place[3, "self_attn.q_proj"].relative == pytest.approx(0.25)
    assert by_place[-1, "model.embed_tokens"].relative == pytest.approx(0.125)
    picture = tmp_path / "map.png"
    assert main(["inspect", str(before), str(after), "--out", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "5000.00" in told and "2500.00" in told and picture.stat().st_size > 5000
    assert "MLP of layer 0 (5.0e-01), attention of layer 3 (2.5e-01)" in told


def test_the_claim_holds_where_low_mlps_lead() -> None:
    def change(layer: int, module: str, moved: float) -> Change:
        return Change(layer, module, moved, 1.0, 4)

    low = [change(layer, "mlp.up_proj", 3 - layer / 10) for layer in range(3)]
    rest = [change(layer, module, 1.0) for layer, module in [(3, "mlp.up_proj"), *((n, "self_attn.q_proj") for n in range(4))]]
    assert "at places 1, 2, 3 of 8: the claim that they lead holds here" in claim([*low, *rest])
    assert "does not hold" in claim([*low[:2], change(2, "mlp.up_proj", 0.5), *rest])


def test_what_cannot_be_compared_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, other = checkpoint(tmp_path / "before", {}), checkpoint(tmp_path / "other", {}, NAMES[1:])
    (tmp_path / "empty").mkdir()
    for second, reason in (
        (other, "'model.layers.0.self_attn.q_proj.weight' is in only one of"),
        (tmp_path / "empty", "no *.safetensors"),
    ):
        assert main(["inspect", str(before), str(second)]) == 2
        assert reason in capsys.readouterr().err
