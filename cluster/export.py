"""A trained policy as an ordinary Hugging Face folder: what a user takes away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from learner.depot import Replica
from learner.publish import verify
from learner.weights import Weights

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "manifest.json")


def export(weights: Weights, model: Path, target: Path, *, call_form: str = "") -> Path:
    """`target`: the model's own config and tokenizer, with the published weights in place of the initial ones.

    A chat template that tells how to write a call tells `call_form`, the form that was trained, wherever it is used.
    """
    replica = Replica(target.with_suffix(".weights"))
    weights = replica.bring(weights)
    manifest = verify(weights)
    scratch = target.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(model, scratch, ignore=shutil.ignore_patterns(*WEIGHT_FILES))
    for number, shard in enumerate(manifest.shards):
        name = "model.safetensors" if len(manifest.shards) == 1 else f"model-{number:05d}.safetensors"
        shutil.copyfile(Path(weights.where) / shard.file, scratch / name)
    if len(manifest.shards) > 1:
        _index(scratch, [[tensor.name for tensor in shard.tensors] for shard in manifest.shards])
    template = scratch / "chat_template.jinja"
    if call_form and template.is_file():
        template.write_text(f"{{%- set call_form = {json.dumps(call_form)} -%}}\n{template.read_text()}")
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    replica.forget()
    return target


def _index(folder: Path, names: list[list[str]]) -> None:
    entries = {name: f"model-{number:05d}.safetensors" for number, shard in enumerate(names) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": entries}))
