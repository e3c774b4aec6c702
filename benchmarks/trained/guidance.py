"""What guidance on the encoder brings a finished model.

    python benchmarks/trained/guidance.py --data tiny-imagenet-200      # about ten minutes of two cores

photochrom-v2 goes on for 24,000 photos, of which a tenth is seen without the encoder, and then colours 200 validation photos with
its answer led away from the one without the encoder (Ho & Salimans 2022). Prints the measures as made and at equal
colourfulness; the report with intervals is in reports/guidance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from changes import Overlaid, dropped, seen
from torch import Tensor

from photochrom import evaluate, store, train
from photochrom.colorizer import Colorizer
from photochrom.config import build
from photochrom.data.pack import find
from photochrom.store import ModelFolder
from photochrom.subjects import Subject, given_luma

SOURCE = "photochrom-v2"
SCALES = (1.0, 1.5, 2.5, 3.5)
SHOWN = ("ab", "ciede2000", "psnr", "dark_error", "false_color")


def subject(name: str, folder: Path, scale: float) -> Subject:
    """A model, guided by so much."""
    colorizer = Colorizer.load(folder)
    colorizer.network = Overlaid(colorizer.network, scale=scale)  # type: ignore[assignment]

    def paint(rgb: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        y = given_luma(rgb)
        return y, colorizer.chroma(y, seeds)

    return Subject(name, paint, {"chroma_scale": colorizer.config.model.chroma_scale})


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    pack = find(options.data, options.data_dir)
    source, folder = store.find_model(SOURCE, Path("models")), ModelFolder(Path("models/guided"))
    config = build(
        {
            "model": source.config.model.model_dump(),
            "data": {"name": pack.name, "aged": 0.3, "flip": False, "photos_per_epoch": 8000},
            "training": {"batch_size": 32, "learning_rate": 4e-4, "sample_every": 0, "seed": 3},
            "stages": [{"epochs": 3, "perceptual": 0.1}],
        }
    )
    with seen(dropped)():
        train.train(config, folder, pack, source=source)
    subjects = [subject(SOURCE, source.path, 1)]
    subjects += [subject(f"guidance {scale:g}", folder.path, scale) for scale in SCALES]
    result = evaluate.evaluate(subjects, pack, Path("reports/guidance"), photos=200, overwrite=True)
    for name, share in ((each.name, share) for each in subjects for share in ("85%", "100%")):
        made, equal = result["rows"][name], result["at_equal_colorfulness"][name][share]
        cells = [f"{equal[measure]['value']:.2f}" for measure in ("strength", *SHOWN)]
        sets = f"{made['colorfulness']['value']:.1f} | {made['fd_vgg16']['value']:.0f}"
        print(f"| {name} | {sets} | {share} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
