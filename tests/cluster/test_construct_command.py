"""`tiltyard construct`: the same bytes whatever happens on the way, and an author who fails in every way there is."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import main
from cluster.construction import Construction, Settings
from envs.construct.embedded.author import EmbeddedAuthor, questions
from envs.construct.gates import objection
from envs.construct.pipeline import Builder
from envs.construct.records import KINDS, Built, Question, Scenario, SubQuestion, Toolset
from envs.environment import environment
from envs.sandbox import Sandbox
from envs.types import Json, ToolCall
from tests.envs.openai_server import serving

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TILTYARD_DATA", ""))


def construct(*arguments: str) -> int:
    return main(["construct", *arguments])


def rows(path: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> dict[str, object]:
    """All but how often the author was asked: where a busy machine's sandbox takes too long it is asked again."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    manifest = json.loads((folder / "manifest.json").read_text())
    return found | {"manifest.json": {name: value for name, value in manifest.items() if name != "usage"}}


def test_the_same_seed_gives_the_same_bytes_killed_half_way_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert construct("--count", "40", "--out", str(whole)) == 0
    told = capsys.readouterr().out
    assert "40 environments (10 multi_hop, 10 parallel_multi_hop, 10 parallel_single_hop, 10 single_hop), 0 rejected" in told
    assert "one of them: What " in told and "\n  2. What is the " in told
    command = [sys.executable, "-m", "cluster.cli", "construct", "--count", "40", "--out", str(cut)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = cut / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 60:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n")
    with journal.open("ab") as file:
        file.write(b'["embedded/0/7", "sca')  # as a kill in the middle of a line leaves it
    assert construct("--count", "40", "--out", str(cut)) == 0
    assert done >= 60 and files(cut) == files(whole)
    assert construct("--count", "40", "--out", str(cut)) == 0
    assert "is there already: 40 environments" in capsys.readouterr().out
    assert construct("--count", "40", "--seed", "1", "--out", str(cut)) == 2
    assert "holds another construction" in capsys.readouterr().err
    (cut / "environments.jsonl").write_text("{}\n")
    assert construct("--count", "40", "--out", str(cut)) == 2
    assert "is not as it was written" in capsys.readouterr().err


def test_what_was_built_is_an_environment_with_splits_and_an_oracle(tmp_path: Path) -> None:
    assert construct("--count", "40", "--shares", "6", "2", "2", "--out", str(tmp_path)) == 0
    entry = environment(f"constructed:{tmp_path}")
    for level in KINDS:
        assert [len(entry.taskset(split, level)) for split in ("train", "validation", "test")] == [6, 2, 2]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["accepted"] == dict.fromkeys(sorted(KINDS), 10) and manifest["usage"]["asked"] == 200
    assert {len(hash) for hash in manifest["sha256"].values()} == {64}


class Unreliable:
    """Answers as the embedded author would, every third time in a way that is of no use, and to some questions never better."""

    WAYS = ("malformed", "refusal", "wrong code", "slow", "empty", "another object", "cut off")

    def __init__(self) -> None:
        self._rng, self._lock = random.Random(5), threading.Lock()
        self.asked: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()

    def __call__(self, system: str, user: str) -> str:
        request = json.loads(user)
        id = request["question"]["id"]
        reply = EmbeddedAuthor().ask(system, user).text
        with self._lock:
            self.asked[f"{id} {request['stage']}"] += 1
            is_hopeless = id.endswith(("3", "8")) and request["stage"] == ("deploy" if id.endswith("3") else "document")
            way = self._rng.choice(self.WAYS) if is_hopeless or self._rng.random() < 0.33 else ""
            self.ways[way] += 1
        return self._spoilt(reply, way)

    def _spoilt(self, reply: str, way: str) -> str:
        match way:
            case "malformed":
                return reply.replace('"', "'")
            case "refusal":
                return "I am sorry, I cannot help with that."
            case "wrong code":
                return (
                    reply.replace("return {", "raise ValueError({").replace("value}", "value})")
                    if "codes" in reply
                    else '{"tools": 1}'
                )
            case "slow":
                time.sleep(2.5)
                return reply
            case "empty":
                return ""
            case "another object":
                return '{"result": "done"}'
            case "cut off":
                return reply[: len(reply) // 2]
            case _:
                return f"Here you are:\n```json\n{reply}\n```"


def rebuilt(row: dict[str, Any]) -> Built:
    """What an accepted line was written from, but for its examples."""
    told = row["sub_questions"]
    subs = tuple(SubQuestion(sub["id"], sub["text"], sub["answer"], tuple(sub["needs"])) for sub in told)
    scenario = Scenario(Question(row["id"], row["question"], row["answer"]), subs)
    calls = {sub["id"]: ToolCall(sub["call"]["name"], sub["call"]["arguments"]) for sub in told}
    toolset = Toolset(scenario, tuple(tool["function"] for tool in row["tools"]), calls)
    return Built(toolset, row["codes"], {sub["id"]: sub["result"] for sub in told})


def test_an_author_that_fails_in_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = list(questions(3, 24))
    file, out = tmp_path / "questions.jsonl", tmp_path / "out"
    told = [{"id": one.id, "question": one.text, "answer": one.answer, "kind": one.kind} for one in asked]
    file.write_text("".join(json.dumps(one) + "\n" for one in told))
    author = Unreliable()
    with serving(author) as url:
        arguments = [
            "--questions",
            str(file),
            "--author",
            url,
            "--model",
            "m",
            "--timeout-s",
            "1",
            "--parallel",
            "24",
            "--out",
            str(out),
        ]
        command = [sys.executable, "-m", "cluster.cli", "construct", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = out / "journal.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 30:
            time.sleep(0.01)
            assert process.poll() is None
        process.kill()
        process.wait()
        kept = [json.loads(line)[:2] for line in journal.read_text().splitlines()[1:]]
        before = Counter(author.asked)
        assert construct(*arguments) == 0
    for id, stage in kept:
        assert author.asked[f"{id} {stage}"] == before[f"{id} {stage}"], "what is done is not asked for again"
    accepted, rejected = rows(out / "environments.jsonl"), rows(out / "rejected.jsonl")
    assert {row["id"] for row in accepted} | {row["id"] for row in rejected} == {one.id for one in asked}
    assert len(accepted) + len(rejected) == 24 and len(accepted) >= 8
    hopeless = {one.id for one in asked if one.id.endswith(("3", "8"))}
    assert hopeless <= {row["id"] for row in rejected} and all(row["reason"] for row in rejected)
    assert set(author.WAYS) <= set(author.ways)
    assert f"{len(accepted)} environments" in capsys.readouterr().out
    sandbox = Sandbox()
    for row in accepted:
        assert objection(rebuilt(row), sandbox) == ""
        for sub in row["sub_questions"]:  # type: ignore[union-attr]
            given = sandbox.call(row["codes"][sub["call"]["name"]], sub["call"]["name"], sub["call"]["arguments"])  # type: ignore[index,call-overload]
            assert given.result == sub["result"] and not given.error  # type: ignore[index,call-overload]
    sandbox.close()


def test_an_endpoint_that_is_not_there_ends_the_run_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "How high is it?", "answer": "12"}\n')
    arguments = ["--questions", str(file), "--author", "http://127.0.0.1:9/v1", "--model", "m", "--out", str(tmp_path / "out")]
    assert construct(*arguments) == 1
    told = capsys.readouterr().err
    assert "is the server up" in told and "the same command goes on from here" in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--author", "http://127.0.0.1:9/v1", "--model", "m"], "which questions?"),
        (["--questions", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--shares", "0", "1", "1"], "the first above 0"),
        (["--import", "csv", "x"], "no format is called 'csv'; there are: ftrl, toolhop"),
        (["--import", "ftrl", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
    ],
)
def test_what_cannot_start_says_why(
    arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert construct(*arguments, "--out", str(tmp_path / "out")) == 2
    assert reason in capsys.readouterr().err


def test_a_bad_line_of_questions_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "q.jsonl"
    for line, reason in (("{", "line 2:"), ('{"question": "x"}', 'needs "question" and "answer"'), ("[]", "line 2:")):
        file.write_text('{"question": "x", "answer": "y"}\n' + line + "\n")
        assert construct("--questions", str(file), "--author", "http://x/v1", "--model", "m", "--out", str(tmp_path / "o")) == 2
        told = capsys.readouterr().err
        assert f"{file}, line 2" in told and reason in told


@pytest.mark.skipif(not (DATA / "ftrl_100.jsonl").is_file(), reason="TILTYARD_DATA has no ftrl_100.jsonl")
def test_ftrls_own_tasks_load_and_deploy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert construct("--import", "ftrl", str(DATA / "ftrl_100.jsonl"), "--out", str(tmp_path)) == 0
    assert "loaded 100, deployed 100, rejected 0" in capsys.readouterr().out
    entry = environment(f"constructed:{tmp_path}")
    assert [len(entry.taskset("test", level)) for level in KINDS] == [25, 25, 25, 25]


BARE: Json = {"type": "object", "properties": {}}
TOOLHOP = {
    "question": "In what year was the maker of the Kestrel founded?", "answer": "1912",
    "sub_task": {"Who makes the Kestrel?": "Tolven", "When was Tolven founded?": "1912"},
    "tools": {
        "Who makes the Kestrel?": {"name": "maker", "description": "Maker of a thing.", "parameters": BARE},
        "When was Tolven founded?": {"name": "founded", "description": "Year.", "parameters": BARE},
    },
    "functions": ["def maker():\n    return 'Tolven'", "def founded():\n    return 1912"],
}  # fmt: skip


def test_imports_take_toolhops_form_and_reject_with_line_and_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "toolhop.jsonl"
    broken = {**TOOLHOP, "functions": ["def maker(:", "def founded():\n    return 1912"]}
    missing = {**TOOLHOP, "functions": ["def maker():\n    return 'Tolven'"]}
    failing = {**TOOLHOP, "functions": ["import nothing\ndef maker():\n    return 1", "def founded():\n    return 1912"]}
    file.write_text("".join(json.dumps(row) + "\n" for row in (TOOLHOP, broken, missing, failing)) + "not JSON\n")
    assert construct("--import", "toolhop", str(file), "--out", str(tmp_path / "out")) == 0
    told = capsys.readouterr().out
    assert "loaded 2, deployed 1, rejected 4" in told
    assert "line 2: invalid syntax" in told and "line 3: the tool 'founded' has no code" in told
    assert "line 4: the code of 'maker' does not deploy: ModuleNotFoundError" in told and "line 5:" in told
    (one,) = environment(f"constructed:{tmp_path / 'out'}").taskset("test", "multi_hop")
    assert one.messages[-1].content == TOOLHOP["question"]


class Mortal(Builder):
    """Dies at its third piece of work, as often as it is told to."""

    deaths_left = 0
    done = 0

    async def advance(self, id: str, stage: str, record: Any) -> Any:
        self.done += 1
        if self.done == 3 and Mortal.deaths_left:
            Mortal.deaths_left -= 1
            raise ConnectionError("the actor is gone")
        return await super().advance(id, stage, record)


@pytest.mark.parametrize("deaths", [2, 40])
async def test_a_builder_that_dies_is_replaced_and_the_bytes_are_the_same(deaths: int, tmp_path: Path) -> None:
    told, found = Settings("embedded", "", (8, 1, 1), 1), []
    for folder, number in ((tmp_path / "whole", 0), (tmp_path / "broken", deaths)):
        Mortal.deaths_left = number
        make = partial(Mortal, partial(EmbeddedAuthor), workers=1, insecure=False)
        await Construction(folder, told, tuple(questions(0, 8))).run(make, 0)
        found.append(files(folder))
    assert found[0] == found[1]
