"""What stage 2 costs: seconds per training step of V1, V2 and V2 with GAN, and what each saving saves.

    python benchmarks/stage2.py                # both presets, batches of 16 and 32: half an hour on two cores
    python benchmarks/stage2.py --rounds 3 --presets small --batches 16

All ways of training take turns on one network in one process, so that other work on the machine hits all of
them. Each round gives one ratio to V1. Writes docs/measurements/stage2.md.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.config import PRESETS, Config, StageConfig, build
from photochrom.data.dataset import DataSet, find
from photochrom.diffusion import color
from photochrom.training.losses import StageLoss, lift_shadows
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training
from photochrom.training.step import train_step

REPORT = MEASUREMENTS / "stage2.md"


def stage(**settings: Any) -> StageConfig:
    """A stage with the package's defaults, except these values."""
    return build({"stages": [settings]}).stages[0]


V2 = stage()


class AtPhotoSize(StageLoss):
    """Compares colours at luma's size: at chroma scale 2, VGG then sees four times the pixels."""

    def colours(self, batch: Noisy, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x0_hat = self.diffusion.predict_x0(batch.xt, output, batch.t)
        found, true = (color.to_rgb(batch.y, chroma) for chroma in (x0_hat, batch.x0))
        return batch.y, lift_shadows(found, batch.y), lift_shadows(true, batch.y)


class WithoutGate(StageLoss):
    """Computes the colours of the whole batch, and gives those below the gate the weight 0."""

    def trust(self, t: Tensor) -> Tensor:
        return super().trust(t) * (t >= V2.perceptual_from * self.diffusion.config.timesteps)


WAYS: dict[str, tuple[type[StageLoss], StageConfig]] = {
    "V1": (StageLoss, stage(perceptual=0.0)),
    "V2": (StageLoss, V2),
    "V2 + GAN": (StageLoss, stage(gan=True, gan_delay=0)),
    "V2, all photos beyond the gate (share 1)": (StageLoss, stage(perceptual_share=1.0)),
    "V2, all photos, those below the gate weighted 0": (
        WithoutGate,
        stage(perceptual_from=0.0, perceptual_share=1.0),
    ),
    "V2, VGG at the photo's size": (AtPhotoSize, V2),
}


def seconds(config: Config, pack: DataSet, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each way, one number a round, after one round that does not count."""
    training = Training(config, pack)
    losses = {name: kind(settings, config, training.device) for name, (kind, settings) in WAYS.items()}
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, loss in losses.items():
            training.stage, training.losses = loss.stage, loss
            begun = time.perf_counter()
            train_step(training)
            if training.device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                found[name].append(time.perf_counter() - begun)
    return found


def table(found: dict[str, list[float]]) -> list[str]:
    """Rows of Markdown: the median step, with median and quartiles of its ratio to V1's in the same round."""
    rows = ["| training | s per step | times V1 | quartiles |", "|---|---:|---:|---:|"]
    for name, times in found.items():
        ratios = [time / v1 for time, v1 in zip(times, found["V1"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        rows.append(f"| {name} | {median(times):.3f} | {median(ratios):.2f} | {low:.2f} to {high:.2f} |")
    return rows


def report(sections: Sequence[tuple[str, list[str]]], rounds: int) -> str:
    """The figures of docs/measurements/stage2.md."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    lines = [line for title, rows in sections for line in (f"## {title}", "", *rows, "")]
    lines += [
        f"{written_by('stage2.py')}{gpu}, {torch.get_num_threads()} threads: {rounds} rounds in which",
        "all ways",
        "take one whole training step each in turn, photos of 64 pixels, chroma at half size.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print on the way, and write the page."""
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2 (default: 15)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=REPORT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sections = []
    with tempfile.TemporaryDirectory() as folder:
        pack = find("demo", Path(folder))
        for preset, batch in itertools.product(arguments.presets, arguments.batches):
            config = build(
                {
                    "model": {"features": PRESETS[preset].features},
                    "training": {"batch_size": batch, "precision": "fp32"},
                }
            )
            rows = table(seconds(config, pack, arguments.rounds))
            sections.append((f"Preset {preset}, batch of {batch}", rows))
            print(f"\n{sections[-1][0]}\n", *rows, sep="\n", flush=True)
    write_figures(arguments.out, report(sections, arguments.rounds))
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
