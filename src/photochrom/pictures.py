"""Draws pictures for people: sheets of photos, and the loss curves of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from photochrom.training_history import stages_of


def sheet(columns: Mapping[str, Sequence[Image.Image]], side: int = 128, across: int = 1) -> Image.Image:
    """One picture with a column for each title and a row for each photo.

    columns: {title: photos}, with the photos in the same order. The longer side of each photo becomes `side`
    pixels; small photos are enlarged without smoothing. across: how often the columns repeat side by side,
    for many photos.
    """
    gap, title = 4, 22
    rows = -(-max(len(photos) for photos in columns.values()) // across)
    fitted = {name: [_fit(photo, side) for photo in photos] for name, photos in columns.items()}
    tallest = max(photo.height for photos in fitted.values() for photo in photos)
    block = len(columns) * (side + gap) + 2 * gap
    picture = Image.new("RGB", (across * block - gap, title + rows * (tallest + gap)), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for number, (name, photos) in enumerate(fitted.items()):
        for index, photo in enumerate(photos):
            left = (index // rows) * block + number * (side + gap) + gap
            top = title + (index % rows) * (tallest + gap)
            picture.paste(photo, (left + (side - photo.width) // 2, top + (tallest - photo.height) // 2))
            draw.text((left, 2), name, fill="black", font=font)
    return picture


def _fit(photo: Image.Image, side: int) -> Image.Image:
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    filter = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return photo.convert("RGB").resize(size, filter)


def png(picture: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def loss_curve(history: Sequence[dict[str, Any]]) -> bytes:
    """Draw training and validation loss by epoch, as the bytes of a PNG file.

    Each stage has its own curve, since stages add up different losses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # pyplot would keep global state
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    stages = stages_of(history)
    for number, (key, label) in enumerate(
        (("train_loss", "training"), ("val_loss", "validation (averaged weights)"))
    ):
        for records in stages:
            epochs, losses = [record["epoch"] for record in records], [record[key] for record in records]
            named = label if records is stages[0] else None  # one legend entry for all stages
            axes.plot(epochs, losses, marker=".", color=f"C{number}", label=named)
    last, raised = 0.0, False
    for before, records in pairwise(stages):
        border = before[-1]["epoch"] + 0.5
        axes.axvline(border, color="gray", linestyle="--")
        # Above the label before it where a stage is too short for both.
        raised = not raised and border - last < 0.04 * history[-1]["epoch"]
        height = 1.06 if raised else 1.01
        axes.text(border, height, records[0]["stage"], color="gray", transform=axes.get_xaxis_transform())
        last = border
    values = np.array([record["train_loss"] for record in history])
    if values.max() > 5 * values.min() > 0:
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="loss")
    figure.suptitle("Loss by epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
