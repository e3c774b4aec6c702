"""How good a training has become: losses on validation photos, a sheet of samples, the record of an epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photochrom import pictures, processes
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import sample
from photochrom.errors import PhotochromError
from photochrom.evaluation.metrics import colorfulness
from photochrom.randomness import random_for
from photochrom.training.memory import memory_mb
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training

SHEET_PHOTOS = 16


def validate(training: Training) -> dict[str, float]:
    """Losses of the averaged weights on fixed photos, time steps and noise, so that epochs compare."""

    @torch.no_grad()
    def judge(batch: Noisy) -> dict[str, Tensor]:
        with training.arithmetic.autocast():
            output = training.averaged(batch.xt, batch.t, batch.y, batch.features)
            target = training.teacher.target(batch) if training.teacher else None
        terms = training.losses.validation(batch._replace(target=target), output.float())
        return {name: values.cpu() for name, values in terms.items()}

    found: dict[int, list[dict[str, Tensor]]] = {}
    with training.workers.sharing():
        for place, batch in training.batches.of_validation(training.teacher):
            parts = [batch.only(part) for part in training.workers.slices(len(batch.t))]
            found[place] = list(training.workers.map(judge, parts))
    everywhere = {place: parts for share in processes.gather(found) for place, parts in share.items()}
    judged = [terms for place in sorted(everywhere) for terms in everywhere[place]]
    names = dict.fromkeys(name for terms in judged for name in terms)
    return {
        name: torch.cat([terms[name] for terms in judged if name in terms]).mean().item() for name in names
    }


def sheet(training: Training) -> tuple[Image.Image, dict[str, Any]]:
    """A sheet of gray, coloured (by the averaged weights) and true photos; the same photos in every epoch.

    Returns the sheet and two measures, each of the samples and of the true photos: `colorfulness` (Hasler &
    Suesstrunk), and `spread`, the standard deviation over photos of their mean chroma.
    """
    config, stage = training.config, training.stage
    y, x0, features = training.inputs.of(training.batches.validation[:SHEET_PHOTOS])
    generators = [random_for(config.training.seed, 3, i) for i in range(len(y))]
    steps, guidance = config.steps_after(stage), config.guidance_after(stage)

    def coloured(part: slice) -> Tensor:
        own = [each[part] for each in features]
        network, diffusion = training.averaged, training.diffusion
        return sample(network, diffusion, y[part], generators[part], steps, features=own, guidance=guidance)

    with training.workers.sharing():
        c = torch.cat(list(training.workers.map(coloured, training.workers.slices(len(y)))))
    columns = {
        "gray": color.to_images(y, torch.zeros_like(x0)),
        "coloured": color.to_images(y, c),
        "true": color.to_images(y, x0),
    }
    measured: dict[str, dict[str, float]] = {"colorfulness": {}, "spread": {}}
    for name, photos, chroma in (("samples", columns["coloured"], c), ("data", columns["true"], x0)):
        rgb = np.stack([np.asarray(photo) for photo in photos]) / 255
        measured["colorfulness"][name] = float(colorfulness(rgb).mean())
        measured["spread"][name] = chroma.mean(dim=(2, 3)).std(dim=0, correction=0).mean().item()
    return pictures.sheet(columns, across=2), measured


def end_epoch(training: Training) -> dict[str, Any]:
    """Validate, record the epoch, and start the next.

    Raises PhotochromError for a loss that is not finite.
    """
    val = validate(training)
    if bad := [name for name, value in val.items() if not math.isfinite(value)]:
        raise PhotochromError(
            f"epoch {training.epoch + 1}: validation {', '.join(bad)} not finite; the last good checkpoint "
            f"is kept, go on from it with --from and a lower --learning-rate"
        )
    record = record_of(training, val)
    training.history.append(record)
    better = record["val_loss"] < training.best_val_loss
    training.best_val_loss = min(training.best_val_loss, record["val_loss"])
    training.epochs_since_best = 0 if better else training.epochs_since_best + 1
    training.epoch += 1
    training.step_in_epoch, training.sums, training.seconds = 0, {}, 0.0
    return record


def record_of(training: Training, val: dict[str, float]) -> dict[str, Any]:
    """The history's record of the epoch that ends. val: its validation losses."""
    stage, device = training.stage, training.device
    means = {name: total / count for name, (total, count) in training.sums.items()}
    weights = {"noise": stage.noise, "perceptual": stage.perceptual}
    photos = training.step_in_epoch * training.config.training.batch_size
    memory = memory_mb(device)
    return {
        "epoch": training.epoch + 1,
        "stage": stage.label,
        "stage_began": training.stage_begin + 1,
        "train_loss": means.pop("loss"),
        "val_loss": sum(weights[name] * value for name, value in val.items()),
        **{f"val_{name}": value for name, value in val.items()},
        **means,
        "weights": weights | {"adversarial": stage.adversarial if stage.use_gan else 0.0},
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **training.backward.division(training.losses),
        "precision": training.arithmetic.precision,
        "photos": photos,
        "seconds": round(training.seconds, 2),
        "photos_per_second": round(photos / training.seconds, 2),
        **({} if memory is None else {"memory_mb": memory}),
    }
