"""What `photochrom demo` does: colours free photos with the default model, then trains a small V1 and V2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import CALM
from photochrom.config import DEFAULT_MODEL, StageConfig, build
from photochrom.data.dataset import find
from photochrom.data.demo import photographs
from photochrom.data.pack import Pack
from photochrom.files import write_bytes
from photochrom.model_folder import ModelFolder, model_folder
from photochrom.pictures import png, sheet
from photochrom.training.loop import Progress, train

V1 = build(
    {
        "model": {"features": (32, 64, 128), "blocks": 2},
        "training": {"batch_size": 16, "learning_rate": 1e-3, "ema_decay": 0.99, "sample_every": 0},
        "data": {"name": "demo"},
        "stages": [{"epochs": 4, "perceptual": 0.0}],
    }
)
V2 = V1.model_copy(update={"stages": (StageConfig(epochs=2, perceptual=0.1),)})
ROWS = 4  # from each photo that the small models never saw: the whole and crops


def color_photographs(out: Path) -> Path:
    """Colour the bundled photos as `photochrom colorize` does. Writes and returns `out/coloured.png`."""
    true = list(photographs().values())
    gray = [photo.convert("L") for photo in true]
    coloured = Colorizer.load(DEFAULT_MODEL)(gray, average=CALM)
    picture = out / "coloured.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    columns = {"gray": gray, DEFAULT_MODEL: coloured, "true": true}
    write_bytes(picture, png(sheet(columns, side=200, across=2)))
    return picture


def train_small(
    out: Path, keep: bool, report: Callable[[Progress], None], signal_received: Callable[[], int]
) -> tuple[ModelFolder, ModelFolder, Path]:
    """Train `demo_v1`, then `demo_v2` on top. Returns both folders and the picture `out/small_models.png`.

    Resumes an unfinished demo. Repeats a finished one; with `keep` it only draws the picture again. Raises
    what `train` raises.
    """
    pack = find("demo", out / "data")
    v1, v2 = (model_folder(name, out / "models") for name in ("demo_v1", "demo_v2"))
    if v2.exists and not keep and v2.history and v2.history[-1]["epoch"] >= v2.config.last_epoch:
        for folder in (v2, v1):
            folder.remove()
    train(V1, v1, pack, report, signal_received)
    train(V2, v2, pack, report, signal_received, v1)
    picture = out / "small_models.png"
    colorizers = {"V1": Colorizer.load(v1.path), "V2": Colorizer.load(v2.path)}
    write_bytes(picture, png(draw(colorizers, pack.to_look_at())))
    return v1, v2, picture


def draw(colorizers: Mapping[str, Colorizer], pack: Pack) -> Image.Image:
    """Held-out photos side by side: gray, coloured by each model with the same seed, true."""
    held_out = pack.indices("validation")
    labels = pack.label[held_out]
    chosen = np.concatenate([held_out[labels == label][:ROWS] for label in np.unique(labels)])
    true = [Image.fromarray(pack.photos[index]) for index in chosen]
    coloured = {name: colorizer(true) for name, colorizer in colorizers.items()}
    return sheet({"gray": [photo.convert("L") for photo in true], **coloured, "true": true}, across=2)
