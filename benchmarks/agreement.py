"""One colouring, the mean of several, or what they agree on: which is nearest to the truth, at what price?

    python benchmarks/agreement.py photochrom-fast --data tiny-imagenet-200 --split test --photos 500

All rows use the same eight colourings of each photo. Writes docs/measurements/agreement.md.
Validation photos chose how `photochrom colorize` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from changes import SHOWN, number
from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring import colorings
from photochrom.coloring.colorizer import Colorizer
from photochrom.commands.terminal import Display
from photochrom.data.dataset import find
from photochrom.evaluation import evaluate
from photochrom.evaluation.candidates import Batch, Candidate, Painted, given_luma
from photochrom.evaluation.held_out import HeldOut

DRAWS = 8
Way = Callable[[Tensor, Tensor], Tensor]  # of colourings (8,B,2,h,w) and luma (B,1,H,W) to one (B,2,h,w)


def ruled(
    chance: float = colorings.CHANCE,
    contrast: float = colorings.CONTRAST,
    caution: float = colorings.CAUTION,
    count: int = 4,
) -> Way:
    """What the first colourings agree on, also by other constants than `colorize`'s."""

    def way(c: Tensor, y: Tensor) -> Tensor:
        with mock.patch.multiple(colorings, CHANCE=chance, CONTRAST=contrast, CAUTION=caution):
            return colorings.agreed(c[:count], y)

    return way


ONE = "one colouring"
WAYS: dict[str, Way] = {
    ONE: lambda c, y: c[0],
    "mean of 4": lambda c, y: c[:4].mean(dim=0),
    "mean of 8": lambda c, y: c[:DRAWS].mean(dim=0),
    "what 4 agree on, by the first rule": ruled(chance=0.1, contrast=0.0, caution=0.0),
    "what 4 agree on, without contrast": ruled(contrast=0.0),
    "what 4 agree on, without caution": ruled(caution=0.0),
    "**what 4 agree on**, as `colorize`": ruled(),
    "what 8 agree on": ruled(count=DRAWS),
}


class Drawn:
    """The colourings of a batch, drawn once for all rows."""

    def __init__(self, colorizer: Colorizer) -> None:
        self.colorizer = colorizer
        self.found: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, y: Tensor, seeds: Sequence[int]) -> Tensor:
        """(8,B,2,h,w)."""
        key = tuple(seeds)
        if key not in self.found:
            several = [[DRAWS * seed + k for seed in seeds] for k in range(DRAWS)]
            self.found[key] = torch.stack([self.colorizer.chroma(y, each) for each in several])
        return self.found[key]


def candidate(name: str, way: Way, drawn: Drawn) -> Candidate:
    """A row of the table."""

    def paint(batch: Batch) -> Painted:
        y = given_luma(batch.rgb)
        return Painted(y, way(drawn(y, batch.seeds), y))

    return Candidate(name, paint, {"chroma_scale": drawn.colorizer.config.model.chroma_scale})


def figures(report: dict[str, Any], model: str) -> str:
    """The figures of docs/measurements/agreement.md."""
    data, rows, equal = report["data"], report["rows"], report["at_equal_colorfulness"]
    made = [f"| | colourfulness | FD-VGG16 | {' | '.join(SHOWN)} |", "|---|" + "---:|" * (2 + len(SHOWN))]
    at = [f"| | strength | {' | '.join(SHOWN)} |", "|---|" + "---:|" * (1 + len(SHOWN))]
    less = [f"| | {' | '.join(SHOWN)} |", "|---|" + "---:|" * len(SHOWN)]
    for name in (*WAYS, "gray", "true photos"):
        row = rows[name]
        values = [f"{row[measure]['value']:.{digits}f}" for measure, digits in SHOWN.values()]
        made.append(
            f"| {name} | {row['colorfulness']['value']:.1f} | {row['fd_vgg16']['value']:.0f} "
            f"| {' | '.join(values)} |"
        )
    for name in WAYS:
        there = equal[name]["85%"]
        values = [f"{there[measure]['value']:.{digits}f}" for measure, digits in SHOWN.values()]
        at.append(f"| {name} | {there['strength']['value']:.2f} | {' | '.join(values)} |")
        found = {d["measure"]: d for d in report["differences"] if d["model"] == name}
        if found:
            cells = [number(found[measure]["at"]["85%"], digits) for measure, digits in SHOWN.values()]
            less.append(f"| {name} | {' | '.join(cells)} |")
    return f"""
## As made

{chr(10).join(made)}

## At 85 % of the true colourfulness

{chr(10).join(at)}

Differences to one colouring there, with 95 % intervals over photos. Bold: chance of the photos does not
explain it.

{chr(10).join(less)}

{written_by(f"agreement.py {model} --data {data['name']} --photos {data['photos']}")}, on photos of the
{data["split"]} part of {data["name"]}, {data["size"]} pixels. All rows use the same colourings of each photo.
"""


def main() -> None:
    """Measure and write."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("reports/agreement"))
    options = parser.parse_args()
    drawn = Drawn(Colorizer.load(options.model, options.models_dir))
    with Display() as display:
        report = evaluate.evaluate(
            [candidate(name, way, drawn) for name, way in WAYS.items()],
            HeldOut(find(options.data, options.data_dir, typed=True), options.split, options.photos),
            options.out,
            overwrite=True,
            progress=display.show,
        )
    write_figures(MEASUREMENTS / "agreement.md", figures(report, options.model))


if __name__ == "__main__":
    main()
