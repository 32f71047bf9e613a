"""The model folder and the chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from learner.model import CHAT_TEMPLATE, prepare

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Find an item's id.",
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "color": {"enum": ["red", "blue"]}},
                "required": ["name"],
            },
        },
    },
    {"name": "order", "parameters": {"properties": {"ids": {"type": "array", "items": {"type": "integer"}}}}},
]
PLAIN = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE.read_text())
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text()}),
    max_size=6,
)


def render(messages: list[dict[str, str]], *, tools: bool = True, prompt: bool = False) -> str:
    return PLAIN.render(messages=messages, tools=TOOLS if tools else None, add_generation_prompt=prompt)


def folder_with(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("{}")
    return path


@given(messages=MESSAGES, tools=st.booleans())
def test_rendering_is_append_only(messages, tools):
    whole = render(messages, tools=tools)
    for k in range(len(messages)):
        assert whole.startswith(render(messages[:k], tools=tools))


def test_tools_take_one_line_each():
    text = render([{"role": "system", "content": "You run a shop."}, {"role": "user", "content": "hi"}], prompt=True)
    assert text == (
        "<|im_start|>system\nYou run a shop.\nTools:\n"
        "find(name: string, color?: red|blue): Find an item's id.\n"
        "order(ids?: integer[])\n"
        'Call: <tool_call>{"name": ..., "arguments": {...}}</tool_call><|im_end|>\n'
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tools_are_shown_where_there_is_no_system_message():
    text = render([{"role": "user", "content": "hi"}])
    assert text.startswith("<|im_start|>system\nTools:\nfind(") and text.endswith("user\nhi<|im_end|>\n")


def test_assistant_text_is_used_verbatim():
    content = '  <tool_call>{"name": "é"}</tool_call>\n\n'
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    assert render(messages, tools=False).endswith(f"<|im_start|>assistant\n{content}<|im_end|>\n")


def test_a_local_folder_is_used_as_it_is(tmp_path):
    folder = folder_with(tmp_path / "m", "config.json", "tokenizer.json", "a.safetensors")
    assert prepare(str(folder), tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


def test_an_incomplete_folder_is_refused_by_what_is_missing(tmp_path):
    folder = folder_with(tmp_path / "m", "config.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json, \*\.safetensors.*actors\.model=PATH"):
        prepare(str(folder), tmp_path)


def test_an_unknown_name_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match="'smolm2' is neither 'smollm2'"):
        prepare("smolm2", tmp_path)


def test_a_converted_model_is_found_again_and_gets_the_present_template(tmp_path):
    folder = folder_with(tmp_path / "smollm2-135m", "model.safetensors")
    (folder / "manifest.json").write_text(json.dumps({"model.safetensors": 2}))
    (folder / "chat_template.jinja").write_text("old")
    assert prepare("smollm2", tmp_path) == folder
    assert (folder / "chat_template.jinja").read_text() == CHAT_TEMPLATE.read_text()


@pytest.mark.e2e
def test_smollm2_is_converted_once_and_speaks_sense(tmp_path):
    folder = prepare("smollm2", tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert prepare("smollm2", tmp_path) == folder and (folder / "model.safetensors").stat().st_mtime_ns == written
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    assert "Paris" in tokenizer.decode(model.generate(**prompt, max_new_tokens=8, do_sample=False)[0])
    messages = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert text == render(messages, prompt=True)
