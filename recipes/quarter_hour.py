"""Train for real photos on a GPU that you have for a quarter of an hour, and can send little data to.

At home, with a data set of real photos (`recipes/photos.py`), make parts that are small enough to send:

    python recipes/quarter_hour.py parts data/real128 parts --megabytes 110

There, with the parts that have arrived (the first holds the validation photos; any number of others will do):

    python recipes/quarter_hour.py train parts --minutes 8 --out results

The second command unpacks them, trains a model further by noise alone (V1), then with the perceptual loss
(V2), distils that to 2 steps, and puts what is worth taking home into `results`. With photos of 192 pixels,
add `--sides 128,160,192`: the models that ship learnt so.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from photochrom.data.pack import Pack, new_pack
from photochrom.data.sources import checksum

Pixels = npt.NDArray[np.uint8]
PART_BYTES = 58_000_000
ACROSS = 16  # photos in a row of a sheet
SHEET = 16 * ACROSS  # photos in a sheet: one file for each would be a tenth larger
DATA = "quarter"  # the name of the unpacked data set
SHARES = {"v1": 0.65, "v2": 0.2, "fast": 0.15}  # of the minutes
BROUGHT_HOME = (
    "model.safetensors",
    "config.json",
    "training_history.json",
    "loss_curve.png",
    "README.md",
    "samples",
)


def sheet(folder: Path, quality: int, rows: npt.NDArray[np.int64]) -> bytes:
    """Photos of a data set side by side, as AVIF."""
    photos = np.load(folder / "photos.npy", mmap_mode="r")[np.sort(rows)]
    count, size = photos.shape[:2]
    across = min(count, ACROSS)
    down = math.ceil(count / across)
    places = np.zeros((down * across, size, size, 3), np.uint8)
    places[:count] = photos
    whole = places.reshape(down, across, size, size, 3).swapaxes(1, 2).reshape(down * size, across * size, 3)
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "AVIF", quality=quality, speed=9, subsampling="4:2:0")
    return file.getvalue()


def photos_of(content: bytes, count: int, size: int) -> Pixels:
    """The inverse of `sheet`."""
    whole = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    across = whole.shape[1] // size
    return whole.reshape(-1, size, across, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)[:count]


def make_parts(folder: Path, destination: Path, megabytes: int, quality: int) -> None:
    """Write zip files of at most PART_BYTES: all validation photos, and random training photos that fit."""
    pack = Pack.open(folder)
    rows = {"validation": pack.indices("validation"), "train": pack.drawn("train", None, 0)}
    sheets = [
        (split, some[i : i + SHEET]) for split, some in rows.items() for i in range(0, len(some), SHEET)
    ]
    destination.mkdir(parents=True, exist_ok=True)
    left, number, archive, size = megabytes * 1_000_000, 0, None, 0
    with ProcessPoolExecutor() as pool:
        made = pool.map(partial(sheet, folder, quality), [rows for _, rows in sheets])
        for place, ((split, rows_of_sheet), content) in enumerate(zip(sheets, made, strict=True)):
            left -= len(content)
            if left < 0:
                pool.shutdown(cancel_futures=True)
                break
            if archive is None or size + len(content) > PART_BYTES:
                if archive:
                    archive.close()
                archive, size = zipfile.ZipFile(destination / f"part-{number:02}.zip", "w"), 0
                number += 1
            size += len(content) + 200  # the entry's name and place
            archive.writestr(f"{split}/{place:05}-{len(rows_of_sheet)}-{pack.size}.avif", content)
    if archive:
        archive.close()
    print(f"{number} parts in {destination}")


def sheets_of(part: Path) -> list[tuple[str, str, Pixels]]:
    """Split, name and photos of a part's sheets."""
    found = []
    with zipfile.ZipFile(part) as archive:
        for name in archive.namelist():
            count, size = (int(each) for each in Path(name).stem.split("-")[1:])
            found.append((name.split("/")[0], name, photos_of(archive.read(name), count, size)))
    return found


def unpack(parts: Path, folder: Path) -> None:
    """Unpack all parts into one data set."""
    columns: dict[str, list[object]] = {name: [] for name in ("split", "label", "origin", "checksum")}
    found = sorted(parts.glob("part-*.zip"))
    with zipfile.ZipFile(found[0]) as first:
        size = int(Path(first.namelist()[0]).stem.split("-")[2])
    with ProcessPoolExecutor() as pool, new_pack(folder, size, overwrite=True) as (file, index):
        for sheets in pool.map(sheets_of, found):
            for split, name, photos in sheets:
                file.write(photos.tobytes())
                for number, pixels in enumerate(photos):
                    row = (split, -1, f"{name}/{number}", checksum(pixels))
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        index |= {"source": parts.name, "seed": 0, "categories": [], "left_out": [], "photos": columns}


def commands(source: str, minutes: float, work: Path, more: list[str]) -> Iterator[list[str]]:
    """The three trainings, in order; V1 and V2 with the settings of those that ship."""
    places = ["--models", str(work / "models"), "--data-dir", str(work / "data"), "--data", DATA]
    network = "--encoder lite0 --chroma-scale 4 --train-encoder --draws 1"
    stages = {
        "v1": f"{network} --perceptual 0 --no-anneal --batch-size 512 --learning-rate 1.2e-3",
        "v2": "--perceptual 0.1 --batch-size 512 --learning-rate 1e-3 --ema-decay 0.998 --seed 1",
        "fast": "--distill 2 --batch-size 256 --learning-rate 8e-4 --ema-decay 0.99 --seed 2",
    }
    for name, flags in stages.items():
        given = ["--name", name, "--from", source, "--minutes", f"{SHARES[name] * minutes:.2f}"]
        given += ["--sample-every", "0", *flags.split(), *(more if name == "v1" else [])]
        yield [sys.executable, "-m", "photochrom", "train", *given, *places]
        source = name


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
    making.add_argument("--quality", type=int, default=60, help="of AVIF; a photo of 128 pixels takes 2.5 KB")
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
        make_parts(options.data, options.parts, options.megabytes, options.quality)
        return
    unpack(options.parts, options.work / "data" / DATA)
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
