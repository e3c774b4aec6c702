"""At which working size does a model colour large photos best, and what does each size cost?

    python benchmarks/detail.py photochrom-v2 [--models models]

Writes docs/measurements/detail.md and detail.png there. Colours the photos of the data set `demo`
(`photochrom.data.demo` names origins and licences), whole and at full size. Errors shrink as colours fade, so
it also compares the sizes at equal colourfulness: each with the one strength that makes its colourings as
colourful, on average, as those at the training's size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.stats import t as student

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.colorings import Colorings, agreed
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.upsampling import lay_over
from photochrom.data.demo import photographs
from photochrom.errors import PhotochromError
from photochrom.evaluation import metrics
from photochrom.evaluation.metrics import MEASURES, Array
from photochrom.evaluation.statistics import STRENGTHS, strength_at
from photochrom.files import write_bytes
from photochrom.pictures import png, sheet

TILE = 128  # pixels of a photo on the sheet
SIDES = (48, 64, 96, 128, 192, 256)
ENOUGH = 0.01  # least share of almost black pixels for a photo to count in the dark measures
ERRORS = ("ab", "ciede2000", "dark_error", "false_color")
SHOWN = ("colorfulness", *ERRORS)
Table = dict[str, Array]  # measure -> (photos,), the mean over seeds


class Drawn(NamedTuple):
    """Colourings of all photos at one working size."""

    samples: list[Colorings]
    seconds: float  # of the processor, for each colouring

    def averaged(self) -> Drawn:
        """What each photo's colourings agree on, as `colorize --average` does."""
        calm = [
            Colorings(each.photo, each.seen, agreed(each.c[:, None], each.seen.y)) for each in self.samples
        ]
        return Drawn(calm, self.seconds * len(self.samples[0]))


class Compared(NamedTuple):
    """The working sizes side by side: measures as made, strengths, and measures with that strength."""

    made: dict[int, Table]
    strengths: dict[int, float]
    equal: dict[int, Table]


def draw(colorizer: Colorizer, photos: Sequence[Image.Image], side: int, seeds: int) -> Drawn:
    """`seeds` colourings of each photo's luma."""
    started = time.process_time()
    samples = [colorizer.samples(photo.convert("L"), seeds, detail=side) for photo in photos]
    for several in samples:
        several[:]  # enlarging to full size is part of the cost
    return Drawn(samples, (time.process_time() - started) / (seeds * len(photos)))


def pictures(several: Colorings, strength: float) -> Array:
    """All colourings of a photo, bolder or paler: (S,H,W,3) in [0,1]."""
    drawn = [lay_over(several.photo.luma, several.seen, strength * c[None]) for c in several.c]
    return np.stack([as_array(picture) for picture in drawn])


def as_array(picture: Image.Image) -> Array:
    """(H,W,3) float32 in [0,1]."""
    return np.asarray(picture, dtype=np.float32) / 255


def equal_strength(drawn: Drawn, target: float) -> float:
    """The strength at which all colourings have the target as mean colourfulness."""
    curve = [0.0] + [
        float(np.mean([metrics.colorfulness(pictures(several, strength)) for several in drawn.samples]))
        for strength in STRENGTHS
    ]
    found = float(strength_at(np.array([curve]), np.array([target]))[0])
    if np.isnan(found):
        raise PhotochromError(
            f"no strength makes colourfulness {target:.1f}: {STRENGTHS[-1]} makes {curve[-1]:.1f}"
        )
    return found


def measured(drawn: Drawn, true: Sequence[Array], strength: float) -> Table:
    """Measures of each photo, means over its seeds; NaN if a photo has too few dark pixels."""
    rows = []
    for several, truth in zip(drawn.samples, true, strict=True):
        lab = np.repeat(metrics.lab(truth[None]), len(several), axis=0)
        made = metrics.photo_columns(
            metrics.pixel_sums(pictures(several, strength), np.repeat(truth[None], len(several), 0), lab)
        )
        sums = {name: float(column.mean()) for name, column in made.items()}
        rows.append([value(name, sums, truth.shape[0] * truth.shape[1]) for name in SHOWN])
    return dict(zip(SHOWN, np.array(rows).T, strict=True))


def value(name: str, sums: dict[str, float], pixels: int) -> float:
    """One measure of one photo."""
    measure = MEASURES[name]
    if measure.count is None:
        return sums[name]
    enough = sums[measure.count] >= ENOUGH * pixels
    return measure.scale * sums[name] / sums[measure.count] if enough else float("nan")


def difference(found: Array, other: Array) -> tuple[float, float]:
    """Mean over photos of found - other, and the half width of its 95 % interval (Student's t)."""
    apart = (found - other)[~np.isnan(found - other)]
    reach = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    return float(apart.mean()), float(reach)


def few_colors(picture: Image.Image) -> Image.Image:
    """The picture in 256 dithered colours, a third of the file. Keeps rare colours."""
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def told_apart(found: Table, other: Table) -> dict[str, float]:
    """The errors that differ by more than their interval, with the difference."""
    apart = {name: difference(found[name], other[name]) for name in ERRORS}
    return {name: mean for name, (mean, reach) in apart.items() if abs(mean) > reach}


def table(tables: dict[int, Table], trained: int) -> str:
    """The errors at each size, and their differences from those at the training's size."""
    titles = [
        f"{MEASURES[name].title}{', ' * bool(MEASURES[name].unit)}{MEASURES[name].unit}" for name in SHOWN
    ]
    lines = [f"| shorter side | {' | '.join(titles)} |", "|---:|" + "---|" * len(titles)]
    for side, found in tables.items():
        cells = [f"{np.nanmean(found[name]):.2f}" for name in SHOWN]
        if side != trained:
            sure = told_apart(found, tables[trained])
            for place, name in enumerate(ERRORS, start=1):
                mean, reach = difference(found[name], tables[trained][name])
                mark = "**" if name in sure else ""
                cells[place] += f" ({mark}{mean:+.2f} ± {reach:.2f}{mark})"
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_photo(tables: dict[int, Table], names: Sequence[str]) -> str:
    """Colour distance of each photo at each size."""
    lines = ["| shorter side | " + " | ".join(names) + " |", "|---:|" + "---:|" * len(names)]
    for side, found in tables.items():
        lines.append(f"| {side} | " + " | ".join(f"{distance:.1f}" for distance in found["ab"]) + " |")
    return "\n".join(lines)


def findings(tables: dict[int, Table], trained: int) -> str:
    """In words: what differs from the training's size beyond chance."""
    words = []
    for side, found in tables.items():
        apart = told_apart(found, tables[trained])
        for verdict, sign in (("better", -1), ("worse", 1)):
            names = [MEASURES[name].title for name, mean in apart.items() if mean * sign > 0]
            if names:
                words.append(f"{side} pixels are {verdict} by {', '.join(names)}")
    return "; ".join(words) or f"no size can be told apart from {trained} pixels"


def compare(drawn: dict[int, Drawn], true: Sequence[Array], trained: int) -> Compared:
    """Measure all sizes as made, and at the colourfulness of the training's size."""
    made = {side: measured(each, true, 1.0) for side, each in drawn.items()}
    goal = float(made[trained]["colorfulness"].mean())
    strengths = {side: equal_strength(each, goal) for side, each in drawn.items()} | {trained: 1.0}
    return Compared(
        made, strengths, {side: measured(each, true, strengths[side]) for side, each in drawn.items()}
    )


def figures(
    options: argparse.Namespace,
    steps: int,
    trained: int,
    names: Sequence[str],
    seconds: dict[int, float],
    one: Compared,
    mean: Compared,
    truth: float,
) -> str:
    """The figures of docs/measurements/detail.md."""
    costs = [
        f"| {side} | {spent:.2f} | {one.strengths[side]:.2f} | {mean.strengths[side]:.2f} |"
        for side, spent in seconds.items()
    ]
    return f"""
At equal colourfulness, {findings(one.equal, trained)}. Of the mean of {options.seeds} colourings,
{findings(mean.equal, trained)}.

## Single colourings, as colourful as at {trained} pixels

In brackets: the mean difference from {trained} pixels over the photos, with its 95 % interval (Student's
t). Bold: the interval excludes zero.

{table(one.equal, trained)}

Colour distance by photo:

{by_photo(one.equal, names)}

## The mean of {options.seeds} colourings, as colourful as at {trained} pixels

{table(mean.equal, trained)}

## Single colourings as made

{table(one.made, trained)}

## Cost

Processor seconds for a single colouring, from a photo in memory to its picture at full size; and the
strengths that made single colourings and means as colourful as at {trained} pixels.

| shorter side | seconds | strength | of a mean |
|---:|---:|---:|---:|
{chr(10).join(costs)}

![true, and coloured at each working size](detail.png)

*The first seed of each, as made.*

{written_by(f"detail.py {options.model}")}. The model was trained at {trained} pixels. {len(names)} free
photographs ({", ".join(names)}), whole, {options.seeds} seeds each, {steps} steps, measured at their own
size (colourfulness of the true ones: {truth:.1f}). Each table has {len(ERRORS) * (len(seconds) - 1)}
comparisons. Almost black regions count in photos that have at least 1 % of them.
"""


def main() -> None:
    """Colour, measure and write."""
    options = parser_for(__doc__, seeds=4).parse_args()
    colorizer = Colorizer.load(options.model, options.models)
    trained = colorizer.config.data.size or 64
    photos = photographs()
    true = [as_array(photo) for photo in photos.values()]
    drawn: dict[int, Drawn] = {}
    for side in sorted({*SIDES, trained}):
        drawn[side] = draw(colorizer, list(photos.values()), side, options.seeds)
        print(f"{side} pixels: {drawn[side].seconds:.2f} s for a colouring", flush=True)
    one = compare(drawn, true, trained)
    mean = compare({side: each.averaged() for side, each in drawn.items()}, true, trained)
    truth = float(np.mean([metrics.colorfulness(photo[None]) for photo in true]))
    columns = {"true": list(photos.values())}
    columns |= {str(side): [several[0] for several in each.samples] for side, each in drawn.items()}
    write_bytes(MEASUREMENTS / "detail.png", png(few_colors(sheet(columns, TILE))))
    seconds = {side: each.seconds for side, each in drawn.items()}
    text = figures(options, colorizer.config.steps, trained, list(photos), seconds, one, mean, truth)
    write_figures(MEASUREMENTS / "detail.md", text)
    print(text)


if __name__ == "__main__":
    main()
