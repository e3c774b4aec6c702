"""What guidance on the encoder, and the mean of several colourings, do to the colours of trained models.

    python benchmarks/trained/guidance.py photochrom-v2 --data tiny-imagenet-200 --guidance 1 1.25 1.5 2
    python benchmarks/trained/guidance.py photochrom-fast --data tiny-imagenet-200 --average 1 4

Prints the measures as made, and where strength makes the rows as colourful as the true photos or 85 % of that. The report with
intervals is in reports/guidance. Validation photos are for choosing by; --split test is for what has been chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from photochrom import evaluate
from photochrom.colorizer import Colorizer
from photochrom.data.pack import find
from photochrom.subjects import Subject, given_luma
from photochrom.terminal import Display

SHOWN = ("ab", "ciede2000", "psnr", "dark_error", "false_color")
APART = 1_000_003  # between the seeds of one photo's colourings


def subject(model: str, models: Path, guidance: float | None, average: int) -> Subject:
    """A model, guided by so much, as the mean of so many colourings."""
    colorizer = Colorizer.load(model, models)

    def paint(rgb: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        y = given_luma(rgb)
        drawn = [
            colorizer.chroma(y, [seed + APART * k for seed in seeds], guidance=guidance)
            for k in range(average)
        ]
        return y, torch.stack(drawn).mean(dim=0)

    led = colorizer.config.guidance if guidance is None else guidance
    facts = {"chroma_scale": colorizer.config.model.chroma_scale, "guidance": led, "average": average}
    name = f"{Path(model).name}, guidance {led:g}, {f'mean of {average}' if average > 1 else 'one'}"
    return Subject(name, paint, facts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--guidance", type=float, nargs="*", default=[None], help="default: each model's own")
    parser.add_argument("--average", type=int, nargs="*", default=[1])
    parser.add_argument("--split", default="validation")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("reports/guidance"))
    options = parser.parse_args()
    subjects = [
        subject(model, options.models_dir, guidance, average)
        for model in options.models
        for guidance in options.guidance
        for average in options.average
    ]
    with Display() as display:
        result = evaluate.evaluate(
            subjects,
            find(options.data, options.data_dir),
            options.out,
            split=options.split,
            photos=options.photos,
            overwrite=True,
            progress=display.show,
        )
    print(
        "| | colourfulness | FD-VGG16 | "
        + " | ".join(SHOWN)
        + " | at | strength | "
        + " | ".join(SHOWN)
        + " |"
    )
    for name, row in result["rows"].items():
        made = f"{row['colorfulness']['value']:.1f} | {row['fd_vgg16']['value']:.0f}"
        plain = " | ".join(f"{row[measure]['value']:.2f}" for measure in SHOWN)
        for share in ("85%", "100%") if name in result["at_equal_colorfulness"] else ():
            equal = result["at_equal_colorfulness"][name][share]
            cells = " | ".join(f"{equal[measure]['value']:.2f}" for measure in ("strength", *SHOWN))
            print(f"| {name} | {made} | {plain} | {share} | {cells} |")
        if name not in result["at_equal_colorfulness"]:
            print(f"| {name} | {made} | {plain} | | | | | | | |")


if __name__ == "__main__":
    main()
