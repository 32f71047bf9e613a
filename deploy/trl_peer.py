"""TRL's GRPOTrainer on the shop, for deploy.bench_trl; runs in .venv-trl.

usage: python -m deploy.trl_peer SETTINGS     a JSON object, the fields of `Settings`; writes OUT/steps.jsonl, a line a step
The prompts, the environment, the parsing of calls and the reward are Tiltyard's own; everything else is TRL's, at its
defaults but for gradient checkpointing, without which it is quicker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from actors.engine import Sampling
from actors.renderer import Renderer
from actors.rollout import Limits, Rollout
from actors.scripted_engine import ScriptedEngine
from deploy.trl_settings import Settings
from envs.environment import environment
from envs.types import Assignment, Task
from rewards.config import PARTS
from rewards.reward import Rubric


class Judge:
    """A completion's reward: played as an episode of one action by the same code that plays Tiltyard's."""

    def __init__(self, settings: Settings, tasks: Mapping[str, Task], renderer: Renderer) -> None:
        self._tasks, self._renderer = tasks, renderer
        self._rubric = Rubric(PARTS, settings.rubric)
        self._limits = Limits(max_turns=1, max_tokens=2**20, deadline_s=60.0)

    def __call__(self, *, completion_ids: Sequence[Sequence[int]], task_id: Sequence[str], **_: object) -> list[float]:
        return [self._reward(self._tasks[name], ids) for name, ids in zip(task_id, completion_ids, strict=True)]

    def _reward(self, task: Task, action: Sequence[int]) -> float:
        is_cut = action[-1] != self._renderer.eos
        engine = ScriptedEngine(lambda _tokens, _session: (*action, self._renderer.eos) if is_cut else action)
        play = Rollout(environment(task.env).make(), engine, self._renderer, limits=self._limits, is_quick=True)
        assignment, sampling = Assignment(0, task, "peer", 0.0, "call", 1), Sampling(max_tokens=len(action))
        return self._rubric(task, asyncio.run(play(assignment, sampling, trajectory_id="peer"))).reward


class Watch(TrainerCallback):
    """Writes each step's seconds and mean reward as soon as they are known."""

    def __init__(self, tell: Callable[[Mapping[str, float]], None]) -> None:
        self._tell, self._begun = tell, 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        self._begun = time.perf_counter()

    def on_log(self, *_: object, logs: Mapping[str, float], **__: object) -> None:
        if "reward" in logs:
            now = time.perf_counter()
            self._tell({"seconds": now - self._begun, "reward": logs["reward"], "generate_s": logs.get("generation_time", 0.0)})
            self._begun = now


def main(settings: Settings) -> None:
    torch.manual_seed(settings.seed)
    renderer = Renderer(settings.model, settings.calls)
    tasks = {task.id: task for task in environment("shop").taskset("train", settings.level)}
    rows = [
        {"prompt": renderer.text(t.messages, t.tools, prompt=True), "task_id": t.id}
        for t in map(tasks.__getitem__, settings.tasks)
    ]
    tokenizer = AutoTokenizer.from_pretrained(settings.model)
    sample = tasks[settings.tasks[0]]
    if tuple(tokenizer(rows[0]["prompt"], add_special_tokens=False)["input_ids"]) != renderer.open(sample.messages, sample.tools):
        raise SystemExit("TRL would read other tokens than Tiltyard; the comparison would not be of the same tasks")
    total = settings.num_groups * settings.group_size
    arguments = GRPOConfig(
        output_dir=settings.out,
        use_cpu=True,
        bf16=True,
        seed=settings.seed,
        data_seed=settings.seed,
        max_steps=settings.num_steps,
        per_device_train_batch_size=settings.micro,
        gradient_accumulation_steps=total // settings.micro,
        num_generations=settings.group_size,
        max_completion_length=settings.max_tokens,
        temperature=settings.temperature,
        max_grad_norm=settings.max_grad_norm,
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        beta=0.0,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    betas = (settings.betas[0], settings.betas[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=betas, weight_decay=0.0, fused=True)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, settings.warmup_steps)))
    with (Path(settings.out) / "steps.jsonl").open("w") as file:

        def tell(record: Mapping[str, float]) -> None:
            print(json.dumps(record), file=file, flush=True)

        GRPOTrainer(
            model=model,
            reward_funcs=Judge(settings, tasks, renderer).__call__,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Watch(tell)],
            optimizers=(optimizer, schedule),
        ).train()


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
