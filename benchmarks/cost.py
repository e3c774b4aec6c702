"""What colouring costs: photos of 64 pixels, and of 1, 12 and 100 megapixels from file to file.

    python benchmarks/cost.py        # about ten minutes on two cores; writes docs/measurements/cost.md

The command colours each photo in a process of its own, so times include start-up and memory is the process's.
The network is the preset `small` in 20 steps, with and without an encoder. Its weights are random, which
costs the same. Beside it stands the default model, which has an encoder and takes few steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import DEFAULT_MODEL, PRESETS, build
from photochrom.data.reading import open_photo
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.precision import bfloat16_is_faster

REPORT = MEASUREMENTS / "cost.md"
ENCODERS = ("none", "vgg16")
MODELS = (*ENCODERS, DEFAULT_MODEL)
PHOTOS = (
    ("64x64, JPEG: start-up", (64, 64), "jpg"),
    ("1 megapixel, JPEG", (1152, 864), "jpg"),
    ("12 megapixels, JPEG", (4000, 3000), "jpg"),
    ("12 megapixels, PNG", (4000, 3000), "png"),
    ("100 megapixels, JPEG", (11552, 8664), "jpg"),
)
MANY = 256


def make_model(models: Path, encoder: str) -> None:
    """A model folder with random weights, named after its encoder."""
    config = build(
        {"model": {"features": PRESETS["small"].features, "encoder": encoder}, "data": {"size": 64}}
    )
    folder = ModelFolder(models / encoder)
    folder.path.mkdir(parents=True)
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    folder.save_weights(UNet(config.model).state_dict(), config)


def colorize(photo: Path, models: Path, name: str) -> tuple[float, float]:
    """Seconds, and the largest memory in MB, of `photochrom colorize` for one file."""
    program = Path(sys.executable).parent / "photochrom"
    command = [
        *(program, "colorize", photo, "-o", photo.parent / "out"),
        *("--model", name, "--models", models, "--device", "cpu", "--overwrite"),
    ]
    begun = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"photochrom colorize failed for {photo}")
    return time.perf_counter() - begun, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def loaded(name: str, models: Path, *, exact: bool) -> Colorizer:
    """The model on the processor, in float32 throughout if `exact`."""
    colorizer = Colorizer.load(name, models, device="cpu")
    if exact:
        colorizer.network.float()
        if colorizer.encoder:
            colorizer.encoder.float()
    return colorizer


def in_batches(colorizer: Colorizer, rounds: int = 3) -> float:
    """Photos of 64x64 per second, from Python; the best of `rounds`."""
    generator = np.random.default_rng(0)
    many = [Image.fromarray(generator.integers(0, 256, (64, 64), np.uint8)) for _ in range(MANY)]
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        colorizer(many)
        seconds.append(time.perf_counter() - begun)
    return MANY / min(seconds)


def main() -> None:
    """Measure, print and write."""
    parser_for(__doc__).parse_args()
    rows, rates = [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        models = work / "models"
        for encoder in ENCODERS:
            make_model(models, encoder)
        true = open_photo(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
        for name, size, suffix in PHOTOS:
            photo = work / f"photo.{suffix}"
            true.resize(size, Image.Resampling.BICUBIC).save(photo, quality=92)
            cells = []
            for model in MODELS:
                colorize(photo, models, model)  # the disk's cache is warm from here on
                seconds, memory = min(colorize(photo, models, model) for _ in range(3))
                cells.append(f"{seconds:.1f} | {memory:,.0f}")
            rows.append(f"| {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
        for how in ("as chosen here", "float32"):
            found = [in_batches(loaded(model, models, exact=how == "float32")) for model in MODELS]
            rates.append(f"| {how} | {' | '.join(f'{rate:.1f}' for rate in found)} |")
            print(rates[-1], flush=True)
    arithmetic = "bfloat16" if bfloat16_is_faster() else "float32"
    text = f"""
## A file, with `photochrom colorize`

Four colourings, start-up included, the best of three.

| photo | seconds | memory, MB | with the encoder vgg16: seconds | memory, MB | {DEFAULT_MODEL}: seconds | \
memory, MB |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## Many small photos, from Python

{MANY} photos of 64x64, noise, per second in batches, one colouring each, the best of three.

| convolutions | without encoder | with vgg16 | {DEFAULT_MODEL} |
|---|---|---|---|
{chr(10).join(rates)}

{written_by("cost.py")}, convolutions in {arithmetic} (`photochrom.precision` measured it to be faster
here). Preset `small` takes 20 steps, {DEFAULT_MODEL} takes {Colorizer.load(DEFAULT_MODEL).config.steps}.
"""
    write_figures(REPORT, text)


if __name__ == "__main__":
    main()
