"""`make bench-train BASE=COMMIT`: the shop's run as it was and as it is, one after the other on one machine.

usage: python -m deploy.bench_train COMMIT [key=value ...]
Each sets itself up in its own environment, which does not count. Prints both wall times, what both learnt and the ratio.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.figure import Figure

SHOP = "deploy/experiments/shop.yaml"


def train(checkout: Path, runs: Path, overrides: Sequence[str]) -> float:
    """Wall seconds of `make train` in this checkout."""
    arguments = " ".join([f"cluster.runs={runs}", "name=job", *overrides])
    subprocess.run(["make", "train", f"CONFIG={SHOP}", f"ARGS={arguments}"], cwd=checkout, check=True)
    summary = json.loads((runs / "job" / "summary.json").read_text())
    learnt = "   ".join(
        f"level {name}: {level['before']:.0%} -> {level['after']:.0%}" for name, level in summary["levels"].items()
    )
    print(f"{checkout}: {summary['wall_s']:.0f} s, at most {summary['peak_memory_gb']:.1f} GB   {learnt}", flush=True)
    return summary["wall_s"]


def main(base: str, overrides: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="tiltyard-base-") as scratch:
        earlier = Path(scratch) / "base"
        subprocess.run(["git", "worktree", "add", "--detach", str(earlier), base], check=True)
        try:
            before = train(earlier, Path(scratch) / "before", overrides)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(earlier)], check=True)
        after = train(Path.cwd(), Path(scratch) / "after", overrides)
    command = f"make bench-train BASE={base}"
    Figure("train", 3600 / after, 3600 / before, "runs/h", 2.0, command).tell()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
