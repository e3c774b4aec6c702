"""Training: one loop, from the first step to the last; run again, it goes on where it was.

The order of photos, mirroring, time steps and noise are functions of (seed, step). No generator's state has to be saved,
and a training that was interrupted ends bit for bit where an uninterrupted one does.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from photochrom import color, pictures, store
from photochrom.card import model_card
from photochrom.config import Config, StageConfig
from photochrom.data.pack import Pack
from photochrom.diffusion import Diffusion, sample
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.store import ModelFolder
from photochrom.unet import UNet

SAVE_SECONDS = 600  # within a long epoch as well, so that a power cut costs ten minutes at most
SHEET_PHOTOS = 16
VALIDATION_BATCH = 64


@dataclass(frozen=True)
class Progress:
    """What a training reports after each step, and (with `record`) after each epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    stage: str
    loss: float
    photos_per_second: float
    seconds_left: float
    record: dict[str, Any] | None = None


def random_for(*key: int) -> torch.Generator:
    """A CPU generator that is a function of the key alone, such as (seed, stream, step)."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def photos_of_step(photos: np.ndarray, seed: int, step: int, batch_size: int) -> np.ndarray:
    """The indices of a step's photos: the part of an endless row of shuffled passes over `photos`."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    passes = {n: np.random.default_rng((seed, n)).permutation(photos) for n in set(places // len(photos))}
    return np.array([passes[place // len(photos)][place % len(photos)] for place in places])


def stratified_steps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """One time step in each of `count` equal parts of 0..T-1, in random order: (count,) int64.

    Every batch then sees all noise levels, which takes most of the variance out of the loss (Kingma et al. 2021,
    appendix I.1).
    """
    u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (u * timesteps).long().clamp(max=timesteps - 1)


def learning_rate(peak: float, step: int, steps: int, warmup: int) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to 0 at `steps`."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Training:
    """Everything that changes while training, and nothing else; `state` and `restore` move all of it."""

    def __init__(self, config: Config, pack: Pack) -> None:
        options = config.training
        self.config, self.pack = config, pack
        self.photos, validation = pack.indices("train"), pack.indices("validation")
        if len(self.photos) == 0 or len(validation) == 0:
            missing = "training" if len(self.photos) == 0 else "validation"
            raise PhotochromError(f"data set {pack.name!r} has no {missing} photos; import it again with more photos")
        if pack.size % config.model.multiple:
            raise UsageError(
                f"photos of {pack.size} pixels are too small or uneven for {len(config.model.features)} levels at "
                f"chroma scale {config.model.chroma_scale}: import them at a multiple of {config.model.multiple} "
                f"(data import --size), or take fewer features"
            )
        choice = np.random.default_rng(options.seed).permutation(validation)
        self.validation = choice[: config.data.validation_photos]
        precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[options.precision]
        self.accelerator = Accelerator(mixed_precision=precision)
        self.device = self.accelerator.device
        self.diffusion = Diffusion(config.diffusion)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.network = UNet(config.model).to(self.device)
        self.averaged = AveragedModel(self.network, multi_avg_fn=self._average)
        self.averaged.requires_grad_(False).eval()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        per_epoch = config.data.photos_per_epoch or len(self.photos)
        self.steps_per_epoch = math.ceil(per_epoch / options.batch_size)
        self.epoch = self.first_epoch = 0  # finished epochs; those of the model that this one goes on from
        self.step = 0
        self.step_in_epoch = 0
        self.sums: dict[str, float] = {}  # of this epoch's losses
        self.seconds = 0.0  # of this epoch
        self.best_val_loss, self.epochs_since_best = math.inf, 0
        self.history: list[dict[str, Any]] = []

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, count: Any) -> None:
        """Exponential average with a decay of min(decay, (1 + n) / (10 + n)), so that the beginning is soon forgotten.

        Source: the `num_updates` rule of TensorFlow's ExponentialMovingAverage.
        """
        n = int(count)
        decay = min(self.config.training.ema_decay, (1 + n) / (10 + n))
        get_ema_multi_avg_fn(decay)(averaged, current, count)

    @property
    def epochs(self) -> int:
        """The epoch after which the last stage is done."""
        return self.first_epoch + sum(stage.epochs for stage in self.config.stages)

    def stage(self) -> tuple[StageConfig, int]:
        """The stage of the running epoch, and how many of its epochs are done."""
        done = self.epoch - self.first_epoch
        for stage in self.config.stages:
            if done < stage.epochs:
                return stage, done
            done -= stage.epochs
        return self.config.stages[-1], self.config.stages[-1].epochs

    def batch(self, indices: np.ndarray, flip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Luma (B,1,S,S) in [-1,1] and chroma (B,2,S/s,S/s) of photos, mirrored where flip (B,) says so."""
        rgb = self.pack.rgb(indices).to(self.device)  # (B, 3, S, S)
        if flip is not None:
            rgb = torch.where(flip.to(self.device)[:, None, None, None], rgb.flip(-1), rgb)
        return color.from_rgb(rgb, self.config.model.chroma_scale)

    def train_step(self, stage: StageConfig, done: int) -> dict[str, float]:
        """One step of the optimiser; returns every loss. Raises PhotochromError if a number is not finite."""
        options = self.config.training
        generator = random_for(options.seed, 1, self.step)
        if self.config.model.dropout:
            torch.manual_seed(generator.initial_seed())  # dropout knows no other generator
        indices = photos_of_step(self.photos, options.seed, self.step, options.batch_size)
        flip = torch.rand(len(indices), generator=generator) < 0.5 if self.config.data.flip else None
        y, x0 = self.batch(indices, flip)
        t = stratified_steps(len(x0), self.config.diffusion.timesteps, generator).to(self.device)
        eps = torch.randn(x0.shape, generator=generator).to(self.device)
        with self.accelerator.autocast():
            output = self.model(self.diffusion.add_noise(x0, eps, t), t, y)
        noise = F.mse_loss(output.float(), self.diffusion.target(x0, eps, t))
        loss = stage.noise * noise
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), options.clip)
        losses = {"loss": loss.item(), "noise": noise.item(), "gradient": float(norm)}
        if not all(map(math.isfinite, losses.values())) and options.precision != "fp16":  # whose scaler skips the step
            raise PhotochromError(
                f"step {self.step}: a loss or gradient is not finite ({losses}); the step was not taken and the last "
                f"checkpoint is kept; lower --learning-rate"
            )
        step_in_stage = done * self.steps_per_epoch + self.step_in_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                options.learning_rate, step_in_stage, stage.epochs * self.steps_per_epoch, options.warmup_steps
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.network)
        self.step += 1
        self.step_in_epoch += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return losses

    @torch.no_grad()
    def validate(self) -> float:
        """Noise loss of the averaged weights over fixed photos, time steps and noise, so that two epochs compare."""
        generator = random_for(self.config.training.seed, 2)
        count = len(self.validation)
        t = stratified_steps(count, self.config.diffusion.timesteps, generator)
        total = 0.0
        for start in range(0, count, VALIDATION_BATCH):
            y, x0 = self.batch(self.validation[start : start + VALIDATION_BATCH])
            steps = t[start : start + VALIDATION_BATCH].to(self.device)
            eps = torch.randn(x0.shape, generator=generator).to(self.device)
            with self.accelerator.autocast():
                output = self.averaged(self.diffusion.add_noise(x0, eps, steps), steps, y)
            loss = F.mse_loss(output.float(), self.diffusion.target(x0, eps, steps), reduction="none")
            total += loss.mean(dim=(1, 2, 3)).sum().item()
        return total / count

    def sheet(self) -> Image.Image:
        """Gray, coloured (by the averaged weights) and true, for the same validation photos in every epoch."""
        y, x0 = self.batch(self.validation[:SHEET_PHOTOS])
        generators = [random_for(self.config.training.seed, 3, i) for i in range(len(y))]
        c = sample(self.averaged.module, self.diffusion, y, generators)
        columns = {
            "gray": pictures.to_images(y, torch.zeros_like(x0)),
            "coloured": pictures.to_images(y, c),
            "true": pictures.to_images(y, x0),
        }
        return pictures.sheet(columns, across=2)

    def state(self) -> dict[str, Any]:
        """A checkpoint: all that the training needs to go on, and all that using the model needs."""
        last = self.history[-1] if self.history else {"train_loss": None, "val_loss": None}
        return {
            "format": 1,
            "config": self.config.model_dump(mode="json"),
            "epoch": self.epoch,
            "first_epoch": self.first_epoch,
            "step": self.step,
            "step_in_epoch": self.step_in_epoch,
            "sums": dict(self.sums),
            "seconds": self.seconds,
            "model_state_dict": self.network.state_dict(),
            "ema_state_dict": self.averaged.module.state_dict(),
            "ema_updates": int(self.averaged.n_averaged),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "loss_state_dict": {
                "mse_weight": self.stage()[0].noise,
                "perceptual_weight": 0.0,
                "adversarial_weight": 0.0,
                "use_gan": False,
                "discriminator_state_dict": None,
                "discriminator_optimizer_state_dict": None,
            },
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
            "best_val_loss": self.best_val_loss,
            "epochs_since_best": self.epochs_since_best,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any], origin: ModelFolder) -> None:
        """Take up a checkpoint; raises PhotochromError, naming the key, if it is of another network."""
        path = origin / store.LAST
        store.load_tensors(self.network, state["model_state_dict"], path)
        store.load_tensors(self.averaged.module, state["ema_state_dict"], path)
        self.averaged.n_averaged.fill_(state["ema_updates"])
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        for name in ("epoch", "first_epoch", "step", "step_in_epoch", "seconds", "best_val_loss", "epochs_since_best"):
            setattr(self, name, state[name])
        self.sums, self.history = dict(state["sums"]), list(state["history"])

    def end_epoch(self, stage: StageConfig) -> dict[str, Any]:
        """Validate, and write down the epoch."""
        means = {name: value / self.step_in_epoch for name, value in self.sums.items()}
        photos = self.step_in_epoch * self.config.training.batch_size
        record = {
            "epoch": self.epoch + 1,
            "stage": stage.name,
            "train_loss": means.pop("loss"),
            "val_loss": self.validate(),
            **means,
            "weights": {"noise": stage.noise},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "photos": photos,
            "seconds": round(self.seconds, 2),
            "photos_per_second": round(photos / self.seconds, 2),
            "memory_mb": memory_mb(self.device),
        }
        self.epoch += 1
        self.step_in_epoch, self.sums, self.seconds = 0, {}, 0.0
        self.history.append(record)
        better = record["val_loss"] < self.best_val_loss
        self.best_val_loss = min(self.best_val_loss, record["val_loss"])
        self.epochs_since_best = 0 if better else self.epochs_since_best + 1
        return record


def memory_mb(device: torch.device) -> int:
    """The most memory that this process has held so far, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource  # not on Windows, where nobody has asked yet

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def train(
    config: Config,
    folder: ModelFolder,
    pack: Pack,
    report: Callable[[Progress], None] = lambda progress: None,
    signal_received: Callable[[], int] = lambda: 0,
) -> None:
    """Train a model into its folder, or go on from the folder's `last_model.pth`.

    signal_received is asked after each step; a signal's number ends the training after all is saved, by raising
    Interrupted. Raises PhotochromError for a folder that holds another training, a data set that does not fit, losses
    that are not finite, a full disk.
    """
    data = config.data.model_copy(update={"name": pack.name, "size": pack.size, "checksum": pack.checksum})
    config = config.model_copy(update={"data": data})
    if folder.exists:
        refuse_another(config, folder)
    training = Training(config, pack)
    with folder.locked():
        if (folder / store.LAST).exists():
            training.restore(store.read_checkpoint(folder / store.LAST), folder)
        store.write_json(folder / store.CONFIG, config.model_dump(mode="json"))
        patience = config.training.patience
        while training.epoch < training.epochs and not 0 < patience <= training.epochs_since_best:
            stage, done = training.stage()
            run_epoch(training, stage, done, folder, report, signal_received)
            record = training.end_epoch(stage)
            save_epoch(training, folder, record)
            report(progress_of(training, stage, record["train_loss"], record))


def refuse_another(config: Config, folder: ModelFolder) -> None:
    """Raise PhotochromError if the folder was trained with other settings than these, showing the first difference.

    More epochs, patience and how often sheets are made may change between two runs of one training.
    """

    def comparable(config: Config) -> dict[str, Any]:
        values = config.model_dump(mode="json")
        for key in ("patience", "sample_every"):
            del values["training"][key]
        stages = {f"stages.{n}": {**stage, "epochs": None} for n, stage in enumerate(values.pop("stages"))}
        return {f"{part}.{key}": value for part, fields in {**values, **stages}.items() for key, value in fields.items()}

    old, new = comparable(folder.config), comparable(config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise PhotochromError(
                f"{folder.path} holds a training with {key} = {old.get(key)}, not {new.get(key)}: "
                f"take another --name, the same settings to go on, or --overwrite to begin anew"
            )


def run_epoch(
    training: Training,
    stage: StageConfig,
    done: int,
    folder: ModelFolder,
    report: Callable[[Progress], None],
    signal_received: Callable[[], int],
) -> None:
    """The steps of one epoch that are still to be done."""
    saved = time.monotonic()
    while training.step_in_epoch < training.steps_per_epoch:
        begun = time.monotonic()
        losses = training.train_step(stage, done)
        training.seconds += time.monotonic() - begun
        report(progress_of(training, stage, losses["loss"]))
        if number := signal_received():
            folder.save_checkpoint(store.LAST, training.state())
            raise Interrupted(
                f"stopped in epoch {training.epoch + 1}, all saved; the same command goes on from here", number
            )
        if time.monotonic() - saved > SAVE_SECONDS:
            folder.save_checkpoint(store.LAST, training.state())
            saved = time.monotonic()


def progress_of(training: Training, stage: StageConfig, loss: float, record: dict[str, Any] | None = None) -> Progress:
    """How far the training is, with the time left at this epoch's pace."""
    steps = training.steps_per_epoch
    pace = training.seconds / training.step_in_epoch if training.step_in_epoch else record["seconds"] / steps if record else 0
    left = (training.epochs - training.epoch) * steps - training.step_in_epoch
    rate = training.config.training.batch_size / pace if pace else 0.0
    epoch = training.epoch if record else training.epoch + 1
    return Progress(
        epoch, training.epochs, training.step_in_epoch or steps, steps, stage.name, loss, rate, left * pace, record
    )


def save_epoch(training: Training, folder: ModelFolder, record: dict[str, Any]) -> None:
    """Write what the epoch brought; `last_model.pth` comes last, since it is what resuming believes."""
    state = training.state()
    every = training.config.training.sample_every
    if training.epoch == training.epochs or (every and training.epoch % every == 0):
        (folder / "samples").mkdir(exist_ok=True)
        store.write_bytes(folder / "samples" / f"epoch_{training.epoch:04}.png", pictures.png(training.sheet()))
    if training.epochs_since_best == 0:
        folder.save_checkpoint(store.BEST, state)
        folder.save_weights(state["ema_state_dict"], training.config)
    store.write_bytes(folder / store.CURVE, pictures.loss_curve(training.history))
    store.write_json(folder / store.HISTORY, training.history)
    store.write_bytes(folder / store.CARD, model_card(folder.name, training.config, training.history).encode())
    folder.save_checkpoint(store.LAST, state)
