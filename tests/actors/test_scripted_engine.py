import pytest

from actors.engine import PromptTooLong, Sampling
from actors.scripted_engine import ScriptedEngine
from envs.types import Span
from learner.weights import Weights


def last_two(tokens, session):
    return [*tokens[-2:], len(session)]


async def test_plays_the_script_with_a_logprob_and_a_version_for_every_token():
    engine = ScriptedEngine(last_two, logprob=-0.25)
    completion = await engine.generate([5, 6, 7], Sampling(), session="abc")
    assert completion.tokens == (6, 7, 3)
    assert completion.logprobs == (-0.25,) * 3
    assert completion.finish == "stop"
    assert completion.versions == (Span(0, 0, 3),)


async def test_an_action_is_cut_at_max_tokens_and_says_so():
    completion = await ScriptedEngine(last_two).generate([5, 6, 7], Sampling(max_tokens=2), session="abc")
    assert (completion.tokens, completion.finish) == ((6, 7), "length")


async def test_an_action_is_cut_where_the_context_ends():
    engine = ScriptedEngine(last_two, max_model_len=4)
    completion = await engine.generate([5, 6, 7], Sampling(), session="abc")
    assert (completion.tokens, completion.finish) == ((6,), "length")
    with pytest.raises(PromptTooLong, match="4 tokens"):
        await engine.generate([5, 6, 7, 8], Sampling(), session="abc")


async def test_load_changes_the_version_of_what_is_asked_afterwards():
    engine = ScriptedEngine(last_two, latency=lambda session: 0.0)
    await engine.load(Weights(3, "nowhere", ""))
    completion = await engine.generate([5, 6], Sampling(), session="a")
    assert completion.versions == (Span(3, 0, 3),)
