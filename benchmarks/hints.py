"""Does a hint give an object its colour and leave the rest alone? On ten pictures.

    python benchmarks/hints.py photochrom-v2 [--models models]

Writes docs/measurements/hints.md and hints.png there. Colours crops of the photos of the data set `demo`.
Hinted places and outlines of objects were chosen by hand, before any result was seen; the model knows no
outline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from detail import as_array, few_colors
from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Hint
from photochrom.data.demo import photographs
from photochrom.diffusion import color
from photochrom.diffusion.color import luma_tensor, to_images
from photochrom.evaluation import metrics
from photochrom.evaluation.metrics import Array
from photochrom.files import write_bytes
from photochrom.pictures import png, sheet

TILE = 160  # pixels of a picture on the sheet
BORDER = 0.03  # of the shorter side; pixels this near to an outline are neither object nor rest
PLACE = 0.02  # of the shorter side: radius of the hinted place
NOTICED = 2.3  # a just noticeable difference
Points = tuple[tuple[int, int], ...]


class Case(NamedTuple):
    """A hint on an object, in pixels of the whole photo."""

    name: str
    photo: str
    crop: tuple[int, int, int, int]  # left, top, right, bottom
    place: tuple[int, int]
    rgb: tuple[int, int, int]
    outline: Points


CASES = (
    Case(
        "space suit", "astronaut", (0, 150, 360, 510), (120, 310), (40, 90, 200),
        ((60, 250), (112, 215), (160, 265), (232, 295), (240, 330), (240, 480), (190, 460),
         (150, 480), (105, 510),
         (35, 510), (25, 440), (45, 400), (48, 335), (35, 325)),
    ),
    Case(
        "fuel tank", "astronaut", (330, 0, 512, 290), (420, 40), (40, 120, 50),
        ((402, 0), (432, 0), (438, 40), (438, 165), (420, 160), (412, 100), (400, 75)),
    ),
    Case(
        "hair", "astronaut", (110, 0, 340, 230), (225, 40), (170, 40, 30),
        ((157, 70), (185, 25), (235, 14), (285, 40), (300, 85), (292, 125), (275, 132), (268, 85),
         (240, 65), (200, 75),
         (182, 130), (165, 120)),
    ),
    Case(
        "saucer", "coffee", (60, 0, 500, 400), (130, 200), (30, 80, 180),
        ((85, 190), (110, 120), (165, 80), (175, 150), (190, 235), (200, 300), (250, 330),
         (330, 345), (400, 310),
         (410, 230), (395, 190), (410, 110), (470, 200), (470, 260), (420, 330), (340, 375),
         (240, 375), (150, 330),
         (95, 260)),
    ),
    Case(
        "coffee", "coffee", (150, 0, 430, 230), (290, 150), (90, 150, 50),
        ((210, 145), (230, 115), (300, 110), (350, 125), (368, 155), (330, 185), (270, 190), (225, 175)),
    ),
    Case(
        "evening sky", "rocket", (205, 40, 438, 350), (250, 150), (120, 50, 60),
        ((205, 40), (438, 40), (438, 350), (350, 350), (336, 280), (336, 180), (330, 130),
         (310, 130), (308, 180),
         (308, 280), (290, 350), (205, 350)),
    ),
    Case(
        "motorcycle's tank", "motorcycle", (260, 100, 530, 300), (430, 190), (30, 80, 190),
        ((328, 232), (380, 190), (440, 165), (475, 165), (484, 190), (480, 235), (430, 243), (360, 246)),
    ),
    Case(
        "cat's eye", "chelsea", (90, 40, 260, 190), (153, 115), (50, 120, 210),
        ((138, 115), (150, 95), (172, 87), (195, 97), (203, 118), (195, 138), (172, 146), (150, 135)),
    ),
    Case(
        "cat's nose", "chelsea", (180, 160, 340, 300), (275, 238), (200, 70, 110),
        ((233, 229), (290, 229), (284, 248), (262, 264), (248, 245)),
    ),
    Case(
        "wall", "grace_hopper", (150, 0, 512, 362), (440, 200), (60, 140, 80),
        ((300, 0), (512, 0), (512, 362), (450, 360), (375, 320), (355, 290), (375, 200),
         (372, 90), (350, 60), (310, 20)),
    ),
)  # fmt: skip


class Found(NamedTuple):
    """Mean CIELAB (a,b) distances of one case, over its seeds."""

    place: tuple[float, float]  # to the hint's colour, without and with the hint
    whole: tuple[float, float]  # the same over the whole object
    object: float  # how far the hint moves the object's colours
    rest: float  # how far it moves the colours of the rest
    otherwise: float  # how far another seed moves the colours of the rest


def masks(case: Case) -> tuple[Array, Array, Array]:
    """The pixels of the crop's hinted place, object and rest: (H,W) each."""
    left, top, right, bottom = case.crop
    size, shorter = (right - left, bottom - top), min(right - left, bottom - top)
    drawn = Image.new("L", size)
    ImageDraw.Draw(drawn).polygon([(x - left, y - top) for x, y in case.outline], fill=255)
    border = 2 * round(BORDER * shorter) + 1
    rows, columns = np.ogrid[: size[1], : size[0]]
    away = np.hypot(columns - (case.place[0] - left), rows - (case.place[1] - top))
    rest = np.asarray(drawn.filter(ImageFilter.MaxFilter(border))) == 0
    return away <= PLACE * shorter, np.asarray(drawn) > 0, rest


def wanted(gray: Image.Image, rgb: tuple[int, int, int]) -> Array:
    """CIELAB (H,W,3) of the photo with the hint's chroma everywhere, as far as each luma allows."""
    _, c = color.from_rgb(torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1) / 255)
    y = luma_tensor(gray)
    return metrics.lab(as_array(to_images(y, c.expand(1, 2, *y.shape[2:]))[0]))


def compared(case: Case, gray: Image.Image, plain: Sequence[Array], hinted: Sequence[Array]) -> Found:
    """Compare colourings without and with the hint, CIELAB (H,W,3), of the same seeds."""
    place, inside, rest = masks(case)
    goal = wanted(gray, case.rgb)

    def mean(pairs: Sequence[tuple[Array, Array]], where: Array) -> float:
        return float(np.mean([metrics.ab_distance(one, other)[where].mean() for one, other in pairs]))

    ways = [[(lab, goal) for lab in labs] for labs in (plain, hinted)]
    same = list(zip(plain, hinted, strict=True))
    another = list(zip(plain, [*plain[1:], plain[0]], strict=True))
    return Found(
        (mean(ways[0], place), mean(ways[1], place)),
        (mean(ways[0], inside), mean(ways[1], inside)),
        mean(same, inside), mean(same, rest), mean(another, rest),
    )  # fmt: skip


def marked(gray: Image.Image, case: Case) -> Image.Image:
    """The gray picture with the hint and the object's outline."""
    picture, (left, top) = gray.convert("RGB"), case.crop[:2]
    draw, radius = ImageDraw.Draw(picture), min(gray.size) / 22
    draw.polygon([(x - left, y - top) for x, y in case.outline], outline="yellow")
    x, y = case.place[0] - left, case.place[1] - top
    draw.circle((x, y), radius, fill=case.rgb, outline="white", width=max(1, round(radius / 4)))
    return picture


def figures(options: argparse.Namespace, found: dict[str, Found]) -> str:
    """The figures of docs/measurements/hints.md."""
    rows = [
        f"| {name} | {f.place[0]:.1f} → {f.place[1]:.1f} | {f.whole[0]:.1f} → {f.whole[1]:.1f} "
        f"| {f.object:.1f} | {f.rest:.1f} | {f.otherwise:.1f} |"
        for name, f in found.items()
    ]
    place, whole = (
        np.mean([getattr(f, part) for f in found.values()], axis=0) for part in ("place", "whole")
    )
    moved, rest, otherwise = np.mean([(f.object, f.rest, f.otherwise) for f in found.values()], axis=0)
    halved = sum(f.whole[1] < f.whole[0] / 2 for f in found.values())
    held = sum(f.rest < NOTICED for f in found.values())
    return f"""
The hint brings its object to less than half the distance from its colour on {halved} of {len(found)}
pictures. The rest changes by less than is noticed on {held}.

| picture | hinted place: distance from the hint's colour without → with it | \
the same over the whole object | the hint moves the object | the rest | another seed moves the rest |
|---|---|---|---:|---:|---:|
{chr(10).join(rows)}
| **mean** | {place[0]:.1f} → {place[1]:.1f} | {whole[0]:.1f} → {whole[1]:.1f} | {moved:.1f} | \
{rest:.1f} | {otherwise:.1f} |

All distances are means of (a,b) in CIELAB, where {NOTICED} is a just noticeable difference. The hint's
colour is its chroma laid over the photo's luma. What lies within {BORDER:.0%} of the shorter side around an
outline counts as neither object nor rest.

{written_by(f"hints.py {options.model}")}: one `--hint` on each of {len(found)} crops of free photographs,
{options.seeds} seeds, the same with and without the hint.
"""


def main() -> None:
    """Colour, measure and write."""
    options = parser_for(__doc__, seeds=4).parse_args()
    colorizer = Colorizer.load(options.model, options.models)
    photos = photographs()
    found: dict[str, Found] = {}
    columns: dict[str, list[Image.Image]] = {"gray, and the hint": [], "without": [], "with the hint": []}
    for case in CASES:
        gray = photos[case.photo].crop(case.crop).convert("L")
        hint = Hint(case.place[0] - case.crop[0], case.place[1] - case.crop[1], case.rgb)
        plain = colorizer.samples(gray, options.seeds)[:]
        hinted = colorizer.samples(gray, options.seeds, hints=[hint])[:]
        labs = [[metrics.lab(as_array(picture)) for picture in pictures] for pictures in (plain, hinted)]
        found[case.name] = compared(case, gray, *labs)
        for column, picture in zip(columns.values(), (marked(gray, case), plain[0], hinted[0]), strict=True):
            column.append(picture)
        print(case.name, found[case.name], flush=True)
    write_bytes(MEASUREMENTS / "hints.png", png(few_colors(sheet(columns, TILE, across=2))))
    write_figures(MEASUREMENTS / "hints.md", figures(options, found))


if __name__ == "__main__":
    main()
