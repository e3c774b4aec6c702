"""Trains a model from its first step to its last. Run again, it resumes. `step` has a single step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photochrom import files, model_folder, pictures, processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.errors import Interrupted
from photochrom.evaluation.card import write_card
from photochrom.model_folder import ModelFolder, learnt_from
from photochrom.training.checks import as_started, refuse, refuse_other_network, refuse_teacher
from photochrom.training.diagnosis import faults
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import end_epoch, sheet
from photochrom.training.warm_start import described, fitted

Checkpoint = tuple[dict[str, Any], Path, list[str]]  # see `ModelFolder.newest_checkpoint`
SAVE_SECONDS = 600  # save within an epoch too, so that a power cut costs ten minutes at most


@dataclass(frozen=True)
class Progress:
    """What a training reports after each step and, with `record`, after each epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    stage: str
    loss: float
    photos_per_second: float
    seconds_left: float
    record: dict[str, Any] | None = None
    best: bool = False  # whether the record's validation loss is the lowest of its stage
    notes: tuple[str, ...] = ()
    preparing: bool = False  # before the first epoch; `step` of `steps` photos are prepared


def train(
    config: Config,
    folder: ModelFolder,
    pack: DataSet,
    report: Callable[[Progress], None] = lambda progress: None,
    signal_received: Callable[[], int] = lambda: 0,
    source: ModelFolder | None = None,
) -> None:
    """Train a model into its folder: from nothing, from another model (`source`), or from where it stands.

    Processes that a launcher has started train one model together: each takes its share of every batch, and
    the first writes the folder. `source` is only read. signal_received is asked after each step: if it
    returns a signal's number, the training saves everything and raises Interrupted.

    Raises PhotochromError if the folder holds another training, the source has another architecture, the data
    set does not fit, losses are not finite, or the disk is full.
    """
    data = config.data.model_copy(update={"name": pack.place, "size": pack.size, "checksum": pack.checksum})
    config = config.model_copy(update={"data": data, "source": source.name if source else config.source})
    if folder.exists and folder.has_checkpoint:  # no longer needs the source, which may be gone
        config = config.model_copy(update={"ancestors": folder.config.ancestors})
    elif source:
        config = config.model_copy(update={"ancestors": learnt_from(source.config, source.path.parent)})
    processes.from_first(lambda: refuse(config, folder, pack, source))
    with ExitStack() as held:
        processes.from_first(lambda: held.enter_context(folder.locked()))
        training = begin(config, folder, pack, source)
        processes.from_first(
            lambda: files.write_json(folder / model_folder.CONFIG, training.config.model_dump(mode="json"))
        )
        if not training.finished:
            training.notes += training.inputs.prepare(preparing_progress(config, report, signal_received))
        while not training.finished:
            run_epoch(training, folder, report, signal_received)
            record = end_epoch(training)
            processes.from_first(lambda: save_epoch(training, folder))
            training.notes += faults(training.history, training.stage)
            report(progress_of(training, record["train_loss"], record))
            if not training.finished and training.epoch == training.stage_begin + training.stage.epochs:
                training.begin_stage(training.losses.state())


def begin(config: Config, folder: ModelFolder, pack: DataSet, source: ModelFolder | None) -> Training:
    """The training as the folder has it, on top of the source, or new. Call it with the folder locked.

    Without the lock, another process could still write what this decides on.
    """
    config, resuming, found = processes.from_first(lambda: starting_point(config, folder, source))
    if found is None:
        return Training(config, pack)
    state, origin, skipped = found
    before = precision_of(state) if resuming else None
    training = Training(config, pack, before)
    if source and not resuming and source.config.model != config.model:
        old = source.config.model
        for weights in ("model_state_dict", "ema_state_dict"):
            state[weights] = fitted(state[weights], old, training.network)
        state.pop("optimizer_state_dict", None)  # its moments belong to the old weights
        training.notes.append(described(source.name, old, config.model))
    training.restore(state, origin, anew=not resuming)
    training.notes += [f"{sentence} (skipped: going on from {origin})" for sentence in skipped]
    if before and before != training.arithmetic.precision:
        training.notes.append(
            f"changing precision from {before} to {training.arithmetic.precision}, from epoch "
            f"{training.epoch + 1} on"
        )
    if source and not resuming:
        training.notes += doubts_about(source, config, pack.size)
    if resuming and origin == folder / model_folder.BEST and training.finished:
        # It may have been killed before it wrote its other files.
        processes.from_first(lambda: save_epoch(training, folder))
    return training


def doubts_about(source: ModelFolder, config: Config, size: int) -> list[str]:
    """Notes for the user about a source that may not suit this training on photos of `size` pixels."""
    old, notes = source.config, []
    if old.stages[-1].distill and not config.stages[0].distill:
        notes.append(
            f"{source.name} was distilled to {old.steps} steps and has forgotten the others: better start "
            f"from the model that it was distilled from ({old.source})"
        )
    if size < (old.data.size or 0):
        notes.append(
            f"{source.name} learnt from photos of {old.data.size} pixels, these have {size}: data import "
            f"--size {old.data.size} shows it more"
        )
    return notes


def starting_point(
    config: Config, folder: ModelFolder, source: ModelFolder | None
) -> tuple[Config, bool, Checkpoint | None]:
    """The configuration to train, whether the folder's training resumes, and the checkpoint to start from."""
    if folder.has_checkpoint:
        return as_started(config, folder), True, folder.newest_checkpoint()
    found = source_checkpoint(config, source)
    return config.model_copy(update={"first_epoch": found[0]["epoch"] if found else 0}), False, found


def source_checkpoint(config: Config, source: ModelFolder | None) -> Checkpoint | None:
    """The checkpoint of the source, if there is one. Raises UsageError if `config` cannot start from it."""
    refuse_teacher(config, source)
    if source is None:
        return None
    refuse_other_network(config, source)
    return source.newest_checkpoint() if source.has_checkpoint else source.weights_alone()


def precision_of(state: dict[str, Any]) -> str | None:
    """The precision that a checkpoint was trained in. Earlier versions have it in the history only."""
    last = state["history"][-1] if state["history"] else {}
    precision: str | None = state.get("precision", last.get("precision"))
    return precision


def run_epoch(
    training: Training,
    folder: ModelFolder,
    report: Callable[[Progress], None],
    signal_received: Callable[[], int],
) -> None:
    """The remaining steps of the current epoch."""
    saved = time.monotonic()
    while training.step_in_epoch < training.steps_per_epoch:
        begun = time.monotonic()
        losses = train_step(training)
        training.seconds += time.monotonic() - begun
        report(progress_of(training, losses["loss"]))
        if number := processes.largest(signal_received()):
            processes.from_first(lambda: folder.save_checkpoint(model_folder.LAST, training.state()))
            raise Interrupted(
                f"stopped in epoch {training.epoch + 1}, all saved; the same command goes on from here",
                number,
            )
        if time.monotonic() - saved > SAVE_SECONDS and processes.is_first():
            folder.save_checkpoint(model_folder.LAST, training.state())
            saved = time.monotonic()


def preparing_progress(
    config: Config, report: Callable[[Progress], None], signal_received: Callable[[], int] = lambda: 0
) -> Callable[[int, int], None]:
    """A function of (done, total) photos that reports how far their preparation is, before the first epoch.

    It raises Interrupted once a signal has come.
    """
    begun, first = 0.0, 0  # time of the first call, and photos done by then

    def progress(done: int, total: int) -> None:
        nonlocal begun, first
        if not begun:
            begun, first = time.monotonic(), done
        pace = (time.monotonic() - begun) / max(1, done - first)  # seconds per photo
        report(
            Progress(
                epoch=config.first_epoch,
                epochs=config.last_epoch,
                step=done,
                steps=total,
                stage="preparing",
                loss=math.nan,
                photos_per_second=1 / max(pace, 1e-9),
                seconds_left=(total - done) * pace,
                preparing=True,
            )
        )
        if number := signal_received():
            raise Interrupted("stopped before the first step; the same command goes on from here", number)

    return progress


def progress_of(training: Training, loss: float, record: dict[str, Any] | None = None) -> Progress:
    """How far the training is.

    Estimates the time left from this epoch's pace, or that of the epoch just ended.
    """
    config, steps = training.config, training.steps_per_epoch
    if record:
        epoch, step, seconds = training.epoch, steps, record["seconds"]
    else:
        epoch, step, seconds = training.epoch + 1, training.step_in_epoch, training.seconds
    pace = seconds / step  # seconds per step
    steps_left = (config.last_epoch - epoch + 1) * steps - step
    notes = (*training.backward.notes, *training.notes)
    training.backward.notes.clear()
    training.notes.clear()
    return Progress(
        epoch=epoch,
        epochs=config.last_epoch,
        step=step,
        steps=steps,
        stage=training.stage.label,
        loss=loss,
        photos_per_second=config.training.batch_size / max(pace, 1e-9),
        seconds_left=steps_left * pace,
        record=record,
        best=record is not None and training.epochs_since_best == 0,
        notes=notes,
    )


def save_epoch(training: Training, folder: ModelFolder) -> None:
    """Write the files of an epoch. `last_model.pth` comes last, because resuming relies on it."""
    every = training.config.training.sample_every
    if training.finished or (every and training.epoch % every == 0):
        picture, measured = sheet(training)
        training.history[-1] |= measured
        (folder / "samples").mkdir(exist_ok=True)
        files.write_bytes(folder / "samples" / f"epoch_{training.epoch:04}.png", pictures.png(picture))
    state = training.state()
    if training.epochs_since_best == 0:
        folder.save_checkpoint(model_folder.BEST, state)
        folder.save_weights(state["ema_state_dict"], training.config)
    files.write_bytes(folder / model_folder.CURVE, pictures.loss_curve(training.history))
    files.write_json(folder / model_folder.HISTORY, training.history)
    write_card(folder)
    folder.save_checkpoint(model_folder.LAST, state)
