"""`tiltyard inspect`: by how much training changed the parameters, by layer and module: a table and a heat map.

FTRL (2508.08791) finds that what changes most are the MLPs of the lowest layers.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from learner.change import Change, changes

Table = Mapping[tuple[int, str], float]


def main(arguments: argparse.Namespace) -> int:
    """Exit status 2 where the two are not checkpoints of one model."""
    try:
        found = changes(_folder(arguments.before), _folder(arguments.after))
    except ValueError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    inside = [change for change in found if change.layer >= 0]
    for line in told(inside):
        print(line)
    for change in found:
        if change.layer < 0:
            print(f"{change.module}: {change.relative:.2e}")
    print(claim(inside))
    if arguments.out:
        try:
            draw(relative(inside), f"{arguments.before} to {arguments.after}").savefig(arguments.out, dpi=140)
        except (OSError, ValueError) as error:
            print(f"tiltyard: --out {arguments.out}: {error}", file=sys.stderr)
            return 2
        print(arguments.out)
    return 0


def relative(found: Sequence[Change]) -> Table:
    """Norm of the difference / norm before, by layer and module."""
    return {(change.layer, _short(change.module)): change.relative for change in found}


def told(found: Sequence[Change]) -> list[str]:
    """One line a layer, one column a module, in ten thousandths."""
    table = relative(found)
    modules = sorted({module for _, module in table})
    lines = ["relative change, in 1/10,000", "layer " + "".join(f"{module[-12:]:>13}" for module in modules)]
    for layer in sorted({layer for layer, _ in table}):
        lines.append(f"{layer:5} " + "".join(f"{1e4 * table.get((layer, module), math.nan):13.2f}" for module in modules))
    return lines


def claim(found: Sequence[Change]) -> str:
    """Whether MLPs of the three lowest layers changed most: modules of each layer taken together, MLP and attention apart."""
    parts: defaultdict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for change in found:
        kind = "MLP" if "mlp" in change.module else "attention" if "attn" in change.module else ""
        if kind:
            parts[change.layer, kind][0] += change.moved**2
            parts[change.layer, kind][1] += change.size**2
    if not parts:
        return "neither MLP nor attention is found by name"
    ranked = sorted(((math.sqrt(moved / size), place) for place, (moved, size) in parts.items() if size), reverse=True)
    if not any(value for value, _ in ranked):
        return "nothing has changed"
    low = [at + 1 for at, (_, (layer, kind)) in enumerate(ranked) if layer <= 2 and kind == "MLP"]
    first = ", ".join(f"{kind} of layer {layer} ({value:.1e})" for value, (layer, kind) in ranked[:3])
    holds = "holds" if low == list(range(1, len(low) + 1)) else "does not hold"
    places = ", ".join(map(str, low))
    where = f"the MLPs of layers 0 to 2 are at places {places} of {len(ranked)}"
    return f"the most changed: {first}; {where}: the claim that they lead {holds} here"


def draw(table: Table, title: str) -> Figure:
    layers, modules = sorted({layer for layer, _ in table}), sorted({module for _, module in table})
    figure = Figure(figsize=(0.75 * len(modules) + 2.5, 0.22 * len(layers) + 1.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(
        [[table.get((layer, module), math.nan) for module in modules] for layer in layers], aspect="auto", cmap="viridis"
    )
    axes.set_xticks(range(len(modules)), modules, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=7)
    axes.set_ylabel("layer")
    axes.set_title(f"Relative change of parameters\n{title}", fontsize=9)
    figure.colorbar(image, ax=axes, label="norm of the change / norm before")
    return figure


def _short(module: str) -> str:
    return (
        module.removeprefix("self_attn.").removeprefix("mlp.")
        if not module.endswith("norm")
        else module.removesuffix("_layernorm")
    )


def _folder(name: str) -> Path:
    """A model's folder, or the model of the run in this one."""
    folder = Path(name)
    return folder / "model" if (folder / "model").is_dir() else folder
