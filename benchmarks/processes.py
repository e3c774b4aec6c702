"""What one more photo and one more process cost a training step, and what one more process brings an album.

    python benchmarks/processes.py                 # writes docs/measurements/processes.md
    python benchmarks/processes.py --presets small --steps 4

Takes about ten minutes on two quiet cores. Every row is a launch with one thread for each process, so two
processes on two cores compare with one process on one core. The row with two threads shows what one process
makes of two cores. Medians over steps, after two that do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom import processes
from photochrom.config import PRESETS, build
from photochrom.data.dataset import find
from photochrom.precision import for_training
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step

REPORT = MEASUREMENTS / "processes.md"
BATCHES = (8, 16, 32, 64)
ALBUM = 256  # photos of 64 pixels


def measure(preset: str, batch: int, steps: int, data: Path) -> None:
    """The work of each process of a row: train.

    The first prints seconds per step, and how many of them were exchange.
    """
    config = build({"model": {"features": PRESETS[preset].features}, "training": {"batch_size": batch},
                    "stages": [{"perceptual": 0.0}]})  # fmt: skip
    training = Training(config, find("demo", data))
    exchanged, add_up = [0.0], processes.add_up

    def timed(tensors: Iterable[Tensor]) -> None:
        begun = time.perf_counter()
        add_up(tensors)
        exchanged[0] += time.perf_counter() - begun

    processes.add_up = timed
    seconds, exchange = [], []
    for number in range(steps + 2):
        begun, exchanged[0] = time.perf_counter(), 0.0
        train_step(training)
        if number > 1:
            seconds.append(time.perf_counter() - begun)
            exchange.append(exchanged[0])
    if processes.is_first():
        print(json.dumps([median(seconds), median(exchange)]))


def launched(count: int, threads: int, *arguments: object) -> str:
    """The output of a program run by this many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*(launcher if count > 1 else [sys.executable]), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def training_rows(preset: str, steps: int, data: Path) -> list[str]:
    """Markdown: the cost of steps, by photos and by processes."""

    def row(count: int, threads: int, batch: int) -> tuple[float, float]:
        found = launched(
            count, threads, __file__, "--worker", preset, batch, "--steps", steps, "--data", data
        )
        seconds, exchange = json.loads(found)
        rows.append(
            f"| {count} | {threads} | {batch} | {seconds:.3f} | {batch / seconds:.1f} | {exchange:.3f} |"
        )
        print(rows[-1], flush=True)
        return seconds, exchange

    rows = [
        "| processes | threads each | photos per step | s per step | photos/s | s of exchange in a step |",
        *["|---:|---:|---:|---:|---:|---:|"],
    ]
    alone = [row(1, 1, batch)[0] for batch in BATCHES]
    slope, start = linear_regression(BATCHES, alone)
    row(1, 2, 32)
    same, _ = row(2, 1, 32)
    double, _ = row(2, 1, 64)
    config = build({"model": {"features": PRESETS[preset].features}, "stages": [{"perceptual": 0.0}]})
    weights = sum(p.numel() for p in Training(config, find("demo", data)).network.parameters())
    return [
        *rows,
        "",
        f"One process takes {1000 * start:.0f} ms for each step and {1000 * slope:.1f} ms for each photo "
        f"in it (a straight line through {len(BATCHES)} batch sizes). A second process makes the batch of 32 "
        f"{alone[2] / same:.2f} times as fast. Two processes take {double / alone[2]:.2f} times as long for "
        f"64 photos as one process for 32. They exchange {4 * weights / 1e6:.0f} MB of gradients in each "
        "step.",
    ]


def album_rows(folder: Path) -> list[str]:
    """Markdown: an album coloured by the command, start-up included, by one process and by two."""
    config = build({"model": {"features": PRESETS["small"].features}, "data": {"photos_per_epoch": 16},
                    "stages": [{"epochs": 1, "perceptual": 0.0}]})  # fmt: skip
    from photochrom.model_folder import ModelFolder

    model, album = ModelFolder(folder / "small"), folder / "album"
    train(config, model, find("demo", folder / "data"))
    album.mkdir()
    for number in range(ALBUM):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(album / f"{number}.png")
    rows = [f"| processes | {ALBUM} photos, s |", "|---:|---:|"]
    for count in (1, 2):
        begun = time.perf_counter()
        launched(
            count,
            1,
            *("-m", "photochrom", "colorize", album, "-o", folder / f"by-{count}", "--model", model.path),
        )
        rows.append(f"| {count} | {time.perf_counter() - begun:.1f} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print on the way, and write the page."""
    parser = parser_for(__doc__)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=REPORT)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.worker:
        preset, batch = arguments.worker
        measure(preset, int(batch), arguments.steps, arguments.data)
        return
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        find("demo", folder / "data")
        for preset in arguments.presets:
            print(f"\n{preset}", flush=True)
            lines += [
                f"## Training, preset {preset}",
                "",
                *training_rows(preset, arguments.steps, folder / "data"),
                "",
            ]
        lines += [
            "## An album, preset small, 20 steps, four colourings each, with start-up",
            "",
            *album_rows(folder),
            "",
            f"{written_by('processes.py')}, gloo over the loopback. V1 in {for_training('auto')}, "
            f"photos of 64 pixels, medians of "
            f"{arguments.steps} steps. Each process has one core.",
        ]
    write_figures(arguments.out, "\n".join(lines))
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
