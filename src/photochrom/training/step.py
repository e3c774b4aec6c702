"""One step of a training, and what happens to a batch whose numbers are not finite."""

from __future__ import annotations

import math

from photochrom.errors import PhotochromError
from photochrom.randomness import Indices
from photochrom.training.state import SHARES, Training

OVERFLOWS = 20  # in a row, after which a scale of 65536 is below one tenth: then it is not the scale


def learning_rate(peak: float, step: int, steps: int, warmup: int, anneal: bool = True) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to 0 at `steps`, or without `anneal` no fall."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    if not anneal:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train_step(training: Training) -> dict[str, float]:
    """Draw a batch, find its gradients, and let the optimiser take a step; returns every loss.

    Raises PhotochromError if the numbers of two batches in a row are not finite.
    """
    with training.backward.sharing(training.losses):
        return _train_step(training)


def _train_step(training: Training) -> dict[str, float]:
    options = training.config.training
    photos, batch = training.batches.of_step(training.step, training.losses, training.teacher)
    log = training.backward(batch, training.losses, training.teacher, training.step_in_stage)
    log["gradient"] = training.backward.clip(training.optimizer, options.clip)
    bad = [name for name, value in log.items() if not math.isfinite(value)]
    # With float16 a gradient overflows now and then: its scaler skips the step and lowers the scale.
    in_float16 = training.arithmetic.precision == "fp16"
    overflow = bad == ["gradient"] and in_float16 and training.overflows < OVERFLOWS
    if bad and not overflow:
        return without_this_batch(training, bad, photos)
    steps = training.stage.epochs * training.steps_per_epoch
    rate = learning_rate(
        options.learning_rate, training.step_in_stage, steps, options.warmup_steps, options.anneal
    )
    for group, share in zip(training.optimizer.param_groups, SHARES, strict=False):
        group["lr"] = share * rate
    training.arithmetic.scaler.step(training.optimizer)
    training.arithmetic.scaler.update()
    training.losses.learn()
    training.backward.forget(training.losses)
    training.average.update()
    training.step += 1
    training.step_in_epoch += 1
    training.bad_batches, training.overflows = 0, training.overflows + 1 if overflow else 0
    for name, value in log.items():
        if math.isfinite(value):
            total, count = training.sums.get(name, (0.0, 0))
            training.sums[name] = [total + value, count + 1]
    return log


def without_this_batch(training: Training, bad: list[str], photos: Indices) -> dict[str, float]:
    """Leave out a batch whose numbers `bad` are not finite and take the next; raises PhotochromError at the second in a row."""
    training.backward.forget(training.losses)
    training.arithmetic.scaler.update()  # or it would refuse to look at the next gradient
    training.bad_batches += 1
    origins = ", ".join(training.pack.origins(photos[:3]))
    said = (
        f"step {training.step}: {', '.join(bad)} not finite; the step was not taken (photos {origins}, ...)"
    )
    if training.bad_batches > 1:
        raise PhotochromError(
            f"{said}; twice in a row: the last good checkpoint is kept, go on from it by --from and a lower --learning-rate"
        )
    training.notes.append(f"{said}; going on with the next batch")
    training.step += 1
    return _train_step(training)
