"""What a run will need of memory, estimated from a model folder without loading it."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from learner.config import LearnerConfig

GIB = 2**30
PER_TOKEN = (
    34  # bytes of activations a token, layer and hidden unit without recomputation (Korthikanti et al., 2205.05198, eq. 2)
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size, as its folder tells it."""

    parameters: int
    layers: int
    hidden: int
    kv_per_token: int  # bytes of bfloat16 keys and values


def shape(folder: Path) -> Shape:
    """Read from config.json and the headers of the weights. KeyError where the configuration lacks a size."""
    told = json.loads((folder / "config.json").read_text())
    told = told.get("text_config", told)
    heads = told["num_attention_heads"]
    width = told.get("head_dim") or told["hidden_size"] // heads
    kv = 2 * told["num_hidden_layers"] * (told.get("num_key_value_heads") or heads) * width * 2
    return Shape(parameters(folder), told["num_hidden_layers"], told["hidden_size"], kv)


def parameters(folder: Path) -> int:
    """How many a model folder's weights have; tied ones count once."""
    return sum(map(_parameters, folder.glob("*.safetensors")))


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def weights_gb(parameters: int, config: LearnerConfig) -> float:
    """GiB of the weights as they are published."""
    return _width(config) * parameters / GIB


def checkpoint_gb(parameters: int, config: LearnerConfig) -> float:
    """GiB of a checkpoint, all ranks' parts together: the weights, their fp32 masters and two moments."""
    return (_width(config) + 12) * parameters / GIB


def learner_gb(model: Shape, config: LearnerConfig) -> dict[str, float]:
    """GiB of one rank by part (ZeRO, 1910.02054, section 5)."""
    count, ranks, stage = model.parameters, config.num_ranks, config.zero_stage
    width = _width(config)
    layers = 1 if config.activation_checkpointing else model.layers
    kept = model.layers * model.hidden * 2 if config.activation_checkpointing else 0
    found = {
        "weights": width * count / (ranks if stage == 3 else 1),
        "gradients": 4 * count / (ranks if stage >= 2 else 1),
        "optimizer": 12 * count / ranks,
        "activations": config.max_tokens * (layers * model.hidden * PER_TOKEN + kept),
    }
    if config.kl:
        found["reference"] = width * count
    return {part: size / GIB for part, size in found.items()}


def _width(config: LearnerConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4
