"""How FD-VGG16 depends on the number of photos, and its limit for infinitely many.

    python benchmarks/frechet.py photochrom-fast photochrom-v2 --data tiny-imagenet-200
                                                            # writes docs/measurements/frechet.md

A Frechet distance between two finite sets is above zero even if both come from one source; the excess falls
as 1 / N. So this measures nested sets of photos, and extrapolates along a line in 1 / N (Chong & Forsyth
2020, section 4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.commands.terminal import Display
from photochrom.data.dataset import find
from photochrom.diffusion.vgg16 import VGG16
from photochrom.evaluation import metrics
from photochrom.evaluation.at_size import model_at_size, references
from photochrom.evaluation.candidates import Batch, Candidate, render
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.metrics import Array, Moments, frechet_distance

COUNTS = (300, 400, 600, 800, 1200)  # of 256 channels; all photos are added to these
BATCH = 50
UNIT = 1e-3  # of reports
TRUTH, OTHERS = "true photos", "other true photos"


def features(candidate: Candidate, batch: Batch, vgg: VGG16) -> Array:
    """VGG16's features of a batch that a candidate has coloured, (B,256)."""
    y, c, _ = candidate.paint(batch)
    return metrics.frechet_features(metrics.vgg_features(vgg, render(y, c, 1.0)))


def distances(found: Array, true: Array, counts: list[int]) -> list[float]:
    """The distance for each number of photos, in reports' unit: the mean over all parts of that size."""
    values = []
    for count in counts:
        starts = range(0, len(true) - count + 1, count)
        each = [frechet_distance(Moments(true[i : i + count]), Moments(found[i : i + count])) for i in starts]
        values.append(UNIT * float(np.mean(each)))
    return values


def figures(rows: dict[str, list[float]], counts: list[int], photos: str, command: str) -> str:
    """The figures of docs/measurements/frechet.md. A row may lack the last counts."""
    lines = [
        f"| | {' | '.join(f'{count:,} photos' for count in counts)} | extrapolated |",
        "|---|" + "---:|" * (len(counts) + 1),
    ]
    for name, values in rows.items():
        limit = np.polyfit(1 / np.array(counts[: len(values)]), values, 1)[1]
        cells = [f"{value:,.0f}" for value in values] + [""] * (len(counts) - len(values))
        lines.append(f"| {name} | {' | '.join(cells)} | {max(0.0, limit):,.0f} |")
    return f"""
{chr(10).join(lines)}

{written_by(command)}, on {photos}. FD-VGG16 between coloured and true photos, in thousands. Below the full
number: the mean over disjoint parts. Extrapolated: where a straight line in 1 / N through all of these
ends.
"""


def measured(photos: HeldOut, candidates: list[Candidate]) -> dict[str, Array]:
    """Features of the photos by candidate, (N,256), in one order drawn by seed."""
    vgg = VGG16.load()
    found: dict[str, list[Array]] = {candidate.name: [] for candidate in candidates}
    with Display() as display:
        for first in range(0, len(photos), BATCH):
            part = range(first, min(first + BATCH, len(photos)))
            batch = photos.batch(part)
            for candidate in candidates:
                found[candidate.name].append(features(candidate, batch, vgg))
            display.show(part.stop, len(photos), "photos")
    return {name: np.concatenate(parts) for name, parts in found.items()}


def main() -> None:
    """Measure and write."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--split", default="validation")
    parser.add_argument(
        "--photos", type=int, help="default: all, which is more than twice the largest of the other counts"
    )
    options = parser.parse_args()
    pack = find(options.data, options.data_dir, typed=True)
    candidates = [model_at_size(name, options.models_dir, pack) for name in options.models]
    candidates += [each for each in references(pack, [2]) if each.name != "mean colour"]
    found = measured(HeldOut(pack, options.split, options.photos), candidates)
    true = found.pop(TRUTH)
    counts = [*(count for count in COUNTS if count < len(true)), len(true)]
    rows = {name: distances(values, true, counts) for name, values in found.items()}
    half = len(true) // 2
    few = [count for count in counts if count <= half]
    rows[OTHERS] = distances(true[half : 2 * half], true[:half], few)
    command = f"frechet.py {' '.join(options.models)} --data {pack.name}"
    photos = f"the {len(true):,} photos of the {options.split} part of {pack.name}, {pack.size} pixels"
    write_figures(MEASUREMENTS / "frechet.md", figures(rows, counts, photos, command))


if __name__ == "__main__":
    main()
