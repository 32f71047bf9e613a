"""On CPUs vLLM runs norms and gates as chains of PyTorch operations; these take fewer passes."""

from __future__ import annotations

import torch
from torch.nn import functional
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm


class KernelRMSNorm(RMSNorm):
    """vLLM's layer; what its kernels do not do (a weight of another type, a share of the width) is left to PyTorch."""

    def forward_cpu(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        is_plain = self.has_weight and self.variance_size_override is None and self.weight.dtype == x.dtype
        if not (is_plain and x.is_contiguous()):
            return self.forward_native(x, residual)
        if residual is None:
            out = torch.empty_like(x)
            torch.ops._C.rms_norm(out, x, self.weight.data, self.variance_epsilon)
            return out
        torch.ops._C.fused_add_rms_norm(x, residual, self.weight.data, self.variance_epsilon)  # in place, both
        return x, residual


class KernelSiluAndMul(SiluAndMul):
    """vLLM's layer by PyTorch's vectorised SiLU: vLLM's own kernel takes an exponential at a time."""

    def forward_cpu(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)


def install() -> None:
    """Let the models that this process builds from now on use them. Elsewhere than on CPUs nothing changes."""
    RMSNorm.register_oot(KernelRMSNorm)
    SiluAndMul.register_oot(KernelSiluAndMul)
