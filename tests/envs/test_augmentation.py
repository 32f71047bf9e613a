import json
from dataclasses import replace
from pathlib import Path

import pytest

from envs.augmentation import CATEGORIES, Augmented, Rule, Rules, load_rules
from envs.config import EnvsConfig, rules
from envs.shop import LEVELS, RULES, Shop, oracle, taskset
from envs.shop.world import ERRORS
from envs.types import Json, Message, Observation, Signals, Task, ToolCall

SHOP_RULES = load_rules(RULES)
TASK = taskset("train", "1")[0]
BAD_ID = Message("assistant", "", (ToolCall("price", {"id": "i1"}),))
BAD = Message("assistant", "<tool_call>", malformed="bad JSON")
TOOLS_WITH = {
    "not found": ["find"], "bad name": ["find"], "bad id": ["price", "stock", "add", "remove"], "bad quantity": ["add", "remove"],
    "out of stock": ["add"], "empty cart": ["checkout"], "not in cart": ["remove"], "unknown tool": ["fly"],
    "malformed": [""], "bad arguments": ["find", "price", "stock", "add", "remove", "checkout"],
}  # fmt: skip


def augmented(strength: float = 1.0, seed: int = 0) -> Augmented:
    env = Augmented(Shop(), SHOP_RULES, strength=strength, seed=seed)
    env.reset(TASK)
    return env


def bare(observation: Observation) -> Signals:
    return replace(observation.signals, hints=())


def written(folder: Path, **entry: Json) -> str:
    rule: dict[str, Json] = {"tool": "price", "error": "bad id", "category": "dependency_missing", "hint": "Find it."}
    path = folder / "rules.yaml"
    path.write_text(json.dumps({"name": "toy", "version": 2, "rules": [rule | entry]}))
    return str(path)


def test_a_bare_error_becomes_its_hint_and_is_recorded():
    observation = augmented().step(BAD_ID)
    assert observation.messages[0].content == '{"error":"i1 is no id. Call find with the name to get the id."}'
    assert observation.signals.hints == ("shop/bad-id@4",)
    assert observation.signals.outcomes[0].error == "bad id"


def test_a_malformed_message_gets_its_hint():
    observation = augmented().step(BAD)
    assert "Write one call" in observation.messages[0].content and observation.signals.hints == ("shop/malformed@4",)


def test_only_the_failed_calls_of_a_message_are_rewritten():
    good = next(message for message in oracle(TASK) if message.calls).calls[0]
    mixed = Message("assistant", "", (BAD_ID.calls[0], good, ToolCall("checkout", {"x": 1})))
    plain, hinted = augmented(0.0).step(mixed), augmented().step(mixed)
    assert hinted.messages[1] == plain.messages[1]
    assert hinted.messages[0] != plain.messages[0] and hinted.messages[2] != plain.messages[2]
    assert hinted.signals.hints == ("shop/bad-id@4", "shop/checkout-bad-arguments@4")
    assert bare(hinted) == bare(plain)


def test_strength_is_the_share_of_errors_hinted_and_repeats_with_the_seed():
    calls = Message("assistant", "", BAD_ID.calls * 1000)
    one, same, other = (augmented(0.3, seed).step(calls) for seed in (5, 5, 6))
    assert one == same and one != other
    assert 230 < len(one.signals.hints) < 370
    assert augmented(0.0).step(calls).signals.hints == ()


def test_a_replayed_episode_fires_the_same_hints():
    env = augmented(0.5)
    bad_ids = replace(BAD_ID, calls=BAD_ID.calls * 20)
    first = env.step(bad_ids)
    env.reset(TASK)
    assert env.step(bad_ids) == first


def test_strength_must_be_a_probability():
    with pytest.raises(ValueError, match="1.5"):
        augmented(1.5)


def test_every_error_of_the_shop_has_its_rule_and_no_rule_is_idle():
    assert set(TOOLS_WITH) == set(ERRORS)
    found = {SHOP_RULES.find(tool, error) for error, tools in TOOLS_WITH.items() for tool in tools}
    every = {rule for rules_of in SHOP_RULES.rules.values() for rule in rules_of}
    assert None not in found and found == every
    assert {rule.category for rule in every} == set(CATEGORIES)


def test_hints_change_nothing_but_the_words():
    for task in [task for split in ("validation", "test") for level in LEVELS for task in taskset(split, level)]:
        plain, hinted = Shop(), Augmented(Shop(), SHOP_RULES, strength=1.0)
        assert plain.reset(task) == hinted.reset(task)
        is_first = True  # of its user turn: a second mistake would end the episode
        for message in oracle(task):
            is_noisy, is_first = is_first, not message.calls
            noisy = replace(message, calls=(*BAD_ID.calls, *message.calls)) if is_noisy else message
            left, right = plain.step(noisy), hinted.step(noisy)
            assert bare(left) == bare(right) and left.done == right.done
            assert bool(right.signals.hints) == is_noisy


def test_the_tools_own_rule_comes_before_the_one_for_any():
    anything, own = Rule("*", "no", CATEGORIES[0], "any"), Rule("add", "no", CATEGORIES[0], "own")
    both = Rules("toy", 1, {"*": (anything,), "add": (own,)})
    assert both.find("add", "no") == own and both.find("price", "no") == anything and both.find("add", "yes") is None


def test_a_rule_for_any_error_of_a_tool_comes_last():
    anything, own = Rule("*", "no {what}", CATEGORIES[0], "any"), Rule("add", "{reason}", CATEGORIES[0], "own")
    both = Rules("toy", 1, {"*": (anything,), "add": (own,)})
    assert both.find("add", "no money") == anything and both.find("add", "yes") == own


@pytest.mark.parametrize(
    ("template", "error", "hint"),
    [
        ("no file {name}", "no file a{b}.txt", "a{b}.txt 3 ?"),
        ("{name} is not {name}", "x is not x", "x 3 ?"),
        ("[{name}] (cut", "[x\ny] (cut", "x\ny 3 ?"),
    ],
)
def test_what_an_error_names_can_be_named_by_its_hint(template: str, error: str, hint: str):
    rule = Rule("*", template, CATEGORIES[0], "{name} {count} {absent}")
    assert rule.pattern.fullmatch(error) and rule.text(ToolCall("add", {"name": "y", "count": 3}), error) == hint
    assert not rule.pattern.fullmatch(f"Sorry, {error}")


@pytest.mark.parametrize("value", [pytest.param(10**5000, id="huge"), True, None, [1], "x" * 500, 1e308])
def test_any_argument_can_be_quoted_and_stays_short(value: Json):
    rule = Rule("*", "bad id", CATEGORIES[0], "{id} and {absent}")
    assert len(rule.text(ToolCall("price", {"id": value}), "bad id")) <= 70


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"category": "mood"}, "mood"),
        ({"hint": "{id"}, "{id"),
        ({"hint": "{0}"}, "{0}"),
        ({"hint": "{}"}, "{}"),
        ({"hint": "{id.real}"}, "id.real"),
        ({"hint": "{id:>9999}"}, "9999"),
        ({"tool": 3}, "exactly"),
        ({"extra": "x"}, "exactly"),
    ],
)
def test_a_bad_rule_is_named_with_its_file(tmp_path: Path, entry: dict[str, Json], says: str):
    with pytest.raises(ValueError, match=r"rules.yaml: rule 1") as raised:
        load_rules(written(tmp_path, **entry))
    assert says in str(raised.value)


def test_a_second_rule_for_the_same_error_is_refused(tmp_path: Path):
    path = tmp_path / "rules.yaml"
    rule = {"tool": "add", "error": "no", "category": CATEGORIES[0], "hint": "h"}
    path.write_text(json.dumps({"name": "toy", "version": 1, "rules": [rule, rule]}))
    with pytest.raises(ValueError, match=r"rules.yaml: rule 2.*'add', 'no'"):
        load_rules(str(path))


@pytest.mark.parametrize("text", ["[", "name: toy", "name: toy\nversion: one\nrules: []"])
def test_a_file_that_is_no_rules_file_is_named(tmp_path: Path, text: str):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rules.yaml"):
        load_rules(str(path))


def test_the_config_names_the_environment_and_its_rules(tmp_path: Path):
    assert rules(EnvsConfig()) == SHOP_RULES
    assert rules(EnvsConfig(rules=written(tmp_path))).name == "toy"
    with pytest.raises(ValueError, match="'shoe'"):
        EnvsConfig("shoe")
    with pytest.raises(ValueError, match="absent.yaml"):
        rules(EnvsConfig(rules=str(tmp_path / "absent.yaml")))


class Curt:
    """An environment that ends the user turn at a message it cannot read."""

    def reset(self, task: Task) -> Observation:
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        return Observation((), True, Signals(malformed=message.malformed, state={}))

    def close(self) -> None: ...


def test_a_malformed_message_that_ends_the_user_turn_needs_no_hint():
    observation = Augmented(Curt(), load_rules(RULES), strength=1.0).step(Message("assistant", "well", malformed="cut off"))
    assert observation.done and observation.messages == () and observation.signals.malformed == "cut off"
