import copy

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from learner.cpu_layers import install

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
TOKENS = torch.arange(60).view(2, 30)


def models(kind: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    config, model = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    }[kind]
    own = model(config(**SIZES))
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.2)  # ones would not tell a norm's weight from none
    return own, copy.deepcopy(own)


def test_tied_embeddings_have_the_same_gradient() -> None:
    torch.manual_seed(0)
    own = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))
    ours = copy.deepcopy(own)
    install(ours)
    for model in (own, ours):
        loss(model).backward()
        loss(model).backward()  # gradients add
    found = ours.get_input_embeddings().weight.grad
    assert not found.is_sparse
    torch.testing.assert_close(found, own.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-6)


def loss(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS, labels=TOKENS).loss


@pytest.mark.parametrize(("kind", "num"), [("llama", 7), ("qwen3", 11), ("gemma2", 0)])
def test_values_and_gradients_are_the_models_own(kind: str, num: int) -> None:
    own, ours = models(kind)
    assert install(ours) == num
    for model in (own, ours):
        loss(model).backward()
    assert loss(ours).item() == pytest.approx(loss(own).item(), rel=1e-6)
    for (name, expected), found in zip(own.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_in_bf16_values_are_equal_to_the_bit_and_less_is_kept_for_the_backward_pass() -> None:
    own, ours = (model.to(torch.bfloat16) for model in models("llama"))
    install(ours)
    kept = []
    for model in (own, ours):
        sizes: dict[int, int] = {}
        hooks = (lambda tensor, sizes=sizes: sizes.setdefault(tensor.data_ptr(), tensor.nbytes) and tensor, lambda tensor: tensor)
        with torch.autograd.graph.saved_tensors_hooks(*hooks):
            value = loss(model)
        kept.append((value.item(), sum(sizes.values())))
    assert kept[0][0] == kept[1][0]
    assert kept[1][1] < 0.8 * kept[0][1]


def test_in_bf16_gradients_are_as_near_the_exact_ones_as_the_models_own() -> None:
    own, ours = models("llama")
    own, ours = own.to(torch.bfloat16), ours.to(torch.bfloat16)
    exact = copy.deepcopy(own).float()
    install(ours)
    for model in (exact, own, ours):
        loss(model).backward()
    wanted = torch.cat([parameter.grad.flatten() for parameter in exact.parameters()])
    errors = [
        torch.norm(torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()]) - wanted).item()
        for model in (own, ours)
    ]
    assert errors[1] < 1.5 * errors[0] and errors[1] < 0.1 * torch.norm(wanted).item()
