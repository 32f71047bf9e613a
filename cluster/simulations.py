"""How simulations from the states of experts ended: what EEF's segments rest on, and what its states add."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from cluster.store import read

COLUMNS = ("assignment_id", "task_id", "success", "authors", "stop")
Row = dict[str, Any]  # of the store


@dataclass(frozen=True, slots=True)
class Simulations:
    """`by_state`: of each state on the experts' way, the beginning first, simulations and successes. Tasks by how solved."""

    by_state: tuple[tuple[int, int], ...]
    num_tasks: int
    from_beginning: int
    only_from_states: int

    @property
    def share_through_states(self) -> float:
        """Of the tasks simulated, those never solved from their beginning but from a state of an expert's."""
        return self.only_from_states / self.num_tasks if self.num_tasks else 0.0


def simulations(folder: Path) -> Simulations:
    """Of a run's groups whose siblings began in different states; of none where there were none."""
    told = read(folder, columns=COLUMNS, split="train").to_pylist()
    rows: list[Row] = [row for row in told if row["stop"] != "fault" and "policy" in row["authors"]]
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["assignment_id"]].append(row)
    mixed = [group for group in groups.values() if len({_depth(row) for row in group}) > 1]
    ended: dict[int, list[bool]] = defaultdict(list)
    early, late = set[str](), set[str]()
    for row, state in (pair for group in mixed for pair in _ranked(group)):
        ended[state].append(row["success"])
        if row["success"]:
            (late if state else early).add(row["task_id"])
    tasks = {row["task_id"] for group in mixed for row in group}
    by_state = tuple((len(ended[state]), sum(ended[state])) for state in sorted(ended))
    return Simulations(by_state, len(tasks), len(early), len(late - early))


def sampled(folder: Path) -> tuple[int, int]:
    """What training cost a run: episodes in which the policy acted, and the tokens that it sampled."""
    versions = read(folder, columns=("versions",), split="train")["versions"]
    of_policy = [count for row in versions if (count := pc.sum(pc.greater_equal(row.values, 0)).as_py())]
    return len(of_policy), sum(of_policy)


def told(found: Simulations) -> Iterator[str]:
    if found.num_tasks:
        shares = ", ".join(f"{won / count:.0%} of {count}" for count, won in found.by_state)
        yield f"simulations that succeeded, by the state of the expert's that they began in, its beginning first: {shares}"
        yield (
            f"tasks simulated: {found.num_tasks}; solved from the beginning {found.from_beginning}, only from later states "
            f"{found.only_from_states} ({found.share_through_states:.0%})"
        )


def _depth(row: Row) -> int:
    return row["authors"].count("expert")


def _ranked(group: Sequence[Row]) -> Iterator[tuple[Row, int]]:
    """Each sibling with the place of its state among the group's."""
    depths = sorted({_depth(row) for row in group})
    for row in group:
        yield row, depths.index(_depth(row))
