"""Candidates for photos of a data set, which have the size of measuring already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photochrom.coloring.colorings import agreed
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.options import EVALUATED, Options, chosen
from photochrom.data.dataset import DataSet
from photochrom.diffusion import color
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.candidates import (
    APART,
    MEAN_COLOR,
    Batch,
    Candidate,
    Painted,
    given_luma,
    model_facts,
    not_compared,
)
from photochrom.evaluation.statistics import GRAY, TRUTH

MEAN_COLOR_PHOTOS = 2000


def model_at_size(
    model: str | Path,
    models: str | Path,
    pack: DataSet,
    options: Options | None = None,
    *,
    device: str | None = None,
    compared: Collection[str] = (),
    **changes: Any,
) -> Candidate:
    """A trained model, by name or path, as a candidate for photos of a data set.

    options, or its fields as keyword arguments: only those in `EVALUATED`. compared: checksums of data sets
    that were compared with the photos (`HeldOut.compared`). Raises UsageError for other options, and
    PhotochromError if the model is unknown or was trained at another size.
    """
    options = chosen(options, changes)
    if unused := sorted(options.model_fields_set - set(EVALUATED)):
        raise UsageError(
            f"an evaluation on a data set cannot use {', '.join(unused)}: leave it out, or take a folder"
        )
    colorizer = Colorizer.load(model, models, device)
    config = colorizer.config
    if pack.size not in (config.data.size or pack.size, *config.data.sides):
        raise PhotochromError(
            f"model {str(model)!r} was trained at {config.data.size} pixels, but these photos have "
            f"{pack.size}: evaluate it on a data set imported with --size {config.data.size}, or on a folder "
            "with --photos"
        )
    name, known = model_facts(model, models, colorizer, options)
    average = options.average
    facts = {
        "chroma_scale": config.model.chroma_scale,
        "other_data": not_compared(config, models, {pack.checksum, *compared}),
        **known,
    }

    def paint(batch: Batch) -> Painted:
        y, parts = given_luma(batch.rgb), []
        for rows in torch.arange(len(y)).split(max(1, BATCH // average)):
            # All colourings of a photo together, so that the encoder sees it only once.
            several = [batch.seeds[row] + APART * k for k in range(average) for row in rows]
            again = y[rows].repeat(average, 1, 1, 1)
            c = colorizer.chroma(again, several, options)
            parts.append(agreed(c.unflatten(0, (average, len(rows))), y[rows]))
        return Painted(y, torch.cat(parts))

    return Candidate(name, paint, facts)


def references(pack: DataSet, scales: Sequence[int]) -> list[Candidate]:
    """The references for a data set: the truth, true chroma at the models' scales, mean colour, gray."""

    def flat(c: Tensor) -> Callable[[Batch], Painted]:
        return lambda batch: Painted(
            given_luma(batch.rgb), c.expand(len(batch.rgb), 2, *batch.rgb.shape[-2:])
        )

    def ceiling(scale: int) -> Callable[[Batch], Painted]:
        return lambda batch: Painted(given_luma(batch.rgb), color.from_rgb(batch.rgb, scale)[1])

    rows = [Candidate(TRUTH, lambda batch: Painted(*color.from_rgb(batch.rgb, 1)), kind="reference")]
    rows += [Candidate(f"true chroma, 1/{s} size", ceiling(s), kind="reference") for s in scales if s > 1]
    drawn = np.sort(pack.drawn("train", MEAN_COLOR_PHOTOS, 0))
    if len(drawn):
        parts = np.array_split(drawn, -(-len(drawn) // 256))
        means = torch.cat([color.from_rgb(pack.rgb(part))[1].mean(dim=(2, 3)) for part in parts])  # (N, 2)
        mean = means.mean(dim=0).reshape(1, 2, 1, 1)
        rows.append(Candidate(MEAN_COLOR, flat(mean), kind="reference"))
    return [*rows, Candidate(GRAY, flat(torch.zeros(1, 2, 1, 1)), kind="reference")]
