"""What changes while training, and how it is saved and taken up again.

The order of photos, mirroring, time steps and noise are functions of (seed, step). No generator's state has to be saved,
and a training that was interrupted ends bit for bit where an uninterrupted one does.
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
from photochrom.training.losses import StageLoss
from photochrom.training.workers import Workers

COUNTERS = (
    *("epoch", "step", "step_in_epoch", "sums", "seconds"),
    *("best_val_loss", "epochs_since_best", "history"),
)
SHARES = (1.0, 0.1)
"""Of the learning rate: the network's own, and that of an encoder that learns along, which knows most of what it needs."""


def weight_groups(network: UNet) -> list[dict[str, Any]]:
    """The network's weights as an optimiser takes them: its own, and those of an encoder that learns along (see SHARES)."""
    encoder = list(network.encoder.parameters()) if network.encoder else []
    own = [weight for name, weight in network.named_parameters() if not name.startswith("encoder.")]
    return [{"params": weights} for weights in (own, encoder) if weights]


class Training:
    """Network, average, optimiser, losses and counters; `state` and `restore` move all of them.

    `batches` and `backward` go with it. They keep nothing that a checkpoint would need.
    """

    def __init__(self, config: Config, pack: DataSet, before: str | None = None) -> None:
        """before: the precision in which an earlier run trained; "auto" keeps to it."""
        refuse_data(config, pack)
        options = config.training
        self.config, self.pack = config, pack
        self.device = device_for_training()
        wanted = before if before and options.precision == "auto" else options.precision
        self.arithmetic = Arithmetic(for_training(wanted), self.device)
        self.diffusion = Diffusion(config.diffusion)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.network = UNet(config.model).to(self.device)
        self.average = Average(self.network, options.ema_decay)
        self.optimizer = torch.optim.AdamW(
            weight_groups(self.network), weight_decay=options.weight_decay, fused=True
        )
        # Dropout draws from one generator, and processes exchange sums within a part: both ask for parts one by one.
        alone = self.device.type != "cpu" or processes.count() > 1 or config.model.dropout > 0
        self.workers = Workers(options.batch_size, alone)
        self.batches = Batches(config, pack, self.diffusion, self.arithmetic, self.average, self.workers)
        self.backward = Backward(self.network, self.arithmetic, options, self.workers, self.batches.give_way)
        self.steps_per_epoch = math.ceil(
            (config.data.photos_per_epoch or pack.count("train")) / options.batch_size
        )
        self.epoch = config.first_epoch  # how many are done
        self.step = self.step_in_epoch = 0
        self.sums: dict[str, list[float]] = {}  # of this epoch: name -> [sum, count]
        self.seconds = 0.0  # of this epoch
        self.best_val_loss, self.epochs_since_best = math.inf, 0
        self.history: list[dict[str, Any]] = []
        self.bad_batches = self.overflows = 0  # in a row
        self.notes: list[str] = []  # for the person who waits
        self.begin_stage()

    @property
    def averaged(self) -> UNet:
        """The network with averaged weights."""
        return self.average.network

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience with the last stage is at its end."""
        patience = self.config.training.patience if self.stage is self.config.stages[-1] else 0
        return self.epoch >= self.config.last_epoch or 0 < patience <= self.epochs_since_best

    @property
    def step_in_stage(self) -> int:
        """Steps that this stage has taken."""
        return (self.epoch - self.stage_begin) * self.steps_per_epoch + self.step_in_epoch

    def begin_stage(self, carried: dict[str, Any] | None = None) -> None:
        """Make the losses of the running epoch's stage, with the discriminator of `carried` (a loss_state_dict) if any.

        Each stage has its own validation loss, so the best of the stage before does not count in it.
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
                # The student begins as its teacher, whose weights would stay in a long average for thousands of steps.
                self.network.load_state_dict(self.averaged.state_dict())
                self.average.updates = 0

    def state(self) -> dict[str, Any]:
        """A checkpoint: all that the training needs to go on, and all that using the model needs."""
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
        """Take up a checkpoint; raises PhotochromError, naming the key, if it is of another network.

        anew: begin a new model on top of another one's weights, averages, epoch count and, where they were passed on,
        optimiser and losses.
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
