"""Training speed on an NVIDIA GPU, with the network's passes replayed as CUDA graphs and without.

    python benchmarks/gpu.py [--data tiny-imagenet-200]

Prints a table of photos a second for docs/measurements/gpu.md. Both contenders of a pair read photos and
features from the GPU's memory, and take turns.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from pages import parser_for
from photochrom.config import PRESETS, build
from photochrom.data.dataset import DataSet, find
from photochrom.training.state import Training
from photochrom.training.step import train_step

FROZEN: dict[str, Any] = {"encoder": "vgg16x2"}
LEARNING: dict[str, Any] = {
    "encoder": "lite0",
    "train_encoder": True,
    "chroma_scale": 4,
}  # as the models that ship
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    *(("small", FROZEN, batch) for batch in (32, 256, 1024)),
    *(("default", FROZEN, batch) for batch in (16, 256)),
    *(("small", LEARNING, batch) for batch in (256, 512)),
)
ROUNDS, SECONDS, WARM_UP = 3, 3.0, 8


def pair(pack: DataSet, preset: str, sight: dict[str, Any], batch: int) -> list[Training]:
    """V1 with an encoder, after some steps: kernel by kernel, and replayed."""
    config = build(
        {
            "model": {"features": PRESETS[preset].features, **sight},
            "training": {"batch_size": batch},
            "stages": [{"epochs": 1_000, "perceptual": 0.0}],
        }
    )
    plain, replayed = Training(config, pack), Training(config, pack)
    plain.backward.replays = False
    plain.inputs.prepare()
    replayed.inputs.kept, replayed.inputs.on_gpu = plain.inputs.kept, plain.inputs.on_gpu
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
    print("| preset, encoder, batch | one by one | replayed | |\n|---|---:|---:|---:|")
    for preset, sight, batch in CASES:
        trials = pair(pack, preset, sight, batch)
        rounds = [[pace(trial) for trial in trials] for _ in range(ROUNDS)]
        plain, replayed = (max(paces) for paces in zip(*rounds, strict=True))
        del trials  # or the next pair would not find room in the GPU's memory
        what = f"{preset}, {sight['encoder']}, {batch}"
        print(f"| {what} | {plain:,.0f} | {replayed:,.0f} | {replayed / plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
