"""The heavy half of `learner.model`, run in a process of its own: `python -m learner.convert gguf FILE OUT` or `hub NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, out: Path) -> None:
    """Write model, config and tokenizer of the quantised file as a plain bf16 model folder."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Unpacked in float32 and rounded once: asking for bf16 here would round each block's scale before it is multiplied.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).bfloat16()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def fetch(name: str) -> str:
    """Download a model from the Hugging Face hub (or find it in the hub's own cache); its folder."""
    return snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"])


if __name__ == "__main__":
    if sys.argv[1] == "gguf":
        convert(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(fetch(sys.argv[2]))
