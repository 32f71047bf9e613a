from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from envs.types import Assignment, Group, Message, Observation, Stop, Task, Trajectory, Turn
from learner import forward
from learner.batch import Batch, Microbatch, assemble, flatten
from learner.credit import mean
from learner.forward import CHUNK, _Picked, action_logprobs
from learner.loss import Targets, policy_loss

torch.set_num_threads(1)  # models this small only wait for their threads

VOCAB = 97
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    # Far from the usual small ones: else a random model's distributions are all flat and alike.
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)) if request.param == "llama" else Qwen2ForCausalLM(Qwen2Config(**SHAPE))


def sample_group(model: PreTrainedModel, seed: int, *, num_siblings: int = 4) -> Group:
    """Siblings sampled from the model itself by plain forwards, log-probabilities recorded as an engine does."""
    rng = np.random.default_rng(seed)
    prompt = [5, 6, 7, *rng.integers(0, VOCAB, 5).tolist()]
    trajectories = [sample_trajectory(model, prompt, rng, reward=index % 2) for index in range(num_siblings)]
    return group_of(*trajectories)


def group_of(*trajectories: Trajectory) -> Group:
    task = Task("t", "shop", "easy", (), (), {}, ())
    return Group(Assignment(0, task, "one", 0.0, "solve", len(trajectories)), trajectories)


@torch.no_grad()
def sample_trajectory(model: PreTrainedModel, prompt: list[int], rng: np.random.Generator, *, reward: float) -> Trajectory:
    tokens: list[int] = []
    turns: list[Turn] = []
    for number in range(2):
        context = prompt if number == 0 else [9] * int(rng.integers(1, 4))
        action: list[int] = []
        logprobs: list[float] = []
        tokens += context
        for _ in range(int(rng.integers(2, 6))):
            scores = torch.log_softmax(model(torch.tensor([tokens])).logits[0, -1].double(), -1)
            action.append(int(rng.choice(VOCAB, p=scores.exp().numpy() / float(scores.exp().sum()))))
            logprobs.append(float(scores[action[-1]]))
            tokens.append(action[-1])
        turn = Turn(tuple(context), tuple(action), tuple(logprobs), (), Message("assistant", ""), Observation(()))
        turns.append(turn)
    return Trajectory("a", "t", tuple(turns), Stop.DONE, reward=reward)


def only(batch: Batch) -> Microbatch:
    ((micro,),) = batch.shards
    return micro


def test_the_learner_agrees_with_the_engine_token_by_token(model: PreTrainedModel):
    micro = only(assemble([sample_group(model, 0), sample_group(model, 1)], mean))
    logprobs, entropy = action_logprobs(model, micro)
    assert np.abs(logprobs.detach().numpy() - micro.logprobs_A).max() < 1e-5
    assert entropy.shape == logprobs.shape and float(entropy.min()) > 0 and not entropy.requires_grad


def test_log_probabilities_are_of_the_tempered_policy(model: PreTrainedModel):
    micro = only(assemble([sample_group(model, 0, num_siblings=1)], lambda _: ((1.0, 1.0),)))
    half, _ = action_logprobs(model, replace(micro, temperatures_A=np.full_like(micro.temperatures_A, 0.5)))
    logits = model(torch.from_numpy(micro.tokens_T)[None]).logits[0].float()  # one sibling: no fork
    expected = torch.log_softmax(logits[micro.sources_A] / 0.5, -1).gather(1, torch.from_numpy(micro.targets_A)[:, None])[:, 0]
    assert float((half - expected).detach().abs().max()) < 1e-5


def test_siblings_that_part_at_different_temperatures_have_each_its_own(model: PreTrainedModel):
    micro = only(assemble([sample_group(model, 0), sample_group(model, 1)], mean))
    mixed_A = np.where(np.arange(micro.num_actions) % 2, 0.5, 1.5).astype(np.float32)
    mixed, _ = action_logprobs(model, replace(micro, temperatures_A=mixed_A))
    for temperature in (0.5, 1.5):
        alike, _ = action_logprobs(model, replace(micro, temperatures_A=np.full_like(mixed_A, temperature)))
        chosen = torch.from_numpy(mixed_A == np.float32(temperature))
        assert torch.allclose(mixed[chosen], alike[chosen], atol=1e-5)


def test_values_and_gradients_are_those_of_a_log_softmax():
    generator = torch.Generator().manual_seed(0)
    logits_UV = torch.randn(40, 30, generator=generator, requires_grad=True)  # more rows than one pass takes
    temperatures_U1 = torch.rand(40, 1, generator=generator) + 0.5
    rows_A, targets_A = torch.arange(100) * 2 // 5, torch.randint(0, 30, (100,), generator=generator)
    grad_A = torch.randn(100, generator=generator)
    expected_UV = torch.log_softmax(logits_UV / temperatures_U1, -1)
    picked_A, entropy_A = _Picked.apply(logits_UV, temperatures_U1, rows_A, targets_A)
    assert torch.allclose(picked_A, expected_UV[rows_A, targets_A], atol=1e-5)
    assert (
        torch.allclose(entropy_A, -(expected_UV.exp() * expected_UV).sum(-1)[rows_A], atol=1e-5) and not entropy_A.requires_grad
    )
    (found,) = torch.autograd.grad(picked_A, logits_UV, grad_A)
    (expected,) = torch.autograd.grad(expected_UV[rows_A, targets_A], logits_UV, grad_A)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("slip", [-1, 1])
def test_a_slip_of_one_token_shows(model: PreTrainedModel, slip: int):
    micro = only(assemble([sample_group(model, 0)], mean))
    slipped = replace(micro, sources_A=np.clip(micro.sources_A + slip, 0, micro.num_tokens - 1))
    logprobs, _ = action_logprobs(model, slipped)
    assert np.abs(logprobs.detach().numpy() - micro.logprobs_A).mean() > 0.1


def unpacked(model: PreTrainedModel, group: Group) -> torch.Tensor:
    """Sum over trajectories and their action tokens of id x log-probability, one plain forward each."""
    total = torch.zeros(())
    for trajectory in group.trajectories:
        sample = flatten(trajectory, [0.0] * len(trajectory.turns))
        scores = torch.log_softmax(model(torch.from_numpy(sample.tokens_L[None])).logits[0].float(), -1)
        for place in np.flatnonzero(sample.mask_L):
            total = total + sample.tokens_L[place] * scores[place - 1, sample.tokens_L[place]]
    return total


def gradients(model: PreTrainedModel, total: torch.Tensor) -> torch.Tensor:
    flat = torch.autograd.grad(total, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in flat])


def assert_packed_equals_unpacked(model: PreTrainedModel, group: Group) -> None:
    micro = only(assemble([group], mean, max_tokens=10_000, every_action=True))
    logprobs, _ = action_logprobs(model, micro)
    packed = (torch.from_numpy(micro.targets_A) * logprobs).sum()
    plain = unpacked(model, group)
    assert float(packed.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    expected = gradients(model, plain)
    assert float((gradients(model, packed) - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_the_packed_forest_has_the_values_and_gradients_of_plain_forwards(model: PreTrainedModel, seed: int):
    """Random forests of few token ids: branches anywhere, siblings alike, one a prefix of another, many roots."""
    rng = np.random.default_rng(seed)

    def draw() -> tuple[int, ...]:
        return tuple(rng.integers(1, 3, int(rng.integers(1, 5))).tolist())

    def turn() -> Turn:
        action = draw()
        return Turn(draw(), action, (0.0,) * len(action), (), Message("assistant", ""), Observation(()))

    siblings = [Trajectory("a", "t", (turn(), turn()), Stop.DONE, reward=float(index)) for index in range(8)]
    group = group_of(*siblings, siblings[0], replace(siblings[1], turns=siblings[1].turns[:1]))
    assert only(assemble([group], mean)).num_tokens < sum(one.num_tokens for one in group.trajectories)
    assert_packed_equals_unpacked(model, group)


def test_sequences_that_share_nothing(model: PreTrainedModel):
    def one(first: int) -> Trajectory:
        turn = Turn((first, 2, 3), (4, 5), (0.0, 0.0), (), Message("assistant", ""), Observation(()))
        return Trajectory("a", "t", (turn,), Stop.DONE, reward=float(first))

    group = group_of(one(10), one(11), one(12))
    assert only(assemble([group], mean, every_action=True)).num_tokens == 15
    assert_packed_equals_unpacked(model, group)


@pytest.mark.parametrize("kept", [forward.KEPT_BYTES, 0])
def test_more_places_than_a_chunk_of_logits(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, kept: int):
    monkeypatch.setattr(forward, "KEPT_BYTES", kept)
    action = tuple(np.random.default_rng(0).integers(0, VOCAB, CHUNK + 40).tolist())
    turn = Turn((1, 2), action, (0.0,) * len(action), (), Message("assistant", ""), Observation(()))
    twice = group_of(Trajectory("a", "t", (turn,), Stop.DONE), Trajectory("b", "t", (turn,), Stop.DONE))
    assert_packed_equals_unpacked(model, twice)


def test_what_is_left_out_of_a_batch_has_no_gradient(model: PreTrainedModel):
    group = sample_group(model, 0)
    advantages = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (-1.0, 0.0))
    found = []
    for every in (True, False):
        micro = only(assemble([group], lambda _: advantages, every_action=every))
        logprobs, _ = action_logprobs(model, micro)
        loss, _ = policy_loss(logprobs, Targets.of(micro), clip_low=0.2, clip_high=0.2, max_weight=2.0)
        found.append((micro.num_tokens, float(loss.detach()), gradients(model, loss)))
    (all_tokens, loss, expected), (fewer, lean_loss, lean) = found
    assert fewer < all_tokens and lean_loss == pytest.approx(loss, rel=1e-5)
    assert float((lean - expected).abs().max() / expected.abs().max()) < 1e-5


def test_padding_reaches_every_parameter_with_a_zero_gradient(model: PreTrainedModel):
    batch = assemble([sample_group(model, 0, num_siblings=1)], mean, num_ranks=2)
    logprobs, _ = action_logprobs(model, batch.shards[1][0])
    assert logprobs.shape == (0,)
    assert float(gradients(model, logprobs.sum()).abs().max()) == 0
