"""The picture at the top of the README: free photos, gray, and as `photochrom colorize` colours them.

    python benchmarks/coloured.py      # writes docs/coloured.jpg

The photos of the data set `demo` without the motorcycle, and scikit-image's photographer, which is gray.
README and `photochrom.data.demo` name origins and licences.
"""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageOps

from pages import DOCS
from photochrom.commands.cli import main as photochrom
from photochrom.data.demo import photographs
from photochrom.data.reading import open_photo

SIDE, GAP = 200, 4
ORDER = ("camera", "astronaut", "chelsea", "grace_hopper", "coffee", "rocket")


def main() -> None:
    """Colour them with the command, as anybody would, and join the pictures."""
    photos = photographs() | {"camera": open_photo(Path(str(files("skimage") / "data/camera.png")))}
    with tempfile.TemporaryDirectory() as name:
        gray, coloured = Path(name, "gray"), Path(name, "coloured")
        gray.mkdir()
        for each in ORDER:
            photos[each].convert("L").save(gray / f"{each}.png")
        try:
            photochrom(["colorize", str(gray), "-o", str(coloured)])
        except SystemExit as ended:
            if ended.code:
                raise
        step = SIDE + GAP
        picture = Image.new("RGB", (len(ORDER) * step - GAP, 2 * step - GAP), "white")
        for row, folder in enumerate((gray, coloured)):
            for column, each in enumerate(ORDER):
                tile = ImageOps.fit(Image.open(folder / f"{each}.png").convert("RGB"), (SIDE, SIDE))
                picture.paste(tile, (column * step, row * step))
    picture.save(DOCS / "coloured.jpg", quality=90)


if __name__ == "__main__":
    main()
