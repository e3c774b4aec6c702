"""What a photo more and a process more cost a training step, and what a process more brings an album.

    python benchmarks/processes.py                 # about ten minutes on two quiet cores; writes docs/measurements/processes.md
    python benchmarks/processes.py --presets small --steps 4

Every row is a launch of its own with one thread for each process, so that two processes on two cores compare with one on
one core; the row with two threads is what one process makes of two cores. Medians over steps, after two that are not counted.
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

from pages import MEASUREMENTS, parser_for, written_by
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
    """What each process of a row does: train; the first prints seconds per step, and how many of them went to exchange."""
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
    """The output of a program run by so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*(launcher if count > 1 else [sys.executable]), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def training_rows(preset: str, steps: int, data: Path) -> list[str]:
    """Markdown: what steps cost, by photos and by processes."""

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
        "| processes | threads each | photos per step | s per step | photos/s | of them exchanging, s |",
        *["|---:|---:|---:|---:|---:|---:|"],
    ]
    alone = [row(1, 1, batch)[0] for batch in BATCHES]
    slope, start = linear_regression(BATCHES, alone)
    row(1, 2, 32)
    same, _ = row(2, 1, 32)
    double, _ = row(2, 1, 64)
    weights = sum(p.numel() for p in Training(build({"model": {"features": PRESETS[preset].features}, "stages": [{"perceptual": 0.0}]}), find("demo", data)).network.parameters())  # fmt: skip
    return [
        *rows,
        "",
        f"One process: {1000 * start:.0f} ms for each step and {1000 * slope:.1f} ms for each photo in it (a straight line "
        f"through {len(BATCHES)} batch sizes). A second process makes the batch of 32 {alone[2] / same:.2f} times as fast, and "
        f"a batch of 64 takes {double / alone[2]:.2f} times as long as 32 photos on one. {4 * weights / 1e6:.0f} MB of "
        "gradients are added up in each step.",
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
    """Measure, print as it comes, and write the page."""
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
    lines = [
        "# What a photo more and a process more cost",
        "",
        f"{written_by('processes.py')}, "
        f"gloo over the loopback. V1 in {for_training('auto')}, photos of 64 pixels, medians of {arguments.steps} steps. "
        "Processes have a core each.",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        find("demo", folder / "data")
        for preset in arguments.presets:
            print(f"\n{preset}", flush=True)
            lines += [
                "",
                f"## Training, preset {preset}",
                "",
                *training_rows(preset, arguments.steps, folder / "data"),
            ]
        lines += [
            "",
            "## An album, preset small, 20 steps, four colourings each, start-up included",
            "",
            *album_rows(folder),
        ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
