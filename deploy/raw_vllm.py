"""vLLM by itself, for deploy.bench: reads a line of prompts, prints tokens per second, until its input ends."""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")

from vllm import LLM, SamplingParams  # noqa: E402


def main() -> None:
    llm = LLM(**json.loads(sys.argv[1]), dtype="bfloat16", enforce_eager=True, skip_tokenizer_init=True)
    for line in sys.stdin:
        asked = json.loads(line)
        params = SamplingParams(max_tokens=asked["max_tokens"], temperature=0.0, logprobs=0, stop_token_ids=[2], detokenize=False)
        begun = time.perf_counter()
        done = llm.generate([{"prompt_token_ids": tokens} for tokens in asked["prompts"]], params, use_tqdm=False)
        tokens = sum(len(answer.outputs[0].token_ids) for answer in done)
        print("tokens/s", tokens / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
