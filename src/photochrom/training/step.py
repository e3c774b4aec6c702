"""One step of a training, and what happens to a batch whose numbers are not finite."""

from __future__ import annotations

import math

from photochrom.errors import PhotochromError
from photochrom.randomness import Indices
from photochrom.training.optimizer import learning_rate, set_learning_rate
from photochrom.training.state import Training

OVERFLOWS = 20  # in a row lower a scale of 65536 below one tenth; after that, the scale is not the cause


def train_step(training: Training) -> dict[str, float]:
    """Draw a batch, compute its gradients and step the optimiser. Returns every loss by name.

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
    # In float16 a gradient overflows now and then: the scaler then skips the step and lowers the scale.
    in_float16 = training.arithmetic.precision == "fp16"
    overflow = bad == ["gradient"] and in_float16 and training.overflows < OVERFLOWS
    if bad and not overflow:
        return skip_batch(training, bad, photos)
    steps = training.stage.epochs * training.steps_per_epoch
    rate = learning_rate(
        options.learning_rate, training.step_in_stage, steps, options.warmup_steps, options.anneal
    )
    set_learning_rate(training.optimizer, rate)
    training.arithmetic.scaler.step(training.optimizer)
    training.arithmetic.scaler.update()
    training.losses.learn()
    training.backward.clear_gradients(training.losses)
    training.average.update()
    training.step += 1
    training.step_in_epoch += 1
    training.bad_batches, training.overflows = 0, training.overflows + 1 if overflow else 0
    for name, value in log.items():
        if math.isfinite(value):
            total, count = training.sums.get(name, (0.0, 0))
            training.sums[name] = [total + value, count + 1]
    return log


def skip_batch(training: Training, bad: list[str], photos: Indices) -> dict[str, float]:
    """Skip a batch whose values named `bad` are not finite, and train on the next one.

    Raises PhotochromError if the batch before was skipped too.
    """
    training.backward.clear_gradients(training.losses)
    training.arithmetic.scaler.update()  # without this the scaler refuses the next gradient
    training.bad_batches += 1
    origins = ", ".join(training.pack.origins(photos[:3]))
    message = f"step {training.step}: {', '.join(bad)} not finite; skipped this batch (photos {origins}, ...)"
    if training.bad_batches > 1:
        raise PhotochromError(
            f"{message}; twice in a row: the last good checkpoint is kept, go on from it with --from and a "
            "lower --learning-rate"
        )
    training.notes.append(f"{message}; going on with the next batch")
    training.step += 1
    return _train_step(training)
