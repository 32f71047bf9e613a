import ast
import inspect
import json
import os
import random
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

from actors.calls import CALL_FORMATS
from deploy.bfcl_parity import changed, compare
from envs.augmentation import Augmented, load_rules
from envs.bfcl import LEVELS, RULES, Bfcl, messages, oracle, recorded, taskset
from envs.bfcl.bfcl import error_of
from envs.bfcl.data import CATEGORIES, DATA, scenarios
from envs.bfcl.tasks import MAX_MESSAGES, SPLIT, make_world
from envs.bfcl.world import CLASSES, ENDLESS, World, functions
from envs.call_text import NotACall
from envs.environment import Environment
from envs.types import Json, Message, Observation, Stop, Task, ToolCall, Trajectory, Turn
from rewards.progress import progress
from rewards.user_turns import solved, verdict

BFCL_RULES = load_rules(RULES)
DONE = Message("assistant", "Done.")
SPLITS = tuple(SPLIT)


def tasks(*levels: str) -> list[Task]:
    return [task for level in levels or LEVELS for split in SPLITS for task in taskset(split, level)]


def played(env: Environment, task: Task, acts: list[Message]) -> Trajectory:
    """The messages up to the episode's end."""
    env.reset(task)
    turns: list[Turn] = []
    for message in acts:
        turns.append(Turn((), (), (), (), message, env.step(message)))
        if turns[-1].observation.done:
            break
    return Trajectory("t", task.id, tuple(turns), Stop.DONE)


def acting(task: Task, turns: list[list[str]]) -> list[Message]:
    """Call strings of each user turn as messages."""
    return [message for turn in turns for message in (*messages([recorded(task, text) for text in turn]), DONE)]


def test_there_are_800_tasks_and_no_scenario_is_in_two_splits():
    assert [len(taskset(split, level)) for split in SPLITS for level in LEVELS] == [100] * 4 + [25] * 4 + [75] * 4
    assert len({task.id for task in tasks()}) == 800
    assert sorted(number for numbers in SPLIT.values() for number in numbers) == list(range(200))


def test_the_split_is_the_papers():
    folder = os.environ.get("TILTYARD_DATA")
    if not folder:
        pytest.skip("TILTYARD_DATA names no folder with bfcl_split.json")
    told = json.loads((Path(folder) / "bfcl_split.json").read_text())["splits"]
    assert {name: sorted(numbers) for name, numbers in SPLIT.items()} == {
        name: sorted(told[{"validation": "val"}.get(name, name)]) for name in SPLIT
    }


def test_the_reference_solves_every_task():
    for task in tasks():
        trajectory = played(Bfcl(), task, list(oracle(task)))
        assert not verdict(task, trajectory) and all(solved(task, trajectory)), task.id
        assert progress(task, trajectory).value == 1.0


def test_doing_nothing_solves_no_task_and_is_right_where_nothing_can_be_done():
    for task in tasks("miss_param"):
        trajectory = played(Bfcl(), task, [DONE] * len(task.truth))
        assert verdict(task, trajectory)
        assert solved(task, trajectory) == tuple(not entry["calls"] for entry in task.truth)


def test_a_call_where_nothing_can_be_done_costs_that_turn_alone():
    task = taskset("train", "miss_param")[0]
    turns = [[json.dumps(call) for call in entry["calls"]] for entry in task.truth]
    empty = next(number for number, calls in enumerate(turns) if not calls)
    messages = list(oracle(task))
    place = [index for index, message in enumerate(messages) if not message.calls][empty]
    messages.insert(place, Message("assistant", "", (ToolCall("no_such_tool", {}),)))
    trajectory = played(Bfcl(), task, messages)
    assert solved(task, trajectory) == tuple(number != empty for number in range(len(turns)))
    assert not verdict(task, trajectory)


def test_held_out_functions_come_when_their_turn_does():
    for split in SPLITS:
        for task in taskset(split, "miss_func"):
            scenario = scenarios("miss_func")[int(task.id.rpartition("/")[2])]
            given = {tool["function"]["name"] for tool in task.tools}
            assert scenario.added
            for turn, names in scenario.added.items():
                assert not given & set(names) and not task.truth[turn - 1]["calls"]
                assert all(f'{{"name": "{name}", "description": ' in str(task.payload["requests"][turn]) for name in names)


def test_a_user_turn_ends_the_episode_after_as_many_messages_as_the_benchmark_allows():
    task = taskset("train", "base")[0]
    call = Message("assistant", "", (ToolCall("no_such_tool", {}),))
    trajectory = played(Bfcl(), task, [call] * (MAX_MESSAGES + 1))
    assert len(trajectory.turns) == MAX_MESSAGES and verdict(task, trajectory)


def test_verdicts_equal_the_official_checkers(capsys: pytest.CaptureFixture[str]):
    assert compare(400) == 0, capsys.readouterr().out


def test_an_episode_replayed_is_the_same_at_every_turn():
    for task in taskset("validation", "long_context"):
        messages = list(oracle(task))
        whole = played(Bfcl(), task, messages)
        for stop in range(1, len(messages), 3):
            again = played(Bfcl(), task, messages[:stop])
            assert again.turns == whole.turns[:stop]


def test_episodes_at_the_same_time_share_nothing():
    some = taskset("validation", "base") + taskset("validation", "long_context")
    alone = [played(Bfcl(), task, list(oracle(task))).turns for task in some]
    envs = [Bfcl() for _ in some]
    for env, task in zip(envs, some, strict=True):
        env.reset(task)
    rng, left = random.Random(0), [list(oracle(task)) for task in some]
    seen: list[list[Observation]] = [[] for _ in some]
    while any(left):
        at = rng.choice([index for index, messages in enumerate(left) if messages])
        seen[at].append(envs[at].step(left[at].pop(0)))
    assert seen == [[turn.observation for turn in turns] for turns in alone]


def test_a_card_that_one_episode_charges_is_whole_in_the_next():
    """The classes keep long_context's cards to themselves, one for all."""
    task = next(task for task in taskset("train", "long_context") if "TravelAPI" in task.payload["classes"])
    before = make_world(task).state()
    world = make_world(task)
    cards = world._instances["TravelAPI"].credit_card_list
    for card in cards.values():
        card["balance"] -= 1
    assert world.state() != before and make_world(task).state() == before


def test_a_folder_within_itself_is_the_policys_mistake():
    task = next(task for task in taskset("train", "base") if "GorillaFileSystem" in task.payload["classes"])
    env = Bfcl()
    env.reset(task)
    for name, arguments in (("mkdir", {"dir_name": "loop"}), ("cp", {"source": "loop", "destination": "loop"})):
        env.step(Message("assistant", "", (ToolCall(name, arguments),)))
    assert env.step(Message("assistant", "Done.")).signals.state == ENDLESS


# Augmentation


def test_hints_change_no_result_and_no_state_of_any_reference():
    for task in tasks():
        plain = played(Bfcl(), task, list(oracle(task)))
        hinted = played(Augmented(Bfcl(), BFCL_RULES, strength=1.0), task, list(oracle(task)))
        assert [bare(turn) for turn in hinted.turns] == [bare(turn) for turn in plain.turns], task.id


def bare(turn: Turn) -> Observation:
    """What was observed but for the words of tools."""
    messages = tuple(replace(m, content="") if m.role == "tool" else m for m in turn.observation.messages)
    return replace(turn.observation, messages=messages, signals=replace(turn.observation.signals, hints=()))


def error_templates() -> list[tuple[str, str]]:
    """(tool, error) of everything that the classes return as an error or raise, "7" for what they fill in."""
    found: list[tuple[str, str]] = []
    for name in CLASSES:
        tree = ast.parse(inspect.getsource(inspect.getmodule(CLASSES[name])))
        body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        methods = {node.name: node for node in body.body if isinstance(node, ast.FunctionDef)}
        for method in methods.values():
            users = [method.name] if not method.name.startswith("_") else [
                other for other, node in methods.items() if f"self.{method.name}(" in ast.unparse(node)
            ]  # fmt: skip
            found += [(user, error) for user in users for error in told_by(method)]
    return found


def told_by(method: ast.FunctionDef) -> list[str]:
    errors: list[ast.expr] = []
    for node in ast.walk(method):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            errors.append(node.exc.args[0])
        if isinstance(node, ast.Dict):
            errors += [value for key, value in zip(node.keys, node.values, strict=True) if key and ast.unparse(key) == "'error'"]
    return list(map(filled, errors))


def filled(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in parts)
        case ast.BinOp(left=left, right=right):
            return filled(left) + filled(right)
        case _:
            return "whatever another exception says"


PYTHONS_OWN = {
    "f() missing 1 required positional argument: 'a'", "f() missing 2 required positional arguments: 'a' and 'b'",
    "f() got an unexpected keyword argument 'a'", "f() takes 1 positional argument but 2 were given",
    "f() takes 2 positional arguments but 3 were given", "f() takes from 1 to 2 positional arguments but 3 were given",
    "f() got multiple values for argument 'a'", "name 'f' is not defined", "malformed",
}  # fmt: skip


# Why an error needs no rule of its own: what is in fact told.
EXEMPT = {
    # find goes through a helper that speaks in the name of cd, and puts its own name there before it tells the error.
    ("find", "whatever another exception says"): [("find", "find: '7': No such file or directory")],
    ("find", "cd: '7': No such file or directory"): [("find", "find: '7': No such file or directory")],
    # du gives that helper the current folder alone, which is always there.
    ("du", "cd: '7': No such file or directory"): [],
}  # fmt: skip


def test_every_error_that_the_classes_return_has_a_hint():
    templates = error_templates()
    assert len(templates) > 150 and len({tool for tool, _ in templates}) > 60
    missing = {(tool, error) for tool, error in templates if not BFCL_RULES.find(tool, error)}
    assert missing == set(EXEMPT)
    assert all(BFCL_RULES.find(tool, error) for pairs in EXEMPT.values() for tool, error in pairs)
    assert all(BFCL_RULES.find("cd", error) for error in PYTHONS_OWN)


def test_no_rule_of_bfcl_is_idle():
    errors = [*error_templates(), *(("", error) for error in PYTHONS_OWN), *(pair for pairs in EXEMPT.values() for pair in pairs)]
    used = {BFCL_RULES.find(*pair) for pair in errors}
    idle = [rule for rules in BFCL_RULES.rules.values() for rule in rules if rule not in used]
    assert not idle


def test_a_hint_of_bfcl_names_what_the_error_names():
    task = next(task for task in taskset("train", "base") if "cd" in {t["function"]["name"] for t in task.tools})
    env = Augmented(Bfcl(), BFCL_RULES, strength=1.0)
    env.reset(task)
    observation = env.step(Message("assistant", "", (ToolCall("cd", {"folder": "nowhere"}), ToolCall("cd", {}))))
    assert "The current folder has no folder nowhere." in observation.messages[0].content
    assert "'folder'" in observation.messages[1].content
    assert len(observation.signals.hints) == 2


def test_no_hint_tells_what_the_reference_still_has_to_do():
    """Every hint that fires along changed references, against the texts and numbers of what remains."""
    fired = 0
    by_id = {task.id: task for task in tasks()}
    for category, scenario, kind, turns in changed(1200):
        task = by_id[f"bfcl/{category}/{scenario.number}"]
        env = Augmented(Bfcl(), BFCL_RULES, strength=1.0)
        env.reset(task)
        known = json.dumps([list(task.tools), [message.content for message in task.messages]])
        user_turn = 0
        for message in acting(task, turns):
            known += json.dumps([dict(call.arguments) for call in message.calls])
            observation = env.step(message)
            for hint in observation.signals.hints and [one.content for one in observation.messages if one.role == "tool"]:
                fired += bool(observation.signals.hints)
                told = [value for value in secrets(task, user_turn) if value not in known and value in hint]
                assert not told, (task.id, kind, hint, told)
            known += json.dumps([one.content for one in observation.messages])
            user_turn += not message.calls
            if observation.done:
                break
    assert fired > 500


def secrets(task: Task, user_turn: int) -> set[str]:
    """Argument values of the reference calls from this user turn on that a hint could give away."""
    values: list[Json] = [
        value for entry in task.truth[user_turn:] for call in entry["calls"] for value in call["arguments"].values()
    ]
    texts = [str(value) for value in values if isinstance(value, (str, int, float)) and not isinstance(value, bool)]
    return {text for text in texts if len(text) >= 3}


# Attacks


ATTACKS = [
    "__import__('os').system('touch {canary}')",
    "__import__('os').popen('touch {canary}').read()",
    "open('{canary}', 'w')",
    "open('{canary}', 'w').write('x')",
    "exec(\"open('{canary}', 'w')\")",
    "eval(\"open('{canary}', 'w')\")",
    "compile(\"open('{canary}', 'w')\", 'a', 'exec')",
    "cd(folder=open('{canary}', 'w'))",
    "cd(folder=__import__('os').system('touch {canary}'))",
    "cd(folder=exec(\"open('{canary}', 'w')\"))",
    "cd(folder=(lambda: open('{canary}', 'w'))())",
    "(lambda: open('{canary}', 'w'))()",
    "cd(folder=[open('{canary}', 'w') for _ in [1]])",
    "cd(folder={open('{canary}', 'w') for _ in [1]})",
    "cd(folder={{1: open('{canary}', 'w') for _ in [1]}})",
    "cd(folder=(open('{canary}', 'w') for _ in [1]))",
    "cd(folder=f\"{{open('{canary}', 'w')}}\")",
    "cd(folder=f\"{{__import__('os').system('touch {canary}')}}\")",
    "cd(folder=(x := open('{canary}', 'w')))",
    "cd(folder=open('{canary}', 'w') if True else 1)",
    "cd(folder=open('{canary}', 'w') or 1)",
    "cd(folder=not open('{canary}', 'w'))",
    "cd(folder=[*open('{canary}', 'w')])",
    "cd(*open('{canary}', 'w'))",
    "cd(**{{'folder': open('{canary}', 'w')}})",
    "cd(folder='a', **{{'folder': 'b'}})",
    "cd(folder={{open('{canary}', 'w'): 1}})",
    "cd(folder={{'a': open('{canary}', 'w')}})",
    "cd(folder=[[open('{canary}', 'w')]])",
    "cd(folder='a'.__class__)",
    "cd(folder=().__class__.__base__.__subclasses__())",
    "().__class__.__bases__[0].__subclasses__()[0]()",
    "''.__class__.__mro__[1].__subclasses__()",
    "cd.__globals__['__builtins__']['open']('{canary}', 'w')",
    "cd.__func__.__globals__",
    "cd.__self__.__init__()",
    "self.cd(folder='a')",
    "getattr(cd, '__self__')",
    "setattr(cd, '__doc__', 'x')",
    "globals()",
    "locals()",
    "vars()",
    "dir()",
    "__init__()",
    "_load_scenario(scenario={{}})",
    "__class__()",
    "__setattr__('a', 'b')",
    "breakpoint()",
    "input()",
    "exit()",
    "quit()",
    "kill()",
    "os.kill(1, 9)",
    "os.remove('{canary}')",
    "subprocess.run(['touch', '{canary}'])",
    "sys.exit(1)",
    "multi_turn_checker.state_checker([], [])",
    "state_checker([], [])",
    "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils.execute_multi_turn_func_call([], {{}}, [], 'a', 'b')",
    "GorillaFileSystem()",
    "GorillaFileSystem.cd(folder='a')",
    "World.run('x')",
    "power(base=10, exponent=10**9)",
    "power(base=10, exponent=999999999)",
    "power(base=999999999999999999999999, exponent=999)",
    "logarithm(value=2, base=10, precision=999999999)",
    "square_root(number=2, precision=999999999)",
    "round_number(number=5, decimal_places=-999999999)",
    "cd(folder=9**9**9)",
    "cd(folder=" + "9" * 5000 + ")",
    "cd(folder=0x" + "f" * 50000 + ")",
    "cd(folder=1e999)",
    "cd(folder='a' * 10**10)",
    "cd(folder=" + "[" * 500 + "]" * 500 + ")",
    "cd(folder=" + "[" * 50000 + "]" * 50000 + ")",
    "cd(folder=" + "-" * 50000 + "1)",
    "cd" + "()" * 5000,
    "cd(folder=" + "(" * 90 + "1" + ")" * 90 + ")\x00",
    "cd(folder='" + "a" * 200000 + "')",
    "cd(folder=b'a')",
    "cd(folder=...)",
    "cd(folder=1j)",
    "cd(folder='a'); open('{canary}', 'w')",
    "cd(folder='a')\nopen('{canary}', 'w')",
    "import os",
    "await cd(folder='a')",
    "yield cd(folder='a')",
    "cd(folder='a') and open('{canary}', 'w')",
    "cd[open('{canary}', 'w')]",
    "# cd",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_no_call_string_runs_anything_but_the_tools(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    canary = tmp_path / "canary"
    text = attack.replace("{canary}", str(canary)).replace("{{", "{").replace("}}", "}")
    monkeypatch.chdir(tmp_path)
    task = next(task for task in taskset("train", "base") if task.payload["classes"] == ["GorillaFileSystem", "MathAPI"])
    env = Bfcl()
    env.reset(task)
    for message in (CALL_FORMATS["python"].parse(f"[{text}]"), tagged(text)):
        signals = env.step(message).signals
        assert signals.malformed or all(outcome.error for outcome in signals.outcomes)
    try:
        assert error_of(World.open(["GorillaFileSystem", "MathAPI"], {}, is_long=False).run(recorded(task, text)))
    except NotACall:
        pass
    assert not list(tmp_path.iterdir())
    env.reset(task)
    assert not env.step(Message("assistant", "", (ToolCall("pwd", {}),))).signals.outcomes[0].error


def tagged(text: str) -> Message:
    """The same through the other format: as the name of a tool, and as an argument."""
    calls = [{"name": text, "arguments": {}}, {"name": "cd", "arguments": {"folder": f"./{text}"}}]
    return CALL_FORMATS["json"].parse("".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls))


def test_names_that_could_be_confused_with_tools_are_no_tools():
    assert len(ATTACKS) >= 60 and len(set(ATTACKS)) == len(ATTACKS)
    methods = {method for name in CLASSES for method in functions(CLASSES[name])}
    assert not [method for method in methods if method.startswith("_") or not set(method) <= set(string.ascii_letters + "_")]


# Bad data


def broken(folder: Path, category: str, change: str) -> Path:
    """A copy of a category's data with one thing wrong."""
    name = f"BFCL_v4_multi_turn_{category}.json"
    (folder / "possible_answer").mkdir()
    lines = (DATA / name).read_text().splitlines()
    answers = (DATA / "possible_answer" / name).read_text().splitlines()
    if change == "cut":
        lines[6] = lines[6][: len(lines[6]) // 2]
    if change == "no truth":
        del answers[4]
    if change == "other class":
        lines[2] = lines[2].replace('"involved_classes": ["', '"involved_classes": ["Robot", "')
    if change == "turns":
        answers[3] = re.sub(r'"ground_truth": \[\[', '"ground_truth": [["a()"], [', answers[3])
    (folder / name).write_text("\n".join(lines))
    (folder / "possible_answer" / name).write_text("\n".join(answers))
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("cut", "line 7: not JSON"),
        ("no truth", "line 5: .*has no reference calls"),
        ("other class", "line 3: .*needs the class Robot"),
        ("turns", "line 4: .*user turns and reference calls for"),
    ],
)
def test_bad_data_is_named_with_its_line_and_a_remedy(tmp_path: Path, change: str, says: str):
    with pytest.raises(ValueError, match=rf"BFCL_v4_multi_turn_base.json, {says}.*install bfcl-eval anew"):
        scenarios("base", broken(tmp_path, "base", change))


def test_a_missing_file_and_an_unknown_category_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="BFCL_v4_multi_turn_base.json: cannot be read.*install bfcl-eval anew"):
        scenarios("base", tmp_path)
    with pytest.raises(ValueError, match=f"no multi-turn category 'best'; there are: {', '.join(CATEGORIES)}"):
        scenarios("best")
    with pytest.raises(ValueError, match="no split is called 'all'"):
        taskset("all", "base")
