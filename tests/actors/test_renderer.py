"""Tokens are kept as read and sampled; parsing never fails and never runs anything."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.renderer import Renderer, RendererError, call_text, parse
from envs.environment import ENVIRONMENTS
from envs.types import Message, ToolCall

TEXTS = st.text(max_size=30)


def test_rendered_prefix_never_changes_on_a_real_task(byte_folder: str) -> None:
    renderer = Renderer(byte_folder)
    entry = ENVIRONMENTS["shop"]
    for task in (entry.taskset("test", level)[3] for level in entry.levels):
        env = entry.make()
        history = list(env.reset(task).messages)
        tokens = renderer.open(history, task.tools)
        for message in entry.oracle(task):
            action = renderer.act(message)
            observation = env.step(message)
            tokens += action + renderer.extend(action, observation.messages)
            history += [message, *observation.messages]
            assert renderer.parse(action) == message
        assert tokens == renderer.open(history, task.tools)


def test_an_action_cut_off_is_closed_by_the_context(byte_folder: str) -> None:
    renderer = Renderer(byte_folder)
    news = (Message("tool", "{}"),)
    action = renderer.encode("abc")
    ended = (*action, renderer.eos)
    assert ended + renderer.extend(ended, news) == action + renderer.extend(action, news)


def test_a_template_that_strips_the_past_is_refused(byte_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(byte_folder, folder)
    template = (folder / "chat_template.jinja").read_text()
    stripped = template.replace(
        "+ message.content", "+ (message.content if loop.last else message.content.split('</think>')[-1])"
    )
    assert stripped != template
    (folder / "chat_template.jinja").write_text(stripped)
    with pytest.raises(RendererError, match="not append-only"):
        Renderer(str(folder))


def test_calls_are_parsed_and_bad_ones_named() -> None:
    assert parse("hello") == Message("assistant", "hello")
    two = call_text(ToolCall("a", {})) + call_text(ToolCall("b", {"x": [1]}))
    assert parse(two).calls == (ToolCall("a", {}), ToolCall("b", {"x": [1]}))
    for text, reason in {
        "<tool_call>{</tool_call>": "not JSON",
        "<tool_call>[]</tool_call>": "no name",
        '<tool_call>{"name": "a", "arguments": 3}</tool_call>': "arguments are not an object",
        '<tool_call>{"name": "a"}': "unbalanced tags",
        "<tool_call>" + "[" * 9999 + "</tool_call>": "not JSON",
        '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>': "not JSON",
    }.items():
        assert parse(text).malformed == reason
    assert parse("half an ans", is_cut=True).malformed


@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", '{"name":', '"a"', "}", "x"]), max_size=12))
def test_any_text_parses(pieces: list[str]) -> None:
    message = parse("".join(pieces))
    assert message.content == "".join(pieces)
    assert not (message.calls and message.malformed)


@given(TEXTS, st.dictionaries(TEXTS, st.integers() | TEXTS | st.none() | st.lists(st.booleans(), max_size=3), max_size=4))
def test_what_is_called_is_read_back(name: str, arguments: dict) -> None:
    call = ToolCall(name, arguments)
    if "tool_call>" not in call_text(call)[11:-12]:
        assert parse(call_text(call)).calls == (call,)
