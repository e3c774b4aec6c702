"""The data set `demo`: crops of photographs in scikit-image and matplotlib, without a download.

| photo        | shows                          | origin                                | licence           |
|--------------|--------------------------------|---------------------------------------|-------------------|
| astronaut    | Eileen Collins                 | NASA Great Images database            | public domain     |
| coffee       | a cup of espresso on a table   | Rachel Michetti, Pikolo Espresso Bar  | CC0               |
| rocket       | Falcon 9 before a launch       | SpaceX                                | public domain     |
| motorcycle   | the left view of a stereo pair | Middlebury stereo data sets of 2014   | free to use and   |
|              |                                | (Scharstein et al., GCPR 2014)        | publish, cite it  |
| chelsea      | a cat                          | Stefan van der Walt                   | CC0               |
| grace_hopper | Rear Admiral Grace Hopper      | United States Navy                    | public domain     |

Chelsea and Grace Hopper are held out whole, so that no training crop shows them. The other bundled pictures
are not used: they are no everyday colour photographs (textures, microscopy, a retina, a sky survey), or show
the same scene again (the motorcycle's right view).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from photochrom.data.importing import ImportReport
from photochrom.data.pack import new_pack
from photochrom.data.reading import Pixels, is_gray
from photochrom.data.sources import checksum
from photochrom.errors import PhotochromError

SIZE = 64
SEED = 0
# name, package, file inside it, split, crops, smallest crop as a share of the shorter side
PHOTOS = (
    ("astronaut", "skimage", "data/astronaut.png", "train", 600, 0.0),
    ("coffee", "skimage", "data/coffee.png", "train", 600, 0.0),
    ("rocket", "skimage", "data/rocket.jpg", "train", 600, 0.0),
    ("motorcycle", "skimage", "data/motorcycle_left.png", "train", 600, 0.0),
    ("chelsea", "skimage", "data/chelsea.png", "validation", 32, 0.5),
    ("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "validation", 32, 0.5),
)


def make_demo(destination: Path) -> ImportReport:
    """Make the data set: 2,400 crops (64, 64) of four photographs for training, 64 of two others to validate.

    Raises PhotochromError if a photograph is not installed or `destination` exists.
    """
    started = time.perf_counter()
    columns: dict[str, list[Any]] = {"split": [], "label": [], "origin": [], "checksum": []}
    with new_pack(destination, SIZE, overwrite=False) as (file, index):
        for label, (name, package, path, split, count, smallest) in enumerate(PHOTOS):
            seen: set[str] = set()
            for origin, pixels in _crops(
                _read(package, path), smallest, np.random.default_rng([SEED, label])
            ):
                if len(seen) == count:
                    break
                digest = checksum(pixels)
                if digest in seen or is_gray(pixels):
                    continue
                seen.add(digest)
                file.write(pixels.tobytes())
                for column, value in zip(
                    columns.values(), (split, label, f"{name} {origin}", digest), strict=True
                ):
                    column.append(value)
        columns["group"] = columns["label"]  # crops of one photograph
        index |= {"source": "scikit-image and matplotlib", "seed": SEED, "photos": columns}
        index |= {"categories": [name for name, *_ in PHOTOS], "left_out": []}
    return ImportReport(destination, index["counts"], {}, [], time.perf_counter() - started)


def photographs() -> dict[str, Image.Image]:
    """The whole photographs by name. Raises PhotochromError if one is not installed."""
    return {name: _read(package, path) for name, package, path, *_ in PHOTOS}


def _read(package: str, file: str) -> Image.Image:
    spec = find_spec(package)  # finds the files without importing the package
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, file)).is_file():
            return Image.open(path).convert("RGB")
    raise PhotochromError(
        f"the data set demo needs {Path(file).name} of {package}, which is missing: install Photochrom again"
    )


def _crops(photo: Image.Image, smallest: float, random: np.random.Generator) -> Iterator[tuple[str, Pixels]]:
    """The centre square, then random squares without end: any place, log-uniform side of SIZE or more."""
    yield "whole", np.asarray(ImageOps.fit(photo, (SIZE, SIZE), Image.Resampling.LANCZOS))
    longest = min(photo.size)
    low = max(SIZE, smallest * longest)
    while True:
        side = math.floor(low * (longest / low) ** random.random())
        left, top = (int(random.integers(extent - side + 1)) for extent in photo.size)
        box = (left, top, left + side, top + side)
        yield (
            f"{left},{top} {side}x{side}",
            np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box)),
        )
