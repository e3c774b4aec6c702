"""`photochrom demo`: from bundled photos to a trained model and coloured photos, in about three minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from photochrom.colorizer import Colorizer
from photochrom.config import build
from photochrom.data.pack import Pack, find
from photochrom.pictures import png, sheet
from photochrom.store import ModelFolder, model_folder, write_bytes
from photochrom.train import Progress, train

NAME = "demo_v1"
CONFIG = build(
    {
        "model": {"features": (32, 64, 128), "blocks": 2},
        "training": {"batch_size": 16, "learning_rate": 1e-3, "ema_decay": 0.99, "sample_every": 0},
        "data": {"name": "demo"},
        "stages": [{"epochs": 8, "perceptual": 0.0}],
    }
)
ROWS = 4  # of each photo that the model never saw: the whole, and crops


def run_demo(
    out: Path, keep: bool, report: Callable[[Progress], None], signal_received: Callable[[], int]
) -> tuple[ModelFolder, Path]:
    """Train the demo's model in `out/models` and draw `out/demo.png`; returns the model's folder and the picture.

    An unfinished demo is gone on with. A finished one begins anew, or with `keep` is only drawn again.
    Raises what `train` raises.
    """
    pack = find("demo", out / "data")
    folder = model_folder(NAME, out / "models")
    if folder.exists and not keep and len(folder.history) >= CONFIG.stages[0].epochs:
        with folder.locked():
            folder.remove()
    train(CONFIG, folder, pack, report, signal_received)
    picture = out / "demo.png"
    write_bytes(picture, png(draw(Colorizer.load(folder.path), pack)))
    return folder, picture


def draw(colorizer: Colorizer, pack: Pack) -> Image.Image:
    """Held-out photos gray, coloured and true, side by side."""
    held_out = pack.indices("validation")
    labels = pack.label[held_out]
    chosen = np.concatenate([held_out[labels == label][:ROWS] for label in np.unique(labels)])
    true = [Image.fromarray(pack.photos[index]) for index in chosen]
    columns = {"gray": [photo.convert("L") for photo in true], "coloured": colorizer(true), "true": true}
    return sheet(columns, across=2)
