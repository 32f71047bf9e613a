"""The small learner: a bigram policy of plain torch, for tests and for stepping through the system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from learner.batch import Batch, Microbatch
from learner.config import LearnerConfig
from learner.loss import Targets, means, policy_loss
from learner.publish import publish
from learner.weights import Weights

HIDDEN = 32


class TinyLearner:
    """A Learner in one process on the CPU: the next token depends on the last alone. Equal seeds give equal weights."""

    def __init__(self, vocab_size: int, learning_rate: float, *, seed: int, folder: str) -> None:
        self._folder = folder
        self._step = 0
        self._config = LearnerConfig(learning_rate=learning_rate)
        generator = torch.Generator().manual_seed(seed)
        self._embedding = torch.nn.Parameter(torch.randn(vocab_size, HIDDEN, generator=generator))
        self._head = torch.nn.Parameter(torch.randn(vocab_size, HIDDEN, generator=generator) / HIDDEN)
        # Advantages of a group cancel: a smaller eps would turn what rounding leaves of them into full steps.
        self._optimizer = torch.optim.Adam([self._embedding, self._head], lr=learning_rate, eps=1e-4)

    def logprobs(self, tokens: torch.Tensor) -> torch.Tensor:
        """log p(next token) after each of `tokens`: [A] to [A, vocab_size]."""
        return torch.log_softmax(torch.nn.functional.embedding(tokens, self._embedding) @ self._head.T, dim=-1)

    async def update(self, batch: Batch) -> Mapping[str, float]:
        """One optimiser step over every shard: here one rank does the work of all."""
        self._step += 1
        if not batch.num_actions:
            return {}
        self._optimizer.zero_grad()
        metrics: dict[str, float] = {}
        for micro in (micro for shard in batch.shards for micro in shard):
            for name, value in self._backward(micro).items():
                metrics[name] = metrics.get(name, 0.0) + value
        norm = torch.nn.utils.clip_grad_norm_([self._embedding, self._head], self._config.max_grad_norm)
        self._optimizer.step()
        return means(metrics) | {"learner/grad_norm": float(norm), "learner/tokens": float(batch.num_tokens)}

    async def publish(self) -> Weights:
        """The version is the number of updates made, so a resumed learner goes on counting where it was."""
        tensors = [("embedding", self._embedding.detach()), ("head", self._head.detach())]
        return publish(tensors, self._step, self._folder)

    async def save(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        state = {"embedding": self._embedding.detach(), "head": self._head.detach()}
        torch.save({"step": self._step, "weights": state, "optimizer": self._optimizer.state_dict()}, _file(path))

    async def load(self, path: str) -> None:
        state = torch.load(_file(path), weights_only=True)
        with torch.no_grad():
            self._embedding.copy_(state["weights"]["embedding"])
            self._head.copy_(state["weights"]["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step = state["step"]

    def _backward(self, micro: Microbatch) -> dict[str, float]:
        all_AV = self.logprobs(torch.from_numpy(micro.tokens_T[micro.sources_A]))
        logprobs_A = all_AV.gather(1, torch.from_numpy(micro.targets_A)[:, None])[:, 0]
        limits = self._config
        targets = Targets.of(micro)
        loss, stats = policy_loss(
            logprobs_A, targets, clip_low=limits.clip_low, clip_high=limits.clip_high, max_weight=limits.max_weight
        )
        loss.backward()
        entropy_A = -(all_AV.exp() * all_AV).sum(-1).detach()
        return stats | {"learner/entropy": float((targets.weights_A * entropy_A).sum())}


def _file(path: str) -> Path:
    return Path(path) / "tiny_learner.pt"
