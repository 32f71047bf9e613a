"""The five stages: what each accepts and what it refuses, the gates, and the embedded author's worlds."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from envs.author import Author
from envs.construct.decompose import decompose, read_question
from envs.construct.deploy import deploy
from envs.construct.document import document
from envs.construct.embedded.author import EmbeddedAuthor, questions
from envs.construct.embedded.grammar import CHOICES, DOMAINS, NUMBERS
from envs.construct.gates import objection
from envs.construct.integrate import integrate
from envs.construct.records import KINDS, Built, Question, Scenario, SubQuestion, Toolset, kind_of
from envs.construct.scale import scale
from envs.construct.stage import TRIES, GivenUp, attempt
from envs.endpoint import Reply
from envs.sandbox import Sandbox, SandboxError
from envs.types import Json, ToolCall

QUESTIONS = tuple(questions(7, 24))
Edit = Callable[[dict[str, Json]], object]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        box = Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    yield box
    box.close()


class Edited:
    """The embedded author, whose replies at one stage are changed; `times` of them."""

    def __init__(self, stage: str, edit: Edit, times: int = 99) -> None:
        self._stage, self._edit, self.left = stage, edit, times
        self.objections: list[str] = []

    def ask(self, system: str, user: str) -> Reply:
        request = json.loads(user)
        reply = cast(dict[str, Json], json.loads(EmbeddedAuthor().ask(system, user).text))
        if request["stage"] == self._stage:
            self.objections.append(request.get("objection to your last reply", ""))
            if self.left:
                self.left -= 1
                changed = self._edit(reply)
                return Reply(changed if isinstance(changed, str) else json.dumps(reply))
        return Reply(json.dumps(reply))


def built(question: Question, sandbox: Sandbox) -> Built:
    return attempt(partial(deploy, sandbox=sandbox), toolset(question), EmbeddedAuthor())


def toolset(question: Question, *, stages: int = 3) -> Toolset:
    author = EmbeddedAuthor()
    found = attempt(document, attempt(decompose, question, author), author)
    for stage in (integrate, scale)[: stages - 1]:
        found = attempt(stage, found, author)
    return found


def of_kind(kind: str) -> Question:
    return next(question for question in QUESTIONS if question.kind == kind)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_every_embedded_question_becomes_an_environment_that_passes(question: Question, sandbox: Sandbox) -> None:
    one = built(question, sandbox)
    assert objection(one, sandbox) == ""
    assert one.toolset.scenario.kind == question.kind
    assert one.examples, "an example is told"


def test_worlds_are_many_and_unalike() -> None:
    assert len(DOMAINS) >= 12
    found = list(questions(0, 600))
    assert len({question.text for question in found}) == 600
    assert {question.kind for question in found} == set(KINDS)
    assert [one.text for one in questions(0, 8)] != [one.text for one in questions(1, 8)]
    assert list(questions(0, 8)) == found[:8], "the same seed, the same questions"


def test_the_grammar_is_closed() -> None:
    """Every kind of answer is a literal, or a thing with a name; every chain of the kinds that are asked for can be made."""
    for domain, kinds in DOMAINS.items():
        literals = {value for asked in kinds.values() for value in asked.values()} & {*NUMBERS, *CHOICES, "time"}
        assert literals, domain
        deeper = [value for asked in kinds.values() for value in asked.values() if value in kinds]
        assert len(set(deeper)) >= 2, f"{domain} has no chains of three"


def test_stages_merge_and_scale() -> None:
    merged = extended = distractors = 0
    for question in QUESTIONS:
        first, second, third = (toolset(question, stages=n) for n in (1, 2, 3))
        assert len(first.tools) == len(first.scenario.subs)
        merged += len(second.tools) < len(first.tools)
        distractors += len(third.tools) - len(second.tools)
        extended += json.dumps([*third.tools[: len(second.tools)]]) != json.dumps([*second.tools])
    assert merged >= 3 and extended >= 5 and distractors >= len(QUESTIONS)


def test_the_kind_is_read_from_the_graph() -> None:
    def subs(*needs: tuple[str, ...]) -> tuple[SubQuestion, ...]:
        return tuple(SubQuestion(str(n + 1), "", "", need) for n, need in enumerate(needs))

    assert kind_of(subs(())) == "single_hop"
    assert kind_of(subs((), ())) == "parallel_single_hop"
    assert kind_of(subs((), ("1",), ("2",))) == "multi_hop"
    assert kind_of(subs((), ("1",), ("1", "2"))) == "multi_hop"
    assert kind_of(subs((), ("1",), ())) == "parallel_multi_hop"
    assert kind_of(subs((), (), ("1", "2"))) == "parallel_multi_hop"


def first(reply: Mapping[str, Json], key: str) -> dict[str, Json]:
    return cast(list[dict[str, Json]], reply[key])[0]


def last(reply: Mapping[str, Json], key: str) -> dict[str, Json]:
    return cast(list[dict[str, Json]], reply[key])[-1]


def spoil_code(reply: dict[str, Json], code: str) -> None:
    """All functions get this body."""
    codes = cast(dict[str, str], reply["codes"])
    for name in codes:
        codes[name] = code.replace("NAME", name)


DECOMPOSE: dict[str, tuple[Edit, str]] = {
    "no list": (lambda r: r.clear(), "no list 'sub_questions'"),
    "too many": (lambda r: r.update(sub_questions=cast(list[Json], r["sub_questions"]) * 9), "of 1 to 8"),
    "a cycle": (lambda r: first(r, "sub_questions").update(needs=["2"]), "needs '2', which is not among those before it"),
    "an unknown need": (lambda r: last(r, "sub_questions").update(needs=["9"]), "needs '9'"),
    "a need not said": (lambda r: last(r, "sub_questions").update(text="What is it?"), "does not say so in its text"),
    "twice the same id": (lambda r: last(r, "sub_questions").update(id="1"), "two sub-questions have the id '1'"),
    "no answer": (lambda r: first(r, "sub_questions").update(answer=""), "has no text or no answer"),
    "another answer": (lambda r: last(r, "sub_questions").update(answer="nobody"), "does not hold its answer 'nobody'"),
    "another kind": (
        lambda r: r.update(sub_questions=[{**last(r, "sub_questions"), "needs": []}]),
        "are single_hop, not multi_hop",
    ),
    "no object": (lambda r: r.update(sub_questions=["What?"]), "is no object"),
}
DOCUMENT: dict[str, tuple[Edit, str]] = {
    "no name": (lambda r: first(r, "tools").update(name="a b"), "no name of letters"),
    "no description": (lambda r: first(r, "tools").update(description=""), "no description"),
    "no schema": (lambda r: first(r, "tools").update(parameters={"type": "text"}), "no JSON schema of an object"),
    "a broken schema": (
        lambda r: parameters(r).update(properties={"x": {"type": "wrong"}}),
        "no JSON schema: 'wrong' is not valid",
    ),
    "an untyped parameter": (lambda r: parameters(r).update(properties={"x": {}}), "has no type"),
    "an unknown requirement": (lambda r: parameters(r).update(required=["ghost"]), "requires 'ghost'"),
    "the same tool twice": (lambda r: r.update(tools=[first(r, "tools")] * 2), "two tools are called"),
    "no call": (lambda r: r.update(calls={}), "sub-question 1 has no call"),
    "a call of nothing": (lambda r: call(r).update(name="ghost"), "is of 'ghost', which is no tool"),
    "a call that does not fit": (lambda r: call(r).update(arguments={}), "is a required property"),
    "a call from nowhere": (lambda r: arguments(r, "Nowhere"), "says 'Nowhere', which neither the question nor"),
    "a value told": (lambda r: first(r, "tools").update(description=f"Such as {r['calls']}"), "tells the value"),
    "one tool for all": (lambda r: r.update(tools=[]), "no list 'tools'"),
}
INTEGRATE: dict[str, tuple[Edit, str]] = {
    "one more": (lambda r: cast(list[Json], r["tools"]).append({**first(r, "tools"), "name": "more"}), "merge, do not add"),
}
SCALE: dict[str, tuple[Edit, str]] = {
    "a tool gone": (lambda r: first(r, "tools").update(name="other"), "which is no tool"),
    "a stricter tool": (lambda r: stricter(r), "does not fit"),
    "a parameter lost": (lambda r: call(r).update(name=last(r, "tools")["name"]), "does not fit"),
}
DEPLOY: dict[str, tuple[Edit, str]] = {
    "no code": (lambda r: r.update(codes={}), "has no code"),
    "broken code": (lambda r: spoil_code(r, "def NAME(:"), "SyntaxError"),
    "another function": (lambda r: spoil_code(r, "def other(**k):\n    return 1"), "defines no function of that name"),
    "a wrong answer": (lambda r: spoil_code(r, "def NAME(**k):\n    return {'x': 'nothing'}"), "which does not hold"),
    "an error": (lambda r: spoil_code(r, "def NAME(**k):\n    raise ValueError('no')"), "ends with: ValueError: no"),
    "endless": (lambda r: spoil_code(r, "def NAME(**k):\n    import os\n    os._exit(3)"), "ends with: ended without an answer"),
    "a file": (lambda r: spoil_code(r, "def NAME(**k):\n    return open('/etc/passwd').read()"), "PermissionError"),
    "a false example": (lambda r: first(r, "examples").update(answer="nothing"), "does not hold its answer"),
    "an example of nothing": (
        lambda r: first(r, "examples").update(calls=[{"name": "ghost", "arguments": {}}]),
        "a call of none of the tools",
    ),
}


def parameters(reply: dict[str, Json]) -> dict[str, Json]:
    return cast(dict[str, Json], first(reply, "tools")["parameters"])


def call(reply: dict[str, Json]) -> dict[str, Json]:
    return cast(dict[str, Json], cast(dict[str, Json], reply["calls"])["1"])


def arguments(reply: dict[str, Json], value: Json) -> None:
    given = cast(dict[str, Json], call(reply)["arguments"])
    given[next(iter(given))] = value


def stricter(reply: dict[str, Json]) -> None:
    cast(dict[str, Json], parameters(reply)["properties"])["new"] = {"type": "string", "description": "new"}
    cast(list[Json], parameters(reply)["required"]).append("new")


CASES = {"decompose": DECOMPOSE, "document": DOCUMENT, "integrate": INTEGRATE, "scale": SCALE, "deploy": DEPLOY}


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, cases in CASES.items() for name in cases])
def test_a_bad_reply_is_refused_with_the_reason_and_a_better_one_taken(stage: str, name: str, sandbox: Sandbox) -> None:
    edit, reason = CASES[stage][name]
    question = of_kind("multi_hop")
    play = {
        "decompose": lambda author: attempt(decompose, question, author),
        "document": lambda author: attempt(document, attempt(decompose, question, author), author),
        "integrate": lambda author: attempt(integrate, toolset(question, stages=1), author),
        "scale": lambda author: attempt(scale, toolset(question, stages=2), author),
        "deploy": lambda author: attempt(partial(deploy, sandbox=sandbox), toolset(question), author),
    }[stage]
    once = Edited(stage, edit, times=1)
    play(once)
    assert len(once.objections) == 2 and reason in once.objections[1]
    with pytest.raises(GivenUp, match=f"{TRIES} replies refused"):
        play(Edited(stage, edit))


@pytest.mark.parametrize("text", ["I am sorry, but I cannot help with that.", "", "{'not': JSON", "[1, 2]", '{"tools": '])
def test_what_is_no_json_object_is_asked_for_again(text: str) -> None:
    author = Edited("decompose", lambda _: text or " ", times=2)
    assert attempt(decompose, QUESTIONS[0], author).question == QUESTIONS[0]
    assert "no JSON object" in author.objections[1]


def with_code(one: Built, code: str) -> Built:
    """The tool of the first sub-question answers by this body, of which RESULT is the right one."""
    name = one.toolset.calls["1"].name
    body = code.replace("NAME", name).replace("RESULT", repr(one.results["1"]))
    return replace(one, codes={**one.codes, name: body})


GATES = {
    "no longer the same": ("import random\ndef NAME(**k):\n    return random.random()", "gold"),
    "answers to anything": ("def NAME(*a, **k):\n    return RESULT", "random agent"),
    "fails": ("def NAME(**k):\n    raise ValueError('no')", "gold"),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_reject_with_their_reason(name: str, sandbox: Sandbox) -> None:
    code, reason = GATES[name]
    assert objection(with_code(built(of_kind("single_hop"), sandbox), code), sandbox).startswith(reason)


def test_gates_reject_what_tells_the_answer_from_the_start(sandbox: Sandbox) -> None:
    one = built(of_kind("single_hop"), sandbox)
    scenario = one.toolset.scenario
    told = replace(scenario.question, text=f"{scenario.question.text} Is it {scenario.subs[0].answer}?")
    assert objection(replace(one, toolset=replace(one.toolset, scenario=replace(scenario, question=told))), sandbox).startswith(
        "empty agent"
    )


def small(sandbox: Sandbox, code: str) -> Built:
    scenario = Scenario(
        Question("s", "How old is Ada Lark?", "41", "single_hop"), (SubQuestion("1", "How old is Ada Lark?", "41"),)
    )
    tool: dict[str, Json] = {
        "name": "age", "description": "Tell an age.",
        "parameters": {"type": "object", "properties": {"who": {"type": "string", "description": "Name."}}, "required": ["who"]},
    }  # fmt: skip
    call = ToolCall("age", {"who": "Ada Lark"})
    return Built(Toolset(scenario, (tool,), {"1": call}), {"age": code}, {"1": sandbox.call(code, "age", call.arguments).result})


def test_a_world_so_small_that_a_dump_of_it_answers_is_rejected(sandbox: Sandbox) -> None:
    few = "def age(who):\n    return {'Ada Lark': 41}.get(who, {'error': 'nobody'})"
    assert objection(small(sandbox, few), sandbox).startswith("dump")
    names = {f"N{n} O": n + 100 for n in range(20)} | {"Ada Lark": 41}
    many = f"def age(who):\n    # {'a comment ' * 50}\n    return {names!r}.get(who, {{'error': 'nobody'}})"
    assert objection(small(sandbox, many), sandbox) == ""
    blind = f"def age(who='Ada Lark'):\n    # {'a comment ' * 50}\n    return {names!r}.get(who, {{'error': 'nobody'}})"
    assert objection(small(sandbox, blind), sandbox).startswith("blind: age answers sub-question 1 with {}")


def test_a_question_of_somebody_else_is_not_answered() -> None:
    with pytest.raises(RuntimeError, match="answers no question but its own"):
        attempt(decompose, Question("1", "How old is Ada?", "41"), EmbeddedAuthor())


@pytest.mark.parametrize(
    ("entry", "reason"),
    [({"answer": "x"}, 'needs "question" and "answer"'), ({"question": "x"}, 'needs "question"'),
     ({"question": "x", "answer": "y", "kind": "two_hop"}, "the kind 'two_hop' is none of")],
)  # fmt: skip
def test_bad_questions_are_named(entry: dict[str, Json], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_question(entry, 3)


def test_a_questions_own_tools_are_deployed_as_they_are(sandbox: Sandbox) -> None:
    plain = of_kind("multi_hop")
    own = toolset(plain, stages=1)
    wrapped: list[Json] = [{"type": "function", "function": dict(tool)} for tool in own.tools]
    question = replace(plain, tools=read_question({"question": "x", "answer": "y", "tools": wrapped}, 0).tools)
    author = Edited("document", lambda reply: reply.pop("tools"))
    scenario = attempt(decompose, question, author)
    found = attempt(document, scenario, author)
    for stage in (integrate, scale):
        found = attempt(stage, found, cast(Author, None))  # nobody is asked
    one = attempt(partial(deploy, sandbox=sandbox), found, EmbeddedAuthor())
    assert one.toolset.tools == own.tools and set(one.codes) == {str(tool["name"]) for tool in own.tools}
    assert objection(one, sandbox) == ""
    assert author.objections == [""]


@pytest.mark.parametrize(
    ("tools", "reason"),
    [("add", "is a list of functions"), ([{"name": "add"}], "tool 'add' has no description"), ([{}], "a tool has no name"),
     ([{"name": "add", "description": "Sum.", "parameters": {"type": "object"}}] * 2, "two tools are called 'add'")],
)  # fmt: skip
def test_bad_tools_of_a_question_are_named(tools: Json, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_question({"question": "x", "answer": "y", "tools": tools}, 3)


def test_a_call_of_no_given_tool_is_refused_with_the_reason() -> None:
    plain = of_kind("single_hop")
    other = toolset(of_kind("multi_hop"), stages=1).tools
    author = Edited("document", lambda reply: reply)
    with pytest.raises(GivenUp, match="which is no tool"):
        attempt(document, attempt(decompose, replace(plain, tools=other), author), author)
    assert len(author.objections) == TRIES and "which is no tool" in author.objections[-1]
