"""`tiltyard timeline`: where a run's time went, as shares on the terminal and as a Chrome trace."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from cluster.breakdown import parts
from cluster.metrics import read_history
from cluster.phases import FILE, chrome_trace, read


def main(arguments: argparse.Namespace) -> int:
    """Writes timeline.json into the run's folder. Exit status 2 where the folder holds no run."""
    folder = Path(arguments.run)
    if not (folder / FILE).is_file():
        print(f"tiltyard: {folder} has no {FILE}: name the folder of a run, such as runs/shop", file=sys.stderr)
        return 2
    path = folder / "timeline.json"
    path.write_text(json.dumps(chrome_trace(read(folder))))
    for line in shares(folder):
        print(line)
    print(f"{path}: open it at https://ui.perfetto.dev or chrome://tracing")
    return 0


def shares(folder: Path) -> list[str]:
    """One line per part of the steps' wall time, the largest first."""
    steps = read_history(folder).steps
    spent: Counter[str] = Counter()
    for step in steps:
        spent.update(parts(step.metrics))
    whole = sum(step.seconds for step in steps)
    lines = [f"{name:12} {seconds:9.1f} s {seconds / whole:6.1%}" for name, seconds in spent.most_common() if seconds]
    return [f"{len(steps)} steps, {whole:.1f} s of wall time:", *lines] if steps else ["no step was done yet"]
