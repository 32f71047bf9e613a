"""Tokens are kept as read and sampled, in whatever format calls are written."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from actors.calls import CALL_FORMATS
from actors.renderer import Renderer, RendererError
from envs.environment import environment
from envs.types import Message, ToolCall

# In the manner of other families: tools as JSON, tool messages side by side in one block, or headers around roles.
HERMES = """\
{%- if tools %}{{ '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else 'Help.') + '\\n# Tools' }}
{%- for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif -%}
{%- for message in messages %}
  {%- if message.role == 'tool' %}
    {{- '<|im_start|>user' if loop.first or messages[loop.index0 - 1].role != 'tool' else '' }}
    {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {{- '<|im_end|>\\n' if loop.last or messages[loop.index0 + 1].role != 'tool' else '' }}
  {%- elif message.role != 'system' or not loop.first %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt else '' }}"""
LLAMA = """\
{{- '<|begin|>' -}}
{%- for message in messages %}
  {{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}
  {{- 'Functions:\\n' + tools | tojson(indent=4) + '\\n' if tools and loop.first else '' }}
  {{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' if add_generation_prompt else '' }}"""


@pytest.fixture(params=["ours", "hermes", "llama"])
def family(request: pytest.FixtureRequest, byte_folder: str, tmp_path: Path) -> str:
    folder = tmp_path / "model"
    shutil.copytree(byte_folder, folder)
    template = {"hermes": HERMES, "llama": LLAMA}.get(request.param)
    if template:
        (folder / "chat_template.jinja").write_text(template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(name) for name in ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.mark.parametrize("calls", CALL_FORMATS)
@pytest.mark.parametrize("name", ["shop", "bfcl"])
def test_rendered_prefix_never_changes_on_a_real_task(family: str, calls: str, name: str) -> None:
    renderer = Renderer(family, calls)
    entry = environment(name)
    for task in (entry.taskset("test", level)[3] for level in entry.levels):
        env = entry.make()
        history = list(env.reset(task).messages)
        tokens = renderer.open(history, task.tools)
        for message in entry.oracle(task):
            action = renderer.act(message)
            observation = env.step(message)
            tokens += action + renderer.extend(action, observation.messages)
            history += [message, *observation.messages]
            assert renderer.parse(action).calls == message.calls
        assert tokens == renderer.open(history, task.tools)


def test_half_a_surrogate_pair_is_rendered_like_any_text(byte_folder: str) -> None:
    renderer = Renderer(byte_folder, "json")
    call = ToolCall("find", {"name": "\ud800"})
    action = renderer.act(Message("assistant", "", (call,)))
    assert renderer.parse(action).calls == (call,)  # JSON has it as an escape, which a policy can write too
    context = renderer.extend(action, (Message("tool", "nothing is called \ud800"),))
    assert "nothing is called ?" in renderer.decode(context)


def test_calls_said_in_another_format_are_written_in_this_one(byte_folder: str) -> None:
    """An imported expert's: the policy would learn to write what nobody here can read."""
    call = ToolCall("find", {"name": "lamp"})
    told = Message("assistant", '<tool_call>{"name": "find", "arguments": {"name": "lamp"}}</tool_call>', (call,))
    for calls in ("json", "python", "llama", "think"):
        renderer = Renderer(byte_folder, calls)
        assert renderer.parse(renderer.act(told)).calls == (call,)
    kept = Renderer(byte_folder, "json")
    assert told.content in kept.decode(kept.act(told))


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


@pytest.mark.parametrize("calls", ["json", "python", "llama", "think"])
def test_another_end_token_of_the_models_is_no_part_of_a_call(byte_folder: str, tmp_path: Path, calls: str) -> None:
    """Llama's end of a message beside its end of a turn, say: the engine stops at either."""
    folder = shutil.copytree(byte_folder, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [65]}))
    renderer, call = Renderer(str(folder), calls), ToolCall("find", {"name": "lamp"})
    action = renderer.act(Message("assistant", "", (call,)))
    other = (*action[:-1], 65)
    assert renderer.parse(other).calls == renderer.parse(action).calls == (call,)
    news = (Message("tool", "{}"),)
    assert renderer.extend(other, news) == (renderer.eos, *renderer.extend(action, news))
