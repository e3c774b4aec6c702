"""What a training will cost, found out by a few steps that are thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.training.loop import Progress, encoding
from photochrom.training.memory import memory_mb
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate

Report = Callable[[Progress], None]


class Trial(NamedTuple):
    """What a few steps that are thrown away have told."""

    step_seconds: float
    photos: int  # in the training part
    epoch_end_seconds: float  # validation and files
    memory_mb: int | None  # None where nobody counts it

    def epoch_seconds(self, config: Config) -> float:
        """How long an epoch will take."""
        per_epoch = config.data.photos_per_epoch or self.photos
        return math.ceil(per_epoch / config.training.batch_size) * self.step_seconds + self.epoch_end_seconds


def try_out(config: Config, pack: DataSet, report: Report, seconds: float = 0.0) -> Trial:
    """Measure two training steps, or as many as fit into `seconds`, on a network that is thrown away.

    What the encoder sees is computed before, if it is to be kept.
    """
    trial = Training(config, pack)
    trial.batches.keep_features(encoding(config, report))
    train_step(trial)  # the first step allocates and warms up
    steps, begun = 0, time.perf_counter()
    while steps < 2 or processes.largest(time.perf_counter() - begun < seconds):
        train_step(trial)
        steps += 1
    step_seconds = (time.perf_counter() - begun) / steps
    begun = time.perf_counter()
    validate(trial)
    end = 1.15 * (time.perf_counter() - begun) + 1  # the files of an epoch, and now and then a sheet
    found = Trial(step_seconds, pack.count("train"), end, memory_mb(trial.device))
    return processes.from_first(lambda: found)


def fit_minutes(config: Config, pack: DataSet, minutes: float, report: Report) -> Config:
    """The configuration with as many epochs as fit into the time.

    Where less than ten passes over the photos fit, epochs are made shorter instead, so that there are ten to look at.
    """
    trial = try_out(config, pack, report, seconds=min(5.0, minutes))
    total = 60 * minutes
    if config.data.photos_per_epoch is None and total < 10 * trial.epoch_seconds(config):
        steps = max(1, round((total / 10 - trial.epoch_end_seconds) / trial.step_seconds))
        data = config.data.model_copy(update={"photos_per_epoch": steps * config.training.batch_size})
        config = config.model_copy(update={"data": data})
    epochs = max(1, round(total / trial.epoch_seconds(config)))
    return config.model_copy(update={"stages": (config.stages[0].model_copy(update={"epochs": epochs}),)})
