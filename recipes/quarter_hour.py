"""Train for real photos on a GPU that you have for a quarter of an hour, and can send little data to.

At home, with a data set of real photos (`recipes/photos.py`), make parts that are small enough to send:

    python recipes/quarter_hour.py parts data/real128 parts --megabytes 110

There, with the parts that have arrived (each is a fair sample, so any number of them will do):

    python recipes/quarter_hour.py train parts --minutes 8 --out results

The second command unpacks them, trains a model further by noise alone (V1), then with the perceptual loss
(V2), distils that to 4 steps, and puts what is worth taking home into `results`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from photochrom.data.pack import Pack, new_pack
from photochrom.data.sources import checksum

Pixels = npt.NDArray[np.uint8]
PART_BYTES = 55_000_000
QUALITY = 85  # of WebP; a photo of 128 pixels takes about 5 KB
DATA = "quarter"  # the name of the unpacked data set
SHARES = {"v1": 0.7, "v2": 0.15, "fast": 0.15}  # of the minutes
BROUGHT_HOME = (
    "model.safetensors",
    "config.json",
    "training_history.json",
    "loss_curve.png",
    "README.md",
    "samples",
)


def webp(pixels: Pixels) -> bytes:
    """A photo (S,S,3), compressed."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def make_parts(folder: Path, destination: Path, megabytes: int) -> None:
    """Write zip files of at most PART_BYTES: all validation photos, and random training photos that fit."""
    pack = Pack.open(folder)
    rows = np.concatenate([pack.indices("validation"), pack.drawn("train", None, 0)])
    destination.mkdir(parents=True, exist_ok=True)
    left, number, archive, size = megabytes * 1_000_000, 0, None, 0
    with ProcessPoolExecutor() as pool:
        for start in range(0, len(rows), 1024):
            some = rows[start : start + 1024]
            for row, content in zip(some, pool.map(webp, pack.photos[some], chunksize=64), strict=True):
                left -= len(content)
                if left < 0:
                    break
                if archive is None or size + len(content) > PART_BYTES:
                    if archive:
                        archive.close()
                    archive, size = zipfile.ZipFile(destination / f"part-{number:02}.zip", "w"), 0
                    number += 1
                size += len(content) + 200  # the entry's name and place
                archive.writestr(f"{pack.split[row]}/{row}.webp", content)
            if left < 0:
                break
    if archive:
        archive.close()
    print(f"{number} parts in {destination}")


def photos_of(part: Path) -> list[tuple[str, str, Pixels]]:
    """Split, name and pixels of a part's photos."""
    with zipfile.ZipFile(part) as archive:
        return [
            (name.split("/")[0], name, np.asarray(Image.open(archive.open(name)).convert("RGB")))
            for name in archive.namelist()
        ]


def unpack(parts: Path, data_dir: Path) -> None:
    """Unpack all parts into one data set."""
    columns: dict[str, list[object]] = {name: [] for name in ("split", "label", "origin", "checksum")}
    found = sorted(parts.glob("part-*.zip"))
    with zipfile.ZipFile(found[0]) as first:
        size = Image.open(first.open(first.namelist()[0])).width
    with ProcessPoolExecutor() as pool, new_pack(data_dir / DATA, size, overwrite=True) as (file, index):
        for photos in pool.map(photos_of, found):
            for split, name, pixels in photos:
                file.write(pixels.tobytes())
                for column, value in zip(columns.values(), (split, -1, name, checksum(pixels)), strict=True):
                    column.append(value)
        index |= {"source": parts.name, "seed": 0, "categories": [], "left_out": [], "photos": columns}


def commands(source: str, minutes: float, work: Path, more: list[str]) -> Iterator[list[str]]:
    """The three trainings, in order."""
    places = [
        "--models",
        str(work / "models"),
        "--data-dir",
        str(work / "data"),
        "--data",
        DATA,
        "--sample-every",
        "0",
    ]
    stages = {
        "v1": [
            "--from",
            source,
            "--encoder",
            "lite0",
            "--chroma-scale",
            "4",
            "--train-encoder",
            "--perceptual",
            "0",
        ],
        "v2": ["--from", "v1", "--perceptual", "0.1", "--learning-rate", "4e-4", "--seed", "1"],
        "fast": ["--from", "v2", "--distill", "4", "--learning-rate", "4e-4", "--seed", "2"],
    }
    stages["v1"] += ["--batch-size", "256", "--learning-rate", "8e-4", *more]
    for name, flags in stages.items():
        given = ["--name", name, "--minutes", f"{SHARES[name] * minutes:.2f}"]
        yield [sys.executable, "-m", "photochrom", "train", *given, *flags, *places]


def main() -> None:
    """Make parts, or train on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    making = what.add_parser("parts", help="at home")
    making.add_argument("data", type=Path, help="folder of the data set")
    making.add_argument("parts", type=Path)
    making.add_argument("--megabytes", type=int, default=110, help="of all parts together")
    training = what.add_parser(
        "train", help="on the machine with the GPU; what it does not know goes to the V1 training"
    )
    training.add_argument("parts", type=Path)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--from", dest="source", default="photochrom-v2", help="model, or its folder")
    training.add_argument("--minutes", type=float, default=8)
    training.add_argument("--work", type=Path, default=Path("quarter_hour"), help="folder for all else")
    options, more = parser.parse_known_args()
    if options.what == "parts":
        make_parts(options.data, options.parts, options.megabytes)
        return
    unpack(options.parts, options.work / "data")
    for command in commands(options.source, options.minutes, options.work, more):
        print(*command[2:], flush=True)
        subprocess.run(command, check=True)
        model = options.work / "models" / command[command.index("--name") + 1]
        for file in filter(Path.exists, (model / name for name in BROUGHT_HOME)):
            target = options.out / model.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if file.is_dir() else shutil.copy)(file, target)


if __name__ == "__main__":
    main()
