import pytest
import torch

HIDDEN = 192


@pytest.mark.e2e
def test_the_kernels_do_what_vllms_pytorch_does():
    from vllm.config import VllmConfig, set_current_vllm_config

    from actors.cpu_kernels import KernelRMSNorm, KernelSiluAndMul

    torch.manual_seed(0)
    with set_current_vllm_config(VllmConfig()):
        norm, silu = KernelRMSNorm(HIDDEN, dtype=torch.bfloat16), KernelSiluAndMul()
    norm.weight.data.uniform_(0.5, 2.0)
    x, residual = torch.randn(2, 7, HIDDEN, dtype=torch.bfloat16)
    close = {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(norm.forward_cpu(x.clone()), norm.forward_native(x), **close)
    added = norm.forward_native(x.clone(), residual.clone())
    torch.testing.assert_close(norm.forward_cpu(x.clone(), residual.clone()), added, **close)
    torch.testing.assert_close(silu.forward_cpu(x), silu.forward_native(x), **close)
    torch.testing.assert_close(silu.forward_cpu(x[:, : HIDDEN // 2]), silu.forward_native(x[:, : HIDDEN // 2]), **close)
