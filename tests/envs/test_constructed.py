"""Constructed environments as environments: what is answered, what is refused, what is read from a file."""

import json
from pathlib import Path

import pytest

from envs.constructed import Constructed
from envs.constructed.constructed import MAX_MESSAGES
from envs.constructed.tasks import FILE, oracle, read, task
from envs.environment import environment
from envs.types import Json, Message, Task, ToolCall

PARAMETERS: Json = {"type": "object", "properties": {"who": {"type": "string"}, "unit": {"type": "string", "enum": ["years"]}}}
AGE: Json = {"name": "age", "description": "Tell an age.", "parameters": {**PARAMETERS, "required": ["who"]}}  # type: ignore[dict-item]
CODE = (
    "def age(who, unit='years'):\n    if who == 'Kai':\n        raise ValueError('gone')\n"
    "    return {'age': {'Ada': 41, 'Bo': 52}[who]} if who in ('Ada', 'Bo') else {'error': f'nobody is called {who}'}"
)
ENTRY: dict[str, Json] = {
    "id": "1", "data_source": "single_hop", "question": "How old is Ada?", "answer": "41", "tools": [AGE], "codes": {"age": CODE},
    "unsolved_set": {"age": ["41"]},
    "sub_questions": [{"call": {"name": "age", "arguments": {"who": "Ada"}}, "result": {"age": 41}}],
    "examples": [{
        "question": "How old is Bo?", "calls": [{"name": "age", "arguments": {"who": "Bo"}}],
        "results": [{"age": 52}], "answer": "52",
    }],
}  # fmt: skip


@pytest.fixture
def one() -> Task:
    return task(ENTRY, "constructed:x")


def calling(*calls: tuple[str, dict[str, Json]]) -> Message:
    return Message("assistant", "", tuple(ToolCall(name, arguments) for name, arguments in calls))


def test_an_episode(one: Task) -> None:
    env = Constructed()
    opening = env.reset(one)
    assert [message.role for message in opening.messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert opening.messages[2].calls == (ToolCall("age", {"who": "Bo"}),) and opening.messages[-1].content == "How old is Ada?"
    seen = env.step(calling(("age", {"who": "Ada"}), ("age", {"who": "Bo"})))
    assert [message.content for message in seen.messages] == ['{"age": 41}', '{"age": 52}'] and not seen.done
    assert env.step(Message("assistant", "", (), "not JSON")).messages[0].content == '{"error":"malformed"}'
    last = env.step(Message("assistant", "41"))
    assert last.done and last.signals.state == {} and last.messages == ()
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(Message("assistant", "41"))


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("ghost", {}, "no tool is called ghost"),
        ("age", {}, "arguments: 'who' is a required property"),
        ("age", {"who": 3}, "who: 3 is not of type 'string'"),
        ("age", {"who": "Ada", "extra": 1}, "arguments: Additional properties are not allowed ('extra' was unexpected)"),
        ("age", {"who": "Ada", "unit": "days"}, "unit: 'days' is not one of ['years']"),
        ("age", {"who": "Eve"}, "nobody is called Eve"),
        ("age", {"who": "Kai"}, "ValueError: gone"),
    ],
)
def test_errors_are_answers(one: Task, name: str, arguments: dict[str, Json], error: str) -> None:
    env = Constructed()
    env.reset(one)
    seen = env.step(calling((name, arguments)))
    (outcome,) = seen.signals.outcomes
    assert outcome.error == error and json.loads(seen.messages[0].content) == {"error": error}


def test_an_endless_episode_ends(one: Task) -> None:
    env = Constructed()
    env.reset(one)
    seen = [env.step(calling(("age", {"who": "Ada"}))) for _ in range(MAX_MESSAGES)]
    assert [step.done for step in seen] == [False] * (MAX_MESSAGES - 1) + [True]


def test_answers_never_enter_the_payload(one: Task) -> None:
    assert set(one.payload) == {"codes"}
    assert [message.content for message in oracle(one)] == ["", "41"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_source": "two-hop"}, "data_source is 'two-hop', which is none of: single_hop"),
        ({"codes": {}}, "the tool 'age' has no code"),
        ({"unsolved_set": {"ghost": ["1"]}}, "unsolved_set names 'ghost', which is no tool"),
        ({"unsolved_set": {}}, "there is nothing to find"),
        ({"tools": "{"}, "'tools' holds no JSON"),
        ({"tools": ["x"]}, 'a tool is no document of a function: "x"'),
        ({"question": ""}, "'question' is missing"),
    ],
)
def test_bad_lines_are_named_with_file_and_line(change: dict[str, Json], reason: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(json.dumps(ENTRY) + "\n" + json.dumps({**ENTRY, **change}) + "\n")
    with pytest.raises(ValueError) as caught:
        list(read(path, "constructed:x"))
    assert f"{path}, line 2: " in str(caught.value) and reason in str(caught.value)


def test_a_folder_without_environments_says_how_to_build_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiltyard construct"):
        environment(f"constructed:{tmp_path}").ready()
    with pytest.raises(ValueError, match="constructed:FOLDER"):
        environment("constructed")


def test_a_line_ends_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / FILE
    odd = {**ENTRY, "question": "How old\u2028is\x85Ada?"}
    path.write_text(json.dumps(odd, ensure_ascii=False) + "\n" + json.dumps(ENTRY) + "\n", encoding="utf-8")
    assert [found.messages[-1].content for _, found in read(path, "constructed:x")] == [odd["question"], "How old is Ada?"]


def test_nested_json_and_own_messages_are_read_as_published() -> None:
    published = {key: json.dumps(value) if key in ("tools", "codes", "unsolved_set") else value for key, value in ENTRY.items()}
    published["messages"] = json.dumps([{"role": "user", "content": "Question: How old is Ada?"}])
    published["data_source"] = "self/Single-Hop"
    found = task(published, "constructed:x")
    assert found.level == "single_hop" and [message.content for message in found.messages] == ["Question: How old is Ada?"]
