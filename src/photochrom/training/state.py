"""What changes while a model trains, and how checkpoints save and restore it.

Batches are functions of (seed, step): an interrupted training ends bit for bit as an uninterrupted one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from photochrom import model_folder, processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.unet import UNet
from photochrom.precision import Arithmetic, device_for_training, for_training
from photochrom.training.average import Average
from photochrom.training.backward import Backward
from photochrom.training.batches import Batches
from photochrom.training.checks import refuse_data
from photochrom.training.distillation import Teacher
from photochrom.training.inputs import Inputs
from photochrom.training.losses import StageLoss
from photochrom.training.optimizer import optimizer_of
from photochrom.training.workers import Workers

COUNTERS = (
    *("epoch", "step", "step_in_epoch", "sums", "seconds"),
    *("best_val_loss", "epochs_since_best", "history"),
)


class Training:
    """Network, average, optimiser, losses and counters: `state` saves them, `restore` takes them back.

    `inputs`, `batches` and `backward` hold nothing that a checkpoint needs.
    """

    def __init__(self, config: Config, pack: DataSet, before: str | None = None) -> None:
        """before: the precision of an earlier run of this training, which "auto" keeps."""
        refuse_data(config, pack)
        options = config.training
        self.config, self.pack, self.device = config, pack, device_for_training()
        wanted = before if before and options.precision == "auto" else options.precision
        self.arithmetic = Arithmetic(for_training(wanted), self.device)
        self.diffusion = Diffusion(config.diffusion)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.network = UNet(config.model).to(self.device)
        # Parts must take turns if they share dropout's generator, or exchange sums with other processes.
        alone = self.device.type != "cpu" or processes.count() > 1 or config.model.dropout > 0
        self.workers = Workers(options.batch_size * options.draws, alone)
        self.average = Average(self.network, options.ema_decay, self.workers)
        self.optimizer = optimizer_of(self.network, options)
        self.inputs = Inputs(config, pack, self.arithmetic, self.workers, self.averaged.encoder)
        self.batches = Batches(config, pack, self.diffusion, self.inputs)
        self.backward = Backward(
            self.network, self.arithmetic, options, self.workers, self.inputs.free_memory
        )
        photos = config.data.photos_per_epoch or pack.count("train")
        self.steps_per_epoch = math.ceil(photos / options.batch_size)
        self.epoch = config.first_epoch  # epochs done
        self.step = self.step_in_epoch = 0
        self.sums: dict[str, list[float]] = {}  # of this epoch: name -> [sum, count]
        self.seconds = 0.0  # of this epoch
        self.best_val_loss, self.epochs_since_best = math.inf, 0
        self.history: list[dict[str, Any]] = []
        self.bad_batches = self.overflows = 0  # in a row
        self.notes: list[str] = []  # for the user
        self.begin_stage()

    @property
    def averaged(self) -> UNet:
        """The network with averaged weights."""
        return self.average.network

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last stage has not improved for `patience` epochs."""
        patience = self.config.training.patience if self.stage is self.config.stages[-1] else 0
        return self.epoch >= self.config.last_epoch or 0 < patience <= self.epochs_since_best

    @property
    def step_in_stage(self) -> int:
        """Steps done in this stage."""
        return (self.epoch - self.stage_begin) * self.steps_per_epoch + self.step_in_epoch

    def begin_stage(self, carried: dict[str, Any] | None = None) -> None:
        """Set up the stage of the current epoch. carried: a `loss_state_dict` to take the discriminator from.

        Stages have different losses, so each looks for its own best epoch.
        """
        self.stage, self.stage_begin = self.config.stage_at(self.epoch)
        self.losses = StageLoss(self.stage, self.config, self.device)
        self.teacher: Teacher | None = None
        if self.stage.distill:
            guidance = self.config.taught_guidance(self.stage)
            self.teacher = Teacher(self.averaged, self.diffusion, self.stage.distill, guidance)
        if carried:
            self.losses.restore(carried, Path(model_folder.LAST))
        if self.step_in_stage == 0:
            self.best_val_loss, self.epochs_since_best = math.inf, 0
            if self.teacher:
                # A student starts as a copy of its teacher; a long average would not forget that copy.
                self.network.load_state_dict(self.averaged.state_dict())
                self.average.updates = 0

    def state(self) -> dict[str, Any]:
        """A checkpoint: everything that training on, and using the model, needs."""
        last = self.history[-1] if self.history else {"train_loss": None, "val_loss": None}
        return {
            "format": 1,
            "config": self.config.model_dump(mode="json"),
            **{name: getattr(self, name) for name in COUNTERS},
            "model_state_dict": self.network.state_dict(),
            "ema_state_dict": self.averaged.state_dict(),
            "ema_updates": self.average.updates,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "loss_state_dict": self.losses.state(),
            "teacher_state_dict": self.teacher.network.state_dict() if self.teacher else None,
            "precision": self.arithmetic.precision,
            "scaler_state_dict": self.arithmetic.scaler.state_dict(),  # empty without one
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
        }

    def restore(self, state: dict[str, Any], origin: Path, anew: bool = False) -> None:
        """Restore a checkpoint. Raises PhotochromError, naming the key, if it belongs to another network.

        anew: start a new model on top of another one: take its weights, averages and epoch count, and its
        optimiser and losses where the checkpoint has them.
        """
        model_folder.load_tensors(self.network, state["model_state_dict"], origin)
        model_folder.load_tensors(self.averaged, state["ema_state_dict"], origin)
        self.average.updates = state["ema_updates"]
        if "optimizer_state_dict" in state:
            self.optimizer.load_state_dict(state["optimizer_state_dict"])
        if self.arithmetic.scaler.is_enabled() and state.get("scaler_state_dict"):
            self.arithmetic.scaler.load_state_dict(state["scaler_state_dict"])
        for name in state.keys() & COUNTERS:
            setattr(self, name, state[name])
        if anew:
            self.step_in_epoch, self.sums, self.seconds = 0, {}, 0.0
        self.begin_stage(state.get("loss_state_dict"))
        if self.teacher and self.step_in_stage:
            model_folder.load_tensors(self.teacher.network, state["teacher_state_dict"], origin)
