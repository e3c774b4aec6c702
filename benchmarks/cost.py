"""What colouring costs: one photo of 1, 12 and 100 megapixels from file to file, and many of 64 pixels.

    python benchmarks/cost.py        # about a minute on two cores; writes docs/cost.md

Each photo is coloured by the command itself, in a process of its own, so that its time has start-up in it and its memory
is the whole process's. The network is the preset `small` with weights that learned nothing: they cost the same.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image

from photochrom import store
from photochrom.colorizer import Colorizer
from photochrom.config import PRESETS, build
from photochrom.data.sources import open_photo
from photochrom.store import ModelFolder
from photochrom.unet import UNet

REPORT = Path(__file__).parents[1] / "docs" / "cost.md"
PHOTOS = (
    ("1 megapixel, JPEG", (1152, 864), "jpg"),
    ("12 megapixels, JPEG", (4000, 3000), "jpg"),
    ("12 megapixels, PNG", (4000, 3000), "png"),
    ("100 megapixels, JPEG", (11552, 8664), "jpg"),
)
SMALL = 512


def make_model(models: Path) -> None:
    """A model folder `small` as a training leaves it, untrained."""
    config = build({"model": {"features": PRESETS["small"]}, "data": {"size": 64}})
    folder = ModelFolder(models / "small")
    folder.path.mkdir(parents=True)
    store.write_json(folder / store.CONFIG, config.model_dump(mode="json"))
    folder.save_weights(UNet(config.model).state_dict(), config)


def colorize(photo: Path, models: Path) -> tuple[float, float]:
    """Seconds and largest memory in MB of `photochrom colorize` for one file."""
    program = Path(sys.executable).parent / "photochrom"
    command = [program, "colorize", photo, "-o", photo.parent / "out", "--models", models, "--overwrite"]
    begun = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"photochrom colorize failed for {photo}")
    return time.perf_counter() - begun, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Measure, print and write."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        make_model(work / "models")
        true = open_photo(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
        for name, size, suffix in PHOTOS:
            photo = work / f"photo.{suffix}"
            true.resize(size, Image.Resampling.BICUBIC).save(photo, quality=92)
            colorize(photo, work / "models")  # the disk's cache is warm from here on
            seconds, memory = min(colorize(photo, work / "models") for _ in range(3))
            rows.append(f"| {name} | {seconds:.1f} | {memory:,.0f} |")
            print(rows[-1], flush=True)
        colorizer = Colorizer.load("small", work / "models")
        generator = np.random.default_rng(0)
        many = [Image.fromarray(generator.integers(0, 256, (64, 64), np.uint8)) for _ in range(SMALL)]
        colorizer(many[:32])
        begun = time.perf_counter()
        colorizer(many)
        rate = SMALL / (time.perf_counter() - begun)
    text = f"""# What colouring costs

Written by `python benchmarks/cost.py` on {date.today()}: {platform.processor() or platform.machine()}, {os.cpu_count()} cores,
torch {torch.__version__}. Preset `small`, 20 steps. File to file with `photochrom colorize`, start-up included, the best of three.

| photo | seconds | memory, MB |
|---|---|---|
{chr(10).join(rows)}

Photos of 64x64 in batches, from Python: {rate:.0f} photos/s.
"""
    store.write_bytes(REPORT, text.encode())
    print(text)


if __name__ == "__main__":
    main()
