"""Stage 1: a question becomes sub-questions with a graph of what needs what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from envs.answers import pieces, tells
from envs.construct.records import KINDS, Question, Scenario, SubQuestion
from envs.construct.stage import Ask, Refused, read_tools
from envs.types import Json

MOST = 8  # sub-questions
SYSTEM = """You plan environments in which an agent learns to use tools. You get a question and its answer. Take it apart
into sub-questions of which each is answered by one look-up or one computation, in an order in which they can be answered.
 - "needs" lists the ids of the sub-questions whose answers one must know first; the text says #id there, never the value.
 - An answer is short: a name, a number, a date.
 - The answers to the sub-questions that nothing else needs make up the answer to the question.
 - Where "tools" are given, each sub-question is answered by one call of one of them.
 - Where "kind" is given, keep to it: single_hop is one sub-question, parallel_single_hop several without needs, multi_hop a chain
   in which each needs the one before, parallel_multi_hop a mixture.
Reply with one JSON object: {"sub_questions": [{"id": "1", "text": text, "answer": text, "needs": [ids]}]}"""


def decompose(question: Question, ask: Ask) -> Scenario:
    """Raises Refused where the graph has a gap or a cycle, a text tells a value, or the answer does not follow."""
    asked: dict[str, Json] = {"id": question.id, "text": question.text, "answer": question.answer}
    if question.kind:
        asked["kind"] = question.kind
    if question.tools:
        asked["tools"] = [dict(tool) for tool in question.tools]
    reply = ask(SYSTEM, {"stage": "decompose", "question": asked})
    entries = reply.get("sub_questions")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST:
        raise Refused(f"the reply has no list 'sub_questions' of 1 to {MOST}")
    scenario = Scenario(question, tuple(map(_sub, entries)))
    _check_graph(scenario.subs)
    _check_answer(question, scenario.subs)
    if question.kind and scenario.kind != question.kind:
        raise Refused(f"these sub-questions are {scenario.kind}, not {question.kind}; the kinds are {', '.join(KINDS)}")
    return scenario


def _sub(entry: Json) -> SubQuestion:
    if not isinstance(entry, dict):
        raise Refused(f"a sub-question is no object: {entry!r}")
    id, text, answer, needs = (entry.get(key) for key in ("id", "text", "answer", "needs"))
    if not isinstance(text, str) or not text or not isinstance(answer, (str, int, float)) or not pieces(str(answer)):
        raise Refused(f"sub-question {id!r} has no text or no answer")
    return SubQuestion(str(id), text, str(answer), tuple(map(str, needs)) if isinstance(needs, list) else ())


def _check_graph(subs: Sequence[SubQuestion]) -> None:
    before: dict[str, SubQuestion] = {}
    for sub in subs:
        if sub.id in before:
            raise Refused(f"two sub-questions have the id {sub.id!r}")
        for id in sub.needs:
            if id not in before:
                raise Refused(f"sub-question {sub.id} needs {id!r}, which is not among those before it")
            if not tells(f"#{id}", sub.text):
                raise Refused(f"sub-question {sub.id} needs #{id} and does not say so in its text {sub.text!r}")
            if all(tells(piece, sub.text.lower().replace(",", "")) for piece in pieces(before[id].answer)):
                raise Refused(f"sub-question {sub.id} tells the answer to {id}; it has to say #{id} instead")
        before[sub.id] = sub


def _check_answer(question: Question, subs: Sequence[SubQuestion]) -> None:
    needed = {id for sub in subs for id in sub.needs}
    whole = question.answer.lower().replace(",", "")
    for sub in subs:
        if sub.id not in needed and not all(tells(piece, whole) for piece in pieces(sub.answer)):
            raise Refused(
                f"nothing needs sub-question {sub.id}, and the question's answer does not hold its answer {sub.answer!r}"
            )


def read_question(entry: Mapping[str, Json], number: int) -> Question:
    """A line of a file of questions: {"question": text, "answer": text, "id": text, "kind": text, "tools": documents}.

    The last three are optional; documents are as OpenAI's API takes tools. Raises ValueError.
    """
    text, answer, kind = entry.get("question"), entry.get("answer"), str(entry.get("kind", ""))
    if not isinstance(text, str) or not text or not isinstance(answer, (str, int, float)) or not str(answer):
        raise ValueError('each line needs "question" and "answer", such as {"question": "How high is ...?", "answer": "812"}')
    if kind and kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is none of: {', '.join(KINDS)}")
    tools = entry.get("tools", [])
    if not isinstance(tools, list):
        raise ValueError('"tools" is a list of functions with their JSON schema, as OpenAI\'s API takes them')
    return Question(str(cast(str, entry.get("id", number))), text, str(answer), kind, read_tools(tools))
