"""The history of a training, `training_history.json`: one record per finished epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NotRequired, cast

from pydantic import (
    ConfigDict,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    with_config,
)
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from photochrom.files import Printable


class Weights(TypedDict):
    """The weights of the three losses in one stage."""

    noise: FiniteFloat
    perceptual: FiniteFloat
    adversarial: FiniteFloat


class SamplesBesideData(TypedDict):
    """A measure of the sheet of samples, and of the true photos."""

    samples: FiniteFloat
    data: FiniteFloat


@with_config(ConfigDict(extra="allow", allow_inf_nan=False))
class Epoch(TypedDict):
    """The record of one epoch. Besides these keys, it holds every term of the loss by its name.

    Each process divides its share of a batch into `parts`. `workers` parts go at once, and torch computes
    each of them with `threads` threads.
    """

    epoch: PositiveInt
    stage: Printable
    train_loss: FiniteFloat
    val_loss: FiniteFloat
    photos: NonNegativeInt
    seconds: NonNegativeFloat
    weights: Weights
    stage_began: NotRequired[PositiveInt]
    learning_rate: NotRequired[FiniteFloat]
    photos_per_second: NotRequired[FiniteFloat]
    memory_mb: NotRequired[int]
    device: NotRequired[Printable]
    precision: NotRequired[Printable]
    parts: NotRequired[PositiveInt]
    workers: NotRequired[PositiveInt]
    threads: NotRequired[PositiveInt]
    colorfulness: NotRequired[SamplesBesideData]
    spread: NotRequired[SamplesBesideData]


EpochRecord = dict[str, Any]
"""An `Epoch` as a plain dict, since the names of losses are data."""
HISTORY_FILE = TypeAdapter(cast("type[list[EpochRecord]]", list[Epoch]))


def best_epoch(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch of the last stage with the lowest validation loss, whose weights are in `best_model.pth`.

    Validation losses of different stages cannot be compared.
    """
    return min(stages_of(history)[-1], key=lambda epoch: float(epoch["val_loss"]))


def stages_of(history: Sequence[EpochRecord]) -> list[list[EpochRecord]]:
    """The epochs stage by stage, those of the model's ancestors first."""
    return [list(epochs) for _, epochs in groupby(history, lambda epoch: epoch.get("stage_began"))]
