"""Rules that a model writes: asked over HTTP, checked, judged, and refused where they tell too much."""

import json
from collections.abc import Iterator

import pytest

from envs.augmentation import Rules, load_rules
from envs.bfcl import RULES, oracle, taskset
from envs.endpoint import Endpoint, EndpointError, NoReply
from envs.hint_author import JUDGE, TRIES, Failure, draft, failures, leaks, pattern
from envs.types import Json, Message, ToolCall
from tests.envs.openai_server import answering, serving

TASK = next(t for t in taskset("train", "base") if t.id == "bfcl/base/3")
WRONG = Message("assistant", "", (ToolCall("cd", {"folder": "nowhere"}),))
GOOD: dict[str, Json] = {"reasoning": "r", "need_augmentation": True, "error_category": "dependency_missing"}
HINT = "There is no {folder} here. List the folder first."
APPROVAL = {"solution_leakage": False, "exploration_constraint": False, "actionability": True, "hint_quality": "high"}


def failure() -> Failure:
    (found,) = failures(TASK, [WRONG])
    return found


def tried(replies: Iterator[str], judgement: dict[str, Json] | str = "") -> tuple[list[str], object]:
    """What the writer was asked, and the draft."""
    asked: list[str] = []

    def reply(system: str, user: str) -> str:
        if system == JUDGE:
            return judgement if isinstance(judgement, str) and judgement else json.dumps(judgement or APPROVAL)
        asked.append(user)
        return next(replies)

    with serving(reply) as url:
        endpoint = Endpoint(url, "m")
        return asked, draft(failure(), load_rules(RULES), writer=endpoint, judge=endpoint)


def written(**other: Json) -> str:
    return f"Here it is:\n```json\n{json.dumps({**GOOD, 'augmented_feedback': HINT, **other})}\n```"


def test_an_error_names_the_arguments_that_it_quotes():
    assert failure().error == "cd: '{folder}': No such file or directory" and failure().told.count("nowhere") == 1
    assert pattern("5 of {5} in a/b", ToolCall("t", {"n": 5, "path": "a/b", "x": True})) == "{n} of {{{n}}} in {path}"


def test_the_reference_meets_no_failure_and_an_episode_is_played_to_its_end():
    assert failures(TASK, list(oracle(TASK))) == []
    assert len(failures(TASK, [WRONG] * 100)) == 20


def test_an_approved_rule_answers_the_error_it_was_written_for():
    asked, done = tried(iter([written()]))
    assert done.rule and done.reason == "approved"
    rules = Rules("bfcl", 2, {"cd": (done.rule,)})
    again = ToolCall("cd", {"folder": "elsewhere"})
    found = rules.find("cd", "cd: 'elsewhere': No such file or directory")
    assert found and found.text(again, "cd: 'elsewhere': No such file or directory").startswith("There is no elsewhere here.")
    assert json.loads(asked[0])["names you may use"] == ["folder"]
    assert len(json.loads(asked[0])["answers written before"]) >= 3


def test_a_refused_try_is_followed_by_one_that_is_told_why():
    secret = next(value for value in leaks(TASK, WRONG.calls[0], json.dumps(secrets())))
    replies = iter(["I cannot.", written(augmented_feedback=f"Go to {secret}."), written()])
    asked, done = tried(replies)
    assert done.rule and len(asked) == 3
    assert "no JSON object" in asked[1] and repr(secret) in asked[2]


def secrets() -> list[Json]:
    return [list(call.arguments.values()) for message in oracle(TASK) for call in message.calls]


@pytest.mark.parametrize(
    ("reply", "judgement", "says"),
    [
        (written(error_category="mood"), "", "mood"),
        (written(augmented_feedback="{folder:>99}"), "", "plain {argument} names"),
        (written(), {**APPROVAL, "solution_leakage": True, "suggestions": "less"}, "less"),
        (written(), {**APPROVAL, "hint_quality": "low"}, "low"),
        (written(), {**APPROVAL, "exploration_constraint": True}, "exploration_constraint"),
        (written(), {"fine": True}, "lacks solution_leakage"),
        (written(), "no idea", "no JSON object"),
        ("{" * 3000, "", "no JSON object"),
    ],
)
def test_what_is_never_good_is_given_up_with_the_reason(reply: str, judgement: dict[str, Json] | str, says: str):
    asked, done = tried(iter([reply] * 9), judgement)
    assert done.rule is None and len(asked) == TRIES and says in done.reason


def test_an_author_may_see_no_need():
    asked, done = tried(iter([written(need_augmentation=False, reasoning="It is clear.")]))
    assert done.rule is None and len(asked) == 1 and "It is clear." in done.reason


def test_an_endpoint_that_is_down_is_named():
    with pytest.raises(EndpointError, match=r"http://127.0.0.1:9/v1.*is the server up"):
        Endpoint("http://127.0.0.1:9/v1", "m", timeout_s=2).ask("a", "b")


def test_a_reply_without_a_message_is_no_reply():
    with answering(lambda asked: {}) as url, pytest.raises(NoReply, match="without a message"):
        Endpoint(url, "m").ask("a", "b")
