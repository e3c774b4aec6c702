"""Writes a training's losses, rates, sample sheets and configuration for TensorBoard, in the model folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from photochrom.config import Config
from photochrom.errors import PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Report = Callable[[Progress], None]


@contextmanager
def tensorboard(folder: ModelFolder, config: Config, report: Report) -> Iterator[Report]:
    """A `report` that also writes to `tensorboard/` in the folder. Sends nothing anywhere.

    `tensorboard --logdir models` shows all trainings side by side. Raises PhotochromError if TensorBoard is
    missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PhotochromError("--tracker needs TensorBoard: pip install 'photochrom[tensorboard]'") from None
    writer: SummaryWriter | None = None

    def also(progress: Progress) -> None:
        nonlocal writer
        report(progress)
        if progress.preparing:
            return
        step = (progress.epoch - 1) * progress.steps + progress.step
        if writer is None:
            # Hides steps that an earlier run wrote and this run repeats.
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
            writer.add_text("configuration", f"```json\n{config.model_dump_json(indent=1)}\n```", step)
        if progress.record is None:
            writer.add_scalar("step/loss", progress.loss, step)
            writer.add_scalar("step/photos_per_second", progress.photos_per_second, step)
            return
        _write_epoch(writer, folder, progress.record, step)

    try:
        yield also
    finally:
        if writer:
            writer.close()


def _write_epoch(writer: SummaryWriter, folder: ModelFolder, record: dict[str, Any], step: int) -> None:
    """Write the numbers of an epoch's record, and its sheet of samples if there is one."""
    for name, value in record.items():
        if isinstance(value, int | float):
            writer.add_scalar(f"epoch/{name}", value, step)
        elif isinstance(value, dict):
            for inner, number in value.items():
                writer.add_scalar(f"epoch/{name}/{inner}", number, step)
    writer.add_text("epoch", f"```json\n{json.dumps(record, indent=1)}\n```", step)
    path = folder / "samples" / f"epoch_{record['epoch']:04}.png"
    if path.exists():
        with Image.open(path) as sheet:
            writer.add_image("samples", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")
    writer.flush()
