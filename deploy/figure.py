"""What a benchmark prints and keeps: a figure, what it is measured against, and the goal for their ratio."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

OUT = Path("runs/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One benchmark's outcome: medians of paired rounds; `goal` is what `ratio` should reach."""

    name: str
    value: float
    reference: float
    unit: str
    goal: float | None
    command: str = ""  # `make bench ARGS=<name>` where it is not given

    def tell(self) -> None:
        ratio = self.value / self.reference
        goal = "" if self.goal is None else f" (goal {self.goal:g})"
        print(f"{self.name:10} {self.value:10.2f} {self.unit}   reference {self.reference:10.2f}   ratio {ratio:.2f}{goal}")
        OUT.mkdir(parents=True, exist_ok=True)
        record = {"value": self.value, "reference": self.reference, "ratio": ratio, "goal": self.goal, "unit": self.unit}
        command = self.command or f"make bench ARGS={self.name.partition('-')[0]}"
        (OUT / f"{self.name}.json").write_text(json.dumps({**record, "command": command}, indent=1))
