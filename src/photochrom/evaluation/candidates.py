"""What an evaluation colours photos with: trained models, other people's models, and the rows to compare them with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorings import agreed
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.options import Options, chosen
from photochrom.data.dataset import DataSet
from photochrom.diffusion import color
from photochrom.errors import PhotochromError
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import GRAY, TRUTH
from photochrom.training_history import best_epoch

MEAN_COLOR_PHOTOS = 2000
APART = (
    1_000_003  # between seeds of colourings that are to agree; the very next ones are those of `diversity`
)
Paint = Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a model, or a row to compare models with.

    paint(rgb, seeds) colours photos: true rgb (B,3,S,S) in [0,1], of which a model takes the luma and nothing else, and a
    seed for each -> luma (B,1,S,S) in [-1,1] (the given one, unless the model makes its own) and chroma (B,2,h,w).
    facts: plain values for the report, by which an interrupted evaluation also knows its own.
    """

    name: str
    paint: Paint
    facts: dict[str, Any] = field(default_factory=dict)
    is_model: bool = True


def given_luma(rgb: Tensor) -> Tensor:
    """What a gray photo holds, 256 levels: (B,3,H,W) in [0,1] -> (B,1,H,W) in [-1,1]."""
    return color.in_levels(color.luma(rgb))


def render(y: Tensor, c: Tensor, strength: float) -> Array:
    """The pictures that a person gets, 256 levels: luma (B,1,H,W), chroma (B,2,h,w) -> (B,H,W,3) float32 in [0,1]."""
    rgb = color.into_gamut(color.to_rgb(y, strength * c), y)
    return np.ascontiguousarray(((rgb * 255).round() / 255).permute(0, 2, 3, 1).numpy(), dtype=np.float32)


def model_subject(
    model: str | Path,
    models: str | Path,
    pack: DataSet,
    options: Options | None = None,
    *,
    device: str | None = None,
    **changes: Any,
) -> Subject:
    """A trained model, by name or path, or what so many of its colourings agree on.

    Raises PhotochromError if it is unknown or was trained at another size.
    """
    options = chosen(options, changes)
    colorizer = Colorizer.load(model, models, device)
    path = Path(model)
    is_file = path.suffix == ".safetensors"
    weights = path if is_file else model_folder.find_model(model, Path(models)) / model_folder.WEIGHTS
    config = colorizer.config
    if config.data.size not in (None, pack.size):
        raise PhotochromError(
            f"model {str(model)!r} was trained at {config.data.size} pixels and these photos have {pack.size}: "
            f"evaluate it on a data set imported with --size {config.data.size}"
        )
    history = [] if is_file else model_folder.ModelFolder(weights.parent).history
    best = best_epoch(history) if history else {"epoch": None, "val_loss": None}
    kept = ("epoch", "stage", "stage_began", "val_loss", "photos", "weights")
    average = options.average
    facts = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "steps": options.steps_for(config),
        "sampler": options.sampler,
        "guidance": options.guidance_for(config),
        "average": average,
        "chroma_scale": config.model.chroma_scale,
        "config": config.model_dump(mode="json"),
        "other_data": config.data.checksum != pack.checksum,
        "epoch": best["epoch"],  # of these weights
        "val_loss": best["val_loss"],
        "history": [{key: record[key] for key in kept if key in record} for record in history],
    }

    def paint(rgb: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        y, parts = given_luma(rgb), []
        for rows in torch.arange(len(y)).split(max(1, BATCH // average)):
            # All colourings of a photo at once, so that the encoder looks at it once.
            several = [seeds[row] + APART * k for k in range(average) for row in rows]
            again = y[rows].repeat(average, 1, 1, 1)
            c = colorizer.chroma(again, several, options)
            parts.append(agreed(c.unflatten(0, (average, len(rows)))))
        return y, torch.cat(parts)

    return Subject(path.stem if is_file else weights.parent.name, paint, facts)


def references(pack: DataSet, scales: Sequence[int]) -> list[Subject]:
    """The rows that are always there: the truth, true chroma at the models' scales, the mean colour, gray."""

    def flat(c: Tensor) -> Paint:
        return lambda rgb, seeds: (given_luma(rgb), c.expand(len(rgb), 2, *rgb.shape[-2:]))

    def ceiling(scale: int) -> Paint:
        return lambda rgb, seeds: (given_luma(rgb), color.from_rgb(rgb, scale)[1])

    rows = [Subject(TRUTH, lambda rgb, seeds: color.from_rgb(rgb, 1), is_model=False)]
    rows += [Subject(f"true chroma, 1/{s} size", ceiling(s), is_model=False) for s in scales if s > 1]
    chosen = np.sort(pack.drawn("train", MEAN_COLOR_PHOTOS, 0))
    if len(chosen):
        parts = np.array_split(chosen, -(-len(chosen) // 256))
        means = torch.cat([color.from_rgb(pack.rgb(part))[1].mean(dim=(2, 3)) for part in parts])  # (N, 2)
        rows.append(Subject("mean colour", flat(means.mean(dim=0).reshape(1, 2, 1, 1)), is_model=False))
    return [*rows, Subject(GRAY, flat(torch.zeros(1, 2, 1, 1)), is_model=False)]
