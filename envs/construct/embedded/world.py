"""One invented world and what is asked in it: tables of what holds, and a question over them with its sub-questions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from envs.construct.embedded.grammar import DOMAINS, Relation, drawn, relations
from envs.construct.records import KINDS, Question, SubQuestion

ROWS = (9, 12)  # of a table: more values than a result that is no dump may have


@dataclass(frozen=True, slots=True)
class Step:
    """A sub-question: `relation` asked of a thing by name, or of the answers to earlier steps; without one, their difference."""

    id: str
    relation: Relation | None
    thing: str = ""
    needs: tuple[str, ...] = ()


class World:
    """Everything follows from the question's id, whose number decides the kind."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._rng = random.Random(f"world {id}")
        self.domain = self._rng.choice(sorted(DOMAINS))
        self.relations = relations(self.domain)
        rows = self._rng.randint(*ROWS)
        kinds = sorted({kind for relation in self.relations for kind in (relation.subject, relation.value)})
        self._things = {kind: drawn(self._rng, kind, rows) for kind in kinds}
        self.tables = {relation: self._table(relation, rows) for relation in self.relations}
        self.kind = KINDS[int(id.rsplit("/", 1)[-1]) % len(KINDS)]
        self.steps = self._plan()

    def _table(self, relation: Relation, rows: int) -> dict[str, str | int]:
        values = list(self._things[relation.value]) if relation.is_thing else drawn(self._rng, relation.value, rows)
        self._rng.shuffle(values)
        return dict(zip(map(str, self._things[relation.subject]), values, strict=True))

    @cached_property
    def answers(self) -> dict[str, str | int]:
        """By step's id."""
        return self.answers_of(self.steps)

    def answers_of(self, steps: Sequence[Step]) -> dict[str, str | int]:
        found: dict[str, str | int] = {}
        for step in steps:
            if step.relation is None:
                first, second = (int(found[id]) for id in step.needs)
                found[step.id] = first - second
            else:
                found[step.id] = self.tables[step.relation][str(found[step.needs[0]]) if step.needs else step.thing]
        return found

    @property
    def question(self) -> Question:
        text, answer = self.asked(self.steps)
        return Question(self.id, text, answer, self.kind)

    def asked(self, steps: Sequence[Step]) -> tuple[str, str]:
        """What these steps answer, in words, and the answer."""
        ends = [step for step in steps if all(step.id not in other.needs for other in steps)]
        asked, answers = [_phrase(step, steps) for step in ends], self.answers_of(steps)
        text = f"What is {asked[0]}?" if len(asked) == 1 else f"What are {', '.join(asked[:-1])} and {asked[-1]}?"
        return text, ", ".join(str(answers[step.id]) for step in ends)

    @property
    def subs(self) -> tuple[SubQuestion, ...]:
        return tuple(
            SubQuestion(step.id, f"What is {_phrase(step, ())}?", str(self.answers[step.id]), step.needs) for step in self.steps
        )

    def beside(self, rng: random.Random, count: int) -> Iterator[tuple[Step, ...]]:
        """The same asked of other things, `count` times at most; nothing that plays a part twice, in the question or before."""
        involved = {*map(str, self.answers.values()), *(step.thing for step in self.steps if step.thing)}
        for _ in range(30 * count):
            other = tuple(
                replace(step, thing=rng.choice(list(self.tables[step.relation]))) if step.relation and not step.needs else step
                for step in self.steps
            )
            met = [*map(str, self.answers_of(other).values()), *(step.thing for step in other if step.thing)]
            if count and not involved & set(met) and len(set(met)) == len(met):
                involved.update(met)
                count -= 1
                yield other

    def _plan(self) -> list[Step]:
        steps: list[Step] = []
        match self.kind:
            case "single_hop":
                self._chain(steps, 1)
            case "parallel_single_hop":
                for _ in range(self._rng.choice((2, 2, 3))):
                    self._chain(steps, 1)
            case "multi_hop":
                self._chain(steps, self._rng.choice((2, 2, 3)))
            case _:
                self._chain(steps, 2)
                if self._rng.random() < 0.25:
                    self._compare(steps)
                else:
                    self._chain(steps, self._rng.choice((1, 1, 2)))
        return steps

    def _chain(self, steps: list[Step], length: int) -> None:
        """As many steps more, of which each asks about the answer to the one before; nothing is asked twice."""
        asked = {(step.relation, step.thing) for step in steps if not step.needs}
        before = {step.relation for step in steps if step.needs}
        ways = [way for way in self._ways(length) if not before & set(way[1:])]
        way = self._rng.choice(ways)
        things = [thing for thing in self.tables[way[0]] if (way[0], thing) not in asked]
        for at, relation in enumerate(way):
            needs = (steps[-1].id,) if at else ()
            steps.append(Step(str(len(steps) + 1), relation, "" if at else self._rng.choice(things), needs))

    def _compare(self, steps: list[Step]) -> None:
        """The difference between the number at the end of a chain and the same of another thing."""
        way = self._rng.choice([way for way in self._ways(2) if isinstance(next(iter(self.tables[way[1]].values())), int)])
        steps.clear()
        first, second = self._rng.sample(sorted(self.tables[way[0]]), 2)
        steps += [Step("1", way[0], first), Step("2", way[1], needs=("1",)), Step("3", way[0], second)]
        steps += [Step("4", way[1], needs=("3",)), Step("5", None, needs=("2", "4"))]

    def _ways(self, length: int) -> list[tuple[Relation, ...]]:
        """All chains of relations of this length, each asked of what the one before gives, no kind of thing twice."""
        ways: list[tuple[Relation, ...]] = [(relation,) for relation in self.relations]
        for _ in range(length - 1):
            ways = [
                (*way, relation)
                for way in ways
                for relation in self.relations
                if relation.subject == way[-1].value and relation.value not in {one.subject for one in way}
            ]
        return ways


def _phrase(step: Step, steps: Sequence[Step]) -> str:
    """The step in words; what it needs is said by number where it is not among `steps`."""
    by_id = {one.id: one for one in steps}
    of = [_phrase(by_id[id], steps) if id in by_id else f"#{id}" for id in step.needs]
    if step.relation is None:
        return f"the difference between {of[0]} and {of[1]}"
    return f"the {step.relation.name} of {of[0] if of else f'the {step.relation.subject} {step.thing}'}"
