"""Photos drawn by seed: gray, as each model colours them, and true. Writes docs/measurements/real-photos.jpg.

    python benchmarks/sheet.py data/real-test models/before photochrom-fast

The photos are those of `recipes/photos.py` that we may show: CC0 (clothing), MIT (grocery) and CC BY 4.0
(Caltech 101). Nobody chose them, so the sheet shows failures too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pages import MEASUREMENTS, parser_for
from photochrom.coloring.colorizer import Colorizer
from photochrom.data.reading import open_photo

FREE = ("caltech101", "clothing", "grocery")
COUNT, COLUMNS, SIDE, GAP = 40, 4, 120, 3


def main() -> None:
    """Draw the photos, colour each with every model as `photochrom colorize` does, and paste all together."""
    parser = parser_for(__doc__)
    parser.add_argument("photos", type=Path, help="folder of photos, named SOURCE__NAME")
    parser.add_argument("models", nargs="+", help="models, from left to right")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    files = [path for path in sorted(args.photos.iterdir()) if path.name.split("__")[0] in FREE]
    drawn = np.random.default_rng(args.seed).choice(len(files), COUNT, replace=False)
    models = [Colorizer.load(name) for name in args.models]
    width = (len(models) + 2) * SIDE + 3 * GAP
    rows = COUNT // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * width - 3 * GAP, rows * (SIDE + GAP) - GAP), "white")
    for place, number in enumerate(sorted(drawn)):
        true = open_photo(files[number]).convert("RGB")
        gray = true.convert("L")
        pictures = [gray, *(model(gray, average=4) for model in models), true]
        left, top = place // rows * width, place % rows * (SIDE + GAP)
        for column, picture in enumerate(pictures):
            tile = ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (left + column * SIDE, top))
    sheet.save(MEASUREMENTS / "real-photos.jpg", quality=88)


if __name__ == "__main__":
    main()
