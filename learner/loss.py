"""The losses. Sums are weighted by `weights_A`, shares of the whole batch: microbatches and ranks simply add."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from learner.batch import Microbatch

MAX_LOG_RATIO = 20.0

LossStats = dict[str, float]  # weighted sums, keyed "learner/..."; they add over microbatches and ranks
WEIGHT = "learner/weight"
SUMS = {"learner/loss", "learner/tokens", WEIGHT}


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """A microbatch's side of the loss as tensors; `imitated_A` has the actions that are fitted, whoever sampled them."""

    logprobs_A: torch.Tensor  # the engine's; 0 where imitated
    advantages_A: torch.Tensor
    weights_A: torch.Tensor
    imitated_A: torch.Tensor

    @classmethod
    def of(cls, micro: Microbatch, device: torch.device | str = "cpu") -> Targets:
        arrays = (micro.logprobs_A, micro.advantages_A, micro.weights_A, micro.imitated_A)
        return cls(*(torch.from_numpy(x).to(device) for x in arrays))


def policy_loss(
    logprobs_A: torch.Tensor, targets: Targets, *, clip_low: float, clip_high: float, max_weight: float
) -> tuple[torch.Tensor, LossStats]:
    """- sum of w min(min(r, max_weight) A, clip(r, 1 - clip_low, 1 + clip_high) A), with r = p / p(engine); imitated, w A log p.

    PPO's clip (arXiv 1707.06347, eq. 7) with DAPO's decoupled range (arXiv 2503.14476, eq. 8). The ratio is to the
    policy that sampled, so it corrects for lag and for the engine's arithmetic; truncation bounds what A < 0 can do.
    What is imitated has no such policy: with A of 0 and 1 this is its maximum likelihood.
    """
    sampled_A = torch.where(targets.imitated_A, logprobs_A.detach(), targets.logprobs_A)
    ratio_A = (logprobs_A - sampled_A).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    free_A = ratio_A.clamp(max=max_weight) * targets.advantages_A
    held_A = ratio_A.clamp(1 - clip_low, 1 + clip_high) * targets.advantages_A
    gain_A = torch.where(targets.imitated_A, targets.advantages_A * logprobs_A, torch.minimum(free_A, held_A))
    loss = -(targets.weights_A * gain_A).sum()
    is_clipped_A = (held_A < free_A) | ((ratio_A > max_weight) & (targets.advantages_A < 0))
    return loss, _stats(loss, logprobs_A, replace(targets, logprobs_A=sampled_A), is_clipped_A)


def means(sums: LossStats) -> LossStats:
    """What was summed over a batch, per trained token where that is what it tells; the losses and counts stay."""
    weight = sums.get(WEIGHT, 0.0) or 1.0
    return {name: value if name in SUMS else value / weight for name, value in sums.items()}


def kl_penalty(logprobs_A: torch.Tensor, reference_A: torch.Tensor, weights_A: torch.Tensor) -> torch.Tensor:
    """Sum of w (q/p - 1 - log q/p), p the policy, q the reference: Schulman's k3 estimator of KL(p|q)."""
    log_ratio_A = (reference_A - logprobs_A).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (weights_A * (log_ratio_A.exp() - 1 - log_ratio_A)).sum()


def _stats(loss: torch.Tensor, logprobs_A: torch.Tensor, targets: Targets, is_clipped_A: torch.Tensor) -> LossStats:
    with torch.no_grad():
        gap_A = (logprobs_A - targets.logprobs_A).abs()
        sums = [
            loss,
            (targets.weights_A * gap_A).sum(),
            kl_penalty(targets.logprobs_A, logprobs_A, targets.weights_A),
            (targets.weights_A * is_clipped_A).sum(),
            targets.weights_A.sum(),
        ]
        # One transfer for all of them: each .item() would stop a GPU.
        values: list[float] = torch.stack([x.float() for x in sums]).tolist()
    names = ("learner/loss", "learner/logprob_gap", "learner/kl_engine", "learner/clip_fraction", WEIGHT)
    return dict(zip(names, values, strict=True))
