"""The candidates of an evaluation: models, files that other tools have coloured, and references.

A candidate colours a batch of photos. Photos of a data set have the size of measuring (`at_size`). Photos of
a folder have any size (`at_full_size`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Options
from photochrom.config import Config
from photochrom.diffusion import color
from photochrom.evaluation.metrics import Array
from photochrom.model_folder import ModelFolder
from photochrom.training_history import best_epoch

APART = 1_000_003  # step between the seeds of colourings to merge; `diversity` takes the seeds in between
MEAN_COLOR = "mean colour"


@dataclass(frozen=True)
class Batch:
    """A batch of photos.

    rgb: the truth (B,3,S,S) in [0,1], at the size of measuring. seeds: one per photo. files: the photos'
    files, if they come from a folder. apart: step between seeds that share no noise. at_full: measure at the
    photos' own size too.
    """

    rgb: Tensor
    seeds: list[int]
    files: list[Path] = field(default_factory=list)
    apart: int = 1
    at_full: bool = False

    def again(self, count: int, number: int) -> Batch:
        """The first `count` photos with other seeds; each `number`, from 1 on, gives others."""
        seeds = [seed + number * self.apart for seed in self.seeds[:count]]
        return replace(self, rgb=self.rgb[:count], seeds=seeds, files=self.files[:count], at_full=False)


class Painted(NamedTuple):
    """A coloured batch: luma y (B,1,S,S) in [-1,1], chroma c (B,2,h,w), and the result of `full_sums`."""

    y: Tensor
    c: Tensor
    full: dict[str, Array] | None = None


class Ceiling(NamedTuple):
    """The best that a model can reach at its chroma size.

    way: everything that it depends on, so that models can share it. picture: makes it from a photo's file.
    """

    way: tuple[Any, ...]
    picture: Callable[[Path], Image.Image]


@dataclass(frozen=True)
class Candidate:
    """A row of the report.

    paint: colours a batch. A model sees only the photos' luma and keeps it; a tool may change it. facts:
    plain values for the report; a resumed evaluation must have the same. kind: models and tools are compared
    with each other, at every strength; time and diversity are measured only for models.
    """

    name: str
    paint: Callable[[Batch], Painted]
    facts: dict[str, Any] = field(default_factory=dict)
    kind: Literal["model", "tool", "reference"] = "model"
    ceiling: Ceiling | None = None

    @property
    def is_compared(self) -> bool:
        """Whether this is a model or a tool, not a reference."""
        return self.kind != "reference"


def given_luma(rgb: Tensor) -> Tensor:
    """The luma of a gray photo with 256 levels: (B,3,H,W) in [0,1] -> (B,1,H,W) in [-1,1]."""
    return color.in_levels(color.luma(rgb))


def render(y: Tensor, c: Tensor, strength: float) -> Array:
    """Pictures as the user gets them, in 256 levels.

    y: luma (B,1,H,W); c: chroma (B,2,h,w), multiplied by strength. Returns (B,H,W,3) float32 in [0,1].
    """
    rgb = color.into_gamut(color.to_rgb(y, strength * c), y)
    return np.ascontiguousarray(((rgb * 255).round() / 255).permute(0, 2, 3, 1).numpy(), dtype=np.float32)


def not_compared(config: Config, models: str | Path, compared: Collection[str]) -> list[str]:
    """The data sets of a model's training that were not compared with the photos of the evaluation."""
    learnt_from = model_folder.learnt_from(config, Path(models))
    return [each.name for each in learnt_from if each.checksum not in compared]


def model_facts(
    model: str | Path, models: str | Path, colorizer: Colorizer, options: Options
) -> tuple[str, dict[str, Any]]:
    """A model's name, and the facts that a report gives about its options, weights and training."""
    weights = model_folder.find_weights(model, Path(models))
    in_folder = weights != Path(model)
    history = ModelFolder(weights.parent).history if in_folder else []
    best = best_epoch(history) if history else {"epoch": None, "val_loss": None}
    kept = ("epoch", "stage", "stage_began", "val_loss", "photos", "weights")
    facts = {
        "steps": options.steps_for(colorizer.config),
        "sampler": options.sampler,
        "guidance": options.guidance_for(colorizer.config),
        "average": options.average,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "config": colorizer.config.model_dump(mode="json"),
        "epoch": best["epoch"],  # of these weights
        "val_loss": best["val_loss"],
        "history": [{key: record[key] for key in kept if key in record} for record in history],
    }
    return weights.parent.name if in_folder else weights.stem, facts
