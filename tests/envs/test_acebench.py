"""ACEBench's format read from an invented folder: two small classes, three tasks alone and one with a user."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.config import ActorsConfig
from actors.env_actor import EnvActor
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from actors.vllm_engine import VLLMConfig
from cluster.evaluate import by_level, evaluate
from envs.acebench import Acebench, entry, oracle, taskset
from envs.acebench.world import is_right
from envs.augmentation import Rules
from envs.environment import environment
from envs.types import Message, Observation, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from rewards.points import points
from rewards.user_turns import verdict
from tests.envs.openai_server import serving

BASE = """
class BaseApi:
    def __init__(self):
        self.wifi = self.logged_in = False
    def _load_scenario(self, scenario, long_context=False):
        self.wifi, self.logged_in = scenario.get("wifi", False), scenario.get("logged_in", True)
    def turn_on_wifi(self):
        self.wifi = True
        return {"status": True, "message": "on"}
"""
NOTES = """
from model_inference.multi_turn.scenariosen.phone_platform.base_api import BaseApi

class ReminderApi(BaseApi):
    def __init__(self):
        self.secret, self.reminder_list = "not judged", {1: {"title": "water the fern"}}
    def add_reminder(self, title, lines=None):
        print("to standard output")
        if not self.wifi:
            return {"status": False, "message": "no connection"}
        self.reminder_list[len(self.reminder_list) + 1] = {"title": title}
        return [lines] if lines else "added"
"""
TOOLS = [
    {"name": "turn_on_wifi", "description": "", "parameters": {"type": "dict", "required": [], "properties": {}}},
    {
        "name": "add_reminder",
        "description": "Note something",
        "parameters": {
            "type": "dict",
            "required": ["title"],
            "properties": {"title": {"type": "string"}, "lines": {"type": "list", "items": {"type": "float"}}},
        },
    },
]
FERN, MOSS = {"1": {"title": "water the fern"}}, {"1": {"title": "water the fern"}, "2": {"title": "buy moss"}}
ON = {"BaseApi": {"wifi": True, "logged_in": True}}
ADD = "[add_reminder(title='buy moss')] "


def write(folder: Path, *, level: str, answers: Sequence[tuple[list[object], list[object]]]) -> None:
    data = folder / "data_all" / "data_en"
    (data / "possible_answer").mkdir(parents=True, exist_ok=True)
    tasks, truth = [], []
    for number, (state, stones) in enumerate(answers):
        id = f"agent_{level}_{number}"
        config = {"BaseApi": {"wifi": False, "logged_in": True}}
        row = {"id": id, "question": "Note: buy moss.", "initial_config": config, "path": [], "function": TOOLS}
        tasks.append(json.dumps({**row, "involved_classes": ["BaseApi", "ReminderApi"]}))
        truth.append(json.dumps({"id": id, "ground_truth": state, "mile_stone": stones}))
    (data / f"data_agent_{level}.json").write_text("\n".join(tasks) + "\n")
    (data / "possible_answer" / f"data_agent_{level}.json").write_text("\n".join(truth))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for level in ("multi_step", "multi_turn"):
        code = tmp_path / "model_inference" / level / "scenariosen" / "phone_platform"
        code.mkdir(parents=True)
        (code / "base_api.py").write_text(BASE)
        (code / "reminder.py").write_text(NOTES)
    (tmp_path / "model_inference" / "prompt_en.py").write_text('BASE_PROMPT_EN = """Be kind.\nFunction Calls: [like()]"""\n')
    state = [ON, {"ReminderApi": {"reminder_list": MOSS}}]
    paths = [["[turn_on_wifi(), add_reminder(title='buy moss')]"], ["[turn_on_wifi()]", ADD]]
    broken = ["[turn_on_wifi()]", "[add_reminder(title='the moss's pot')]"]
    misnamed = [ON, {"ReminderAPI": {"reminder_list": {}}}]
    write(tmp_path, level="multi_step", answers=[(state, ["[turn_on_wifi()]", ADD]), (state, paths), (misnamed, broken)])
    write(tmp_path, level="multi_turn", answers=[(state, ["[turn_on_wifi()]", ADD])])
    return str(tmp_path)


def played(task: Task, messages: Sequence[Message]) -> Trajectory:
    env = Acebench()
    env.reset(task)
    return Trajectory("t", task.id, tuple(Turn((), (), (), (), m, env.step(m)) for m in messages), Stop.DONE)


def calls(*made: tuple[str, dict[str, str]]) -> list[Message]:
    return [*(Message("assistant", "", (ToolCall(name, arguments),)) for name, arguments in made), Message("assistant", "Done.")]


def test_the_format_is_read_and_all_of_it_is_for_testing(folder: str):
    found = environment(f"acebench:{folder}")
    assert found.levels == ("multi_step",) and found.ready() is None
    tasks = found.taskset("test", "multi_step")
    assert [task.id for task in tasks] == [f"acebench/multi_step/{number}" for number in range(3)]
    assert not found.taskset("train", "multi_step") and not found.taskset("validation", "multi_step")
    assert tasks[0].messages[-1] == Message("user", "Note: buy moss.")
    schema = tasks[0].tools[1]["function"]["parameters"]  # type: ignore[index, call-overload]
    assert schema["type"] == "object" and schema["properties"]["lines"] == {"type": "array", "items": {"type": "number"}}  # type: ignore[index, call-overload]
    assert all(len(task.truth) == 1 for task in tasks)


def test_the_milestones_earn_the_verdict_and_nothing_else_does(folder: str, capsys: pytest.CaptureFixture[str]):
    tasks = taskset(folder, "test", "multi_step")
    for task in tasks:
        trajectory = played(task, oracle(task))
        assert (verdict(task, trajectory), points(task, trajectory).value) == ("", 1.0)
        idle = played(task, calls())
        assert verdict(task, idle) and points(task, idle).value == 0.0
    assert capsys.readouterr().out == ""
    assert not [name for name in sys.modules if name.startswith("model_inference")]


def test_milestones_are_counted_in_order_up_to_the_first_that_is_missing(folder: str):
    first, either, broken = taskset(folder, "test", "multi_step")
    moss = ("add_reminder", {"title": "buy moss"})
    half = played(first, calls(("turn_on_wifi", {}), ("add_reminder", {"title": "buy peat"}), ("add_reminder", {"title": "x"})))
    assert points(first, half).value == 0.5 and verdict(first, half) == "user turn 1: other state"
    too_soon = played(either, calls(moss, ("turn_on_wifi", {})))
    assert points(either, too_soon).value == 0.5, "the better path counts"
    none = played(broken, calls(moss))
    assert points(broken, none).value == 0.0, "what is no call is never reached, and what is after it neither"


@pytest.mark.parametrize(
    ("found", "answer", "right"),
    [
        ({"A": {"x": {"1": 1, "2": 2}}}, [{"A": {"x": {"1": 1}}}], True),  # more than the answer has
        ({"A": {"x": {"1": 1}}}, [{"A": {"x": {"1": 1, "2": 2}}}], False),
        ({"A": {"x": [1, 2]}}, [{"A": {"x": [1]}}], False),
        ({"A": {"x": 1, "y": 2}}, [{"A": {"x": 1}}], False),  # an attribute that the answer does not have
        ({"A": {"x": 1}}, [{"A": {"x": 1, "y": 2}}], True),
        ({"A": {"x": 1}, "B": {}}, [{"A": {"x": 1}}], False),  # another number of classes
        ({"A": {"x": 1}, "B": {"y": 2}}, [{"A": {"x": 1}}, {"b": {"y": 3}}], True),  # misnamed
    ],
)
def test_end_states_are_compared_as_the_official_scorer_does(found: dict, answer: list, right: bool):
    assert is_right(found, answer) is right


def test_nothing_that_the_policy_writes_is_run_as_code(folder: str):
    task, *_ = taskset(folder, "test", "multi_step")
    env = Acebench()
    env.reset(task)
    for name in ("_load_scenario", "__init__", "secret", "turn_on_wifi()", "search_reminders"):
        told = env.step(Message("assistant", "", (ToolCall(name, {}),))).signals.outcomes[0]
        assert told.error == f"no tool is called {name}"
    for arguments, error in (({"title": "x"}, "no connection"), ({"titel": "x"}, "unexpected keyword argument 'titel'")):
        told = env.step(Message("assistant", "", (ToolCall("add_reminder", arguments),))).signals.outcomes[0]
        assert error in told.error and error in str(told.result)
    env.step(Message("assistant", "", (ToolCall("turn_on_wifi", {}),)))


def test_an_evaluation_reports_both_accuracies(folder: str, byte_folder: str):
    tasks = taskset(folder, "test", "multi_step")[:1]
    renderer, acts = Renderer(byte_folder, "python"), iter(oracle(tasks[0]))
    config = ActorsConfig(calls="python", max_turns=20, max_action_tokens=200, engine=VLLMConfig(max_model_len=2**20))
    engine = ScriptedEngine(lambda tokens, session: renderer.act(next(acts)))
    actor = EnvActor(config, engine, model=byte_folder, rules=Rules("", 0), rubrics=rubrics(RewardsConfig()))
    groups = asyncio.run(evaluate([actor], tasks, stage="test"))
    assert by_level(groups)["multi_step"].success == 1.0 and groups[0].trajectories[0].parts["points"] == 1.0


def test_a_user_is_played_where_a_model_is_named(folder: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    lines = iter(["<think>hm</think>User: A note, please.", "buy moss", "Finish conversation"])

    def reply(system: str, user: str) -> str:
        asked.append(user)
        assert "Note: buy moss." in system
        return next(lines)

    with serving(reply) as url:
        monkeypatch.setenv("TILTYARD_USER_URL", url)
        with pytest.raises(ValueError, match="TILTYARD_USER_MODEL is not set"):
            entry(folder)
        monkeypatch.setenv("TILTYARD_USER_MODEL", "m")
        found = entry(folder)
        assert found.levels == ("multi_step", "multi_turn")
        (task,) = found.taskset("test", "multi_turn")
        assert task.messages[0].content.endswith("Be kind.")
        env = Acebench()
        assert env.reset(task).messages == (*task.messages, Message("user", "A note, please."))
        act = Message("assistant", "What about?")
        assert env.step(act) == Observation((Message("user", "buy moss"),))
        turns = [Turn((), (), (), (), act, env.step(act)) for act in (*oracle(task)[:2], Message("assistant", "It is noted."))]
    trajectory = Trajectory("t", task.id, tuple(turns), Stop.DONE)
    assert turns[-1].observation.done and verdict(task, trajectory) == ""
    assert asked[2].split("\n")[1:4] == ["User: A note, please.", "Assistant: What about?", "User: buy moss"]


def test_without_such_a_model_its_tasks_are_refused(folder: str):
    (task,) = taskset(folder, "test", "multi_turn")
    with pytest.raises(ValueError, match="set TILTYARD_USER_URL .* TILTYARD_USER_MODEL"):
        Acebench().reset(task)


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("data_all/data_en/data_agent_multi_step.json", '{"id": "x"}', "line 1: ValueError.*x has no line in"),
        ("data_all/data_en/data_agent_multi_step.json", '{"id": "agent_multi_step_0"}', "line 1: KeyError.*whole clone"),
        ("data_all/data_en/data_agent_multi_step.json", '\n{"id": ', "line 2: not JSON.*whole clone"),
        ("data_all/data_en/possible_answer/data_agent_multi_step.json", "[]", "line 1: not an object.*whole clone"),
        ("model_inference/multi_step/scenariosen/phone_platform/reminder.py", "import no_such", "ReminderApi.*no_such.*clone"),
    ],
)
def test_what_is_broken_is_named(folder: str, path: str, text: str, told: str):
    (Path(folder) / path).write_text(text)
    with pytest.raises(ValueError, match=told):
        taskset(folder, "test", "multi_step")


def test_another_folder_has_classes_of_its_own(folder: str, tmp_path: Path):
    taskset(folder, "test", "multi_step")
    with pytest.raises(ValueError, match="data_agent_multi_step.json: cannot be read"):
        entry(str(tmp_path / "empty")).ready()
