"""On CPUs vLLM runs norms and SiLU as chains of PyTorch operations, though it ships kernels for them: these use those."""

from __future__ import annotations

import torch
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
    """vLLM's layer, in one pass."""

    def forward_cpu(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_contiguous():
            return self.forward_native(x)
        out = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype)
        torch.ops._C.silu_and_mul(out, x)
        return out


def install() -> None:
    """Let the models that this process builds from now on use them. Elsewhere than on CPUs nothing changes."""
    RMSNorm.register_oot(KernelRMSNorm)
    SiluAndMul.register_oot(KernelSiluAndMul)
