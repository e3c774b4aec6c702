"""Photos, folders and archives that the tests of this room make."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photochrom.data import sources
from photochrom.data.pack import Pack

WNIDS = {"n001": "goldfish, Carassius auratus", "n002": "Egyptian cat", "n003": "school bus"}


def photo(seed: int, width: int = 64, height: int | None = None) -> Image.Image:
    """A coloured photo that no other seed gives: soft noise in every channel."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height or width), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiny_imagenet(train: int = 10, val: int = 4) -> dict[str, bytes]:
    """Files in the official layout; `train` and `val` photos for each of three categories."""
    files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": "".join(f"{wnid}\t{words}\n" for wnid, words in WNIDS.items()).encode() + b"n9\tother\n",
    }
    annotations = ""
    for number, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(train):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encoded(photo(1000 * number + i))
        for i in range(val):
            files[f"val/images/val_{number * val + i}.JPEG"] = encoded(photo(1000 * number + 500 + i))
            annotations += f"val_{number * val + i}.JPEG\t{wnid}\t0\t0\t63\t63\n"
    files["val/val_annotations.txt"] = annotations.encode()
    files["test/images/test_0.JPEG"] = encoded(photo(9999))
    return files


def write_zip(path: Path, files: dict[str, bytes], root: str = "tiny-imagenet-200/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(root + name, content)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def album(path: Path, per_folder: int = 20, first_seed: int = 0) -> Path:
    files = {}
    for number, folder in enumerate(("cats", "dogs", "fish")):
        for i in range(per_folder):
            image = photo(first_seed + 100 * number + i, 80, 64 + i)
            files[f"{folder}/deep/{i}.png" if i % 2 else f"{folder}/{i}.png"] = encoded(image, "PNG")
    return write_folder(path, files)


def splits(opened: Pack) -> dict[str, str]:
    return dict(zip(checksums(opened), opened.split.tolist(), strict=True))


def checksums(opened: Pack) -> list[str]:
    return [sources.checksum(pixels) for pixels in opened.photos]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]
