"""Training speed on an NVIDIA GPU, with the network's passes replayed as CUDA graphs and without.

    python benchmarks/gpu.py [--data tiny-imagenet-200]

Prints a table of photos a second for docs/measurements/gpu.md. Both contenders of a pair read photos and
features from the GPU's memory, and take turns.
"""

from __future__ import annotations

import time

import torch

from pages import parser_for
from photochrom.config import PRESETS, build
from photochrom.data.dataset import DataSet, find
from photochrom.training.state import Training
from photochrom.training.step import train_step

CASES = (("small", 32), ("small", 256), ("small", 1024), ("default", 16), ("default", 256))
ROUNDS, SECONDS, WARM_UP = 3, 3.0, 8


def pair(pack: DataSet, preset: str, batch: int) -> list[Training]:
    """V1 with an encoder, after some steps: kernel by kernel, and replayed."""
    config = build(
        {
            "model": {"features": PRESETS[preset].features, "encoder": "vgg16x2"},
            "training": {"batch_size": batch},
            "stages": [{"epochs": 1_000, "perceptual": 0.0}],
        }
    )
    plain, replayed = Training(config, pack), Training(config, pack)
    plain.backward.replays = False
    plain.inputs.prepare()
    replayed.inputs.kept = plain.inputs.kept
    for trial in (plain, replayed):
        for _ in range(WARM_UP):
            train_step(trial)
    return [plain, replayed]


def pace(trial: Training) -> float:
    """Photos a second over SECONDS."""
    torch.cuda.synchronize()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        train_step(trial)
        steps += 1
    torch.cuda.synchronize()
    return steps * trial.config.training.batch_size / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print."""
    parser = parser_for(__doc__, data="demo")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this machine has no NVIDIA GPU: nothing to measure")
        return
    pack = find(options.data, options.data_dir, typed=True)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| preset, batch | one by one | replayed | |\n|---|---:|---:|---:|")
    for preset, batch in CASES:
        trials = pair(pack, preset, batch)
        rounds = [[pace(trial) for trial in trials] for _ in range(ROUNDS)]
        plain, replayed = (max(paces) for paces in zip(*rounds, strict=True))
        del trials  # or the next pair would not find room in the GPU's memory
        print(f"| {preset}, {batch} | {plain:,.0f} | {replayed:,.0f} | {replayed / plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
