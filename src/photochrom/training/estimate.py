"""What a training will cost, measured in a few steps of a network that is thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.training.loop import Progress, preparing_progress
from photochrom.training.memory import memory_mb
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate

Report = Callable[[Progress], None]


class Trial(NamedTuple):
    """Costs that a few steps have shown."""

    step_seconds: float
    photos: int  # in the training part
    epoch_end_seconds: float  # validation and files
    memory_mb: int | None  # None if the system does not count it

    def epoch_seconds(self, config: Config) -> float:
        """Expected seconds of an epoch."""
        per_epoch = config.data.photos_per_epoch or self.photos
        return math.ceil(per_epoch / config.training.batch_size) * self.step_seconds + self.epoch_end_seconds


def try_out(config: Config, pack: DataSet, report: Report, seconds: float = 0.0) -> Trial:
    """Time at least two training steps, for at least `seconds`, on a network that is thrown away.

    First keeps what the training would keep: the encoder's features, or photos in a GPU's memory. Each of the
    photos' sides takes as many steps.
    """
    trial = Training(config, pack)
    trial.inputs.prepare(preparing_progress(config, report))
    sides = max(1, len(config.data.sides))
    for _ in range(sides):
        train_step(trial)  # the first step of each side allocates and warms up
    steps, begun = 0, time.perf_counter()
    while steps < 2 or steps % sides or processes.largest(time.perf_counter() - begun < seconds):
        train_step(trial)
        steps += 1
    step_seconds = (time.perf_counter() - begun) / steps
    begun = time.perf_counter()
    validate(trial)
    end = 1.15 * (time.perf_counter() - begun) + 1  # adds an epoch's files, and a sheet now and then
    found = Trial(step_seconds, pack.count("train"), end, memory_mb(trial.device))
    return processes.from_first(lambda: found)


def fit_minutes(config: Config, pack: DataSet, minutes: float, report: Report) -> Config:
    """The configuration with as many epochs as fit into `minutes`.

    If fewer than ten passes over the photos fit, shortens the epochs instead, so that ten can be compared.
    """
    trial = try_out(config, pack, report, seconds=min(5.0, minutes))
    total = 60 * minutes
    if config.data.photos_per_epoch is None and total < 10 * trial.epoch_seconds(config):
        steps = max(1, round((total / 10 - trial.epoch_end_seconds) / trial.step_seconds))
        data = config.data.model_copy(update={"photos_per_epoch": steps * config.training.batch_size})
        config = config.model_copy(update={"data": data})
    epochs = max(1, round(total / trial.epoch_seconds(config)))
    return config.model_copy(update={"stages": (config.stages[0].model_copy(update={"epochs": epochs}),)})
