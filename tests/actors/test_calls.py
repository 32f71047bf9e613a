"""What a policy writes becomes calls: reading never fails, never runs anything, and reads back what was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.calls import CALL_FORMATS
from envs.types import Message, ToolCall

TEXTS = st.text(max_size=30)
NAMES = st.from_regex(r"[a-z_][a-z_0-9]{0,8}x", fullmatch=True)  # no keyword ends in x
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
JSON, PYTHON = CALL_FORMATS["json"], CALL_FORMATS["python"]


@pytest.mark.parametrize("name", CALL_FORMATS)
def test_an_answer_is_no_call_unless_the_limit_cut_it(name: str) -> None:
    answer = CALL_FORMATS[name].say("hello [1]")
    assert CALL_FORMATS[name].parse(answer) == Message("assistant", answer) and CALL_FORMATS[name].say(answer) == answer
    assert CALL_FORMATS[name].parse("half an ans", is_cut=True).malformed


@pytest.mark.parametrize("name", CALL_FORMATS)
@given(calls=st.lists(st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=4)), min_size=1, max_size=3))
def test_what_is_written_is_read_back(name: str, calls: list[ToolCall]) -> None:
    text = CALL_FORMATS[name].write(calls)
    if not any(tag in json.dumps([dict(call.arguments) for call in calls]) for tag in ("tool_call", "think", "answer")):
        assert CALL_FORMATS[name].parse(text) == Message("assistant", text, tuple(calls))


def test_bad_json_calls_are_named() -> None:
    for text, reason in {
        "<tool_call>{</tool_call>": "not JSON",
        "<tool_call>[]</tool_call>": "no name",
        '<tool_call>{"name": "a", "arguments": 3}</tool_call>': "arguments are not an object",
        '<tool_call>{"name": "a"}': "unbalanced tags",
        "<tool_call>" + "[" * 9999 + "</tool_call>": "not JSON",
        '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>': "not JSON",
    }.items():
        assert JSON.parse(text).malformed == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<tool_call>[]</tool_call>", "not <think>"),
        ("<think>a</think>hello", "not <think>"),
        ("hi <think>a</think><answer>b</answer>", "not <think>"),
        ("<think>a</think><answer>b</answer> bye", "not <think>"),
        ("<think>a</think>b<answer>c</answer>", "not <think>"),
        ("<think>a</think><tool_call>{</tool_call>", "not JSON"),
        ("<think>a</think><tool_call>[]</tool_call>", "not a list of calls"),
        ('<think>a</think><tool_call>{"name": "a"}</tool_call>', "not a list of calls"),
        ('<think>a</think><tool_call>[{"name": "a"}, 3]</tool_call>', "no name"),
    ],
)
def test_a_thought_comes_before_calls_or_an_answer(text: str, reason: str) -> None:
    assert CALL_FORMATS["think"].parse(text).malformed.startswith(reason)
    good = '<think>a < b</think>\n<tool_call>[{"name": "a", "arguments": {}}, {"name": "b"}]</tool_call>\n'
    assert CALL_FORMATS["think"].parse(good).calls == (ToolCall("a", {}), ToolCall("b", {}))


def test_llamas_calls_are_objects_one_after_another() -> None:
    read = CALL_FORMATS["llama"].parse
    two = '<|python_tag|>{"name": "a", "parameters": {"x": 1}}; {"name": "b", "parameters": {}}'
    assert read(two).calls == (ToolCall("a", {"x": 1}), ToolCall("b", {}))
    assert read("The set {1} is fine.") == Message("assistant", "The set {1} is fine.")
    for text, reason in {
        '{"name": "a"': "not JSON",
        "{}": "no name",
        '{"name": "a", "parameters": []}': "parameters are not an object",
        '{"name": "a"} and then': "text after a call",
        '{"name": "a", "parameters": {"x": NaN}}': "not JSON",
    }.items():
        assert read(text).malformed == reason


def test_python_calls_are_read_by_their_syntax_and_nothing_is_run() -> None:
    assert PYTHON.parse(" [fs.ls(a=-1, b=(1, None)), go()]\n").calls == (
        ToolCall("fs.ls", {"a": -1, "b": [1, None]}),
        ToolCall("go", {}),
    )
    for text, reason in {
        "[find(name=": "not a Python expression",
        "[]": "not a list of calls",
        "[1]": "not a call of a tool by its name",
        "[find(name='a')] done": "not a Python expression",
        "[f()()]": "not a call of a tool by its name",
        "[f(1)]": "an argument without its name",
        "[f(**{'a': 1})]": "arguments are unpacked, or one is given twice",
        "[f(a=1, a=2)]": "arguments are unpacked, or one is given twice",
        "[f(a=__import__('os').getcwd())]": "an argument is no literal",
        "[f(a={1})]": "an argument is no literal",
        "[f(a={1: 2})]": "an object's key is no text",
        "[f(a=b'x')]": "an argument is no literal",
        "[f(a=1e999)]": "a number has more than 30 digits",
        "[f(a=0x" + "f" * 4000 + ")]": "a number has more than 30 digits",
        "[" * 9999: "not a Python expression",
        "[f" + ".x" * 1500 + "(1)]": "an argument without its name",
        "[f(a=" + "-" * 9999 + "1)]": "not a Python expression",
    }.items():
        assert PYTHON.parse(text).malformed == reason, text[:40]


@pytest.mark.parametrize("name", CALL_FORMATS)
@given(
    pieces=st.lists(
        st.sampled_from(["<tool_call>", "</tool_call>", '{"name":', '"a"', "}", "x", "[", "f(", "=", ")", "]"]), max_size=12
    )
)
def test_any_text_parses(name: str, pieces: list[str]) -> None:
    message = CALL_FORMATS[name].parse("".join(pieces))
    assert message.content == "".join(pieces)
    assert not (message.calls and message.malformed)
