"""What changes while training: networks, optimiser, losses, counters; one step of it, and one validation.

The order of photos, mirroring, time steps and noise are functions of (seed, step). No generator's state has to be saved,
and a training that was interrupted ends bit for bit where an uninterrupted one does.
"""

from __future__ import annotations

import copy
import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from photochrom import model_folder, pictures, processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion, sample
from photochrom.diffusion.encoder import Encoder, Kept, keep
from photochrom.diffusion.unet import CHROMA_CHANNELS, UNet
from photochrom.diffusion.vgg16 import SHA256
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.metrics import colorfulness
from photochrom.precision import for_training
from photochrom.randomness import Indices, random_for, stratified_steps
from photochrom.training.aging import aged_luma
from photochrom.training.checks import refuse_size
from photochrom.training.cuda_graph import Replayed
from photochrom.training.distillation import Teacher
from photochrom.training.losses import Noisy, StageLoss

SHEET_PHOTOS = 16
COUNTERS = (
    *("epoch", "step", "step_in_epoch", "sums", "seconds"),
    *("best_val_loss", "epochs_since_best", "history"),
)
VALIDATION_BATCH = 64
SHARES = (
    1.0,
    0.1,
)  # of the learning rate: the network's own, and the encoder's, which knows most of what it needs
OVERFLOWS = 20  # in a row, after which a scale of 65536 is below one tenth: then it is not the scale


class Batch(NamedTuple):
    """Photos as the network is to see them, and as they are."""

    y: Tensor  # (B,1,S,S) luma in [-1,1]
    x0: Tensor  # (B,2,S/s,S/s) true chroma
    features: Sequence[Tensor]  # what the encoder sees in y, (B,C,h,w) each


def learning_rate(peak: float, step: int, steps: int, warmup: int, anneal: bool = True) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to 0 at `steps`, or without `anneal` no fall."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    if not anneal:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def weight_groups(network: UNet) -> list[dict[str, Any]]:
    """The network's weights as an optimiser takes them: its own, and those of an encoder that learns along (see SHARES)."""
    encoder = list(network.encoder.parameters()) if network.encoder else []
    own = [weight for name, weight in network.named_parameters() if not name.startswith("encoder.")]
    return [{"params": weights} for weights in (own, encoder) if weights]


class Training:
    """Everything that changes while training, and nothing else; `state` and `restore` move all of it."""

    def __init__(self, config: Config, pack: DataSet) -> None:
        options = config.training
        self.config, self.pack = config, pack
        photos = pack.count("train")
        self.validation = pack.drawn("validation", config.data.validation_photos, options.seed)
        if not photos or not len(self.validation):
            missing = "validation" if photos else "training"
            raise PhotochromError(
                f"data set {pack.name!r} has no {missing} photos; import it again with more photos"
            )
        refuse_size(config, pack.size)
        if options.batch_size < processes.count():
            raise UsageError(
                f"batch size {options.batch_size} is below the number of processes, {processes.count()}: take a larger one"
            )
        processes.connect()
        self.precision = for_training(options.precision)
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(self.precision, self.precision),
            cpu=processes.count() > 1 and not torch.cuda.is_available(),  # or it would see one process
        )
        self.device = self.accelerator.device
        self.diffusion = Diffusion(config.diffusion)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.network = UNet(config.model).to(self.device)
        encoder = None if self.network.encoder else Encoder.of(config.model)
        self.encoder = encoder.to(self.device) if encoder else None
        self.kept: Kept | None = None
        self.begin_average()
        optimizer = torch.optim.AdamW(
            weight_groups(self.network), weight_decay=options.weight_decay, fused=True
        )
        # Not as for training: gradients of several processes are added up in `gradients`, when none is short of memory.
        self.model = self.accelerator.prepare_model(self.network, evaluation_mode=True)
        self.optimizer = self.accelerator.prepare(optimizer)
        side = pack.size // config.model.chroma_scale
        self.chroma_shape = (CHROMA_CHANNELS, side, side)
        per_epoch = config.data.photos_per_epoch or photos
        self.steps_per_epoch = math.ceil(per_epoch / options.batch_size)
        self.epoch = config.first_epoch  # how many are done
        self.step = self.step_in_epoch = 0
        self.sums: dict[str, list[float]] = {}  # of this epoch: name -> [sum, count]
        self.seconds = 0.0  # of this epoch
        self.best_val_loss, self.epochs_since_best = math.inf, 0
        self.history: list[dict[str, Any]] = []
        self.most_parts = options.batch_size // processes.count()  # of one photo each
        self.parts = min(options.accumulate, self.most_parts)
        # Parts add up their gradients, for which a graph has no room.
        replays = self.device.type == "cuda" and self.parts == 1 and not self.network.encoder
        self.replayed = Replayed(self.network, self.precision) if replays else None
        self.bad_batches = self.overflows = 0  # in a row
        self.notes: list[str] = []  # for the person who waits
        self.begin_stage()

    def begin_average(self) -> None:
        """Take the network as it is now for its average."""
        self.weights = list(self.network.parameters())  # to collect them takes a while, in every step
        self.averaged = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.averaged_weights = list(self.averaged.parameters())
        self.averages = 0  # steps that are in it

    @torch.no_grad()
    def average(self) -> None:
        """Exponential average with a decay of min(decay, (1 + n) / (10 + n)), so that the beginning is soon forgotten.

        Source: the `num_updates` rule of TensorFlow's ExponentialMovingAverage.
        """
        n = self.averages
        decay = min(self.config.training.ema_decay, (1 + n) / (10 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(self.averaged_weights, self.weights, n)
        self.averages += 1

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience with the last stage is at its end."""
        patience = self.config.training.patience if self.stage is self.config.stages[-1] else 0
        return self.epoch >= self.config.last_epoch or 0 < patience <= self.epochs_since_best

    def begin_stage(self, carried: dict[str, Any] | None = None) -> None:
        """Make the losses of the running epoch's stage, with the discriminator of `carried` (a loss_state_dict) if any.

        Each stage has its own validation loss, so the best of the stage before does not count in it.
        """
        begin = self.config.first_epoch
        for stage in self.config.stages:
            if self.epoch < begin + stage.epochs:
                break
            begin += stage.epochs
        else:
            begin -= stage.epochs
        self.stage, self.stage_begin = stage, begin
        self.losses = StageLoss(stage, self.config, self.device)
        self.teacher: Teacher | None = None
        if stage.distill:
            guidance = self.config.taught_guidance(stage)
            self.teacher = Teacher(self.averaged, self.diffusion, stage.distill, guidance)
        if carried:
            self.losses.restore(carried, Path(model_folder.LAST))
        if self.epoch == begin and self.step_in_epoch == 0:
            self.best_val_loss, self.epochs_since_best = math.inf, 0
            if self.teacher:
                # The student begins as its teacher, whose weights would stay in a long average for thousands of steps.
                self.network.load_state_dict(self.averaged.state_dict())
                self.averages = 0

    def batch(
        self, photos: Indices, flip: Tensor | None = None, aged: float = 0.0, look: bool = True
    ) -> Batch:
        """Luma (B,1,S,S) in [-1,1], chroma (B,2,S/s,S/s) and the encoder's features of photos.

        flip: which are mirrored, (B,); aged: share of them that are aged; look: whether features are asked for.
        """
        rgb = self.pack.rgb(photos).to(self.device)  # (B, 3, S, S)
        y, x0 = color.from_rgb(rgb, self.config.model.chroma_scale)
        x0 = mirrored(x0, flip)
        if self.kept:
            rows = photos if flip is None else photos + self.kept.count // 2 * flip.numpy()
            y, features = self.kept(rows)
            return Batch(y, x0, features)
        y = mirrored(aged_luma(rgb, y, photos, aged) if aged else y, flip)
        if self.config.model.encoded:
            y = color.in_levels((y + 1) / 2)  # so that it is the same training with features kept and without
        return Batch(y, x0, self.seen(y) if look else ())

    @torch.no_grad()
    def seen(self, y: Tensor) -> Sequence[Tensor]:
        """What the encoder sees in luma y, if there is one; of one that learns along, its average."""
        encoder = self.averaged.encoder or self.encoder
        with self.accelerator.autocast():
            return encoder(y) if encoder else ()

    @property
    def sees_anew(self) -> bool:
        """Whether the encoder learns in this stage: a student learns to see nothing."""
        return self.network.encoder is not None and self.teacher is None

    def time_steps(self, count: int, generator: torch.Generator) -> Tensor:
        """Time steps for `count` photos, (count,) int64: of all there are, or of those that a student is to take."""
        if self.teacher:
            return self.teacher.times(count, generator).to(self.device)
        return stratified_steps(count, self.config.diffusion.timesteps, generator).to(self.device)

    def taught(self, batch: Noisy) -> Noisy:
        """The batch with what the teacher says of it, if there is one."""
        return batch._replace(target=self.teacher.target(batch)) if self.teacher else batch

    def keep_features(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Have what the encoder sees in all photos on disk, then in all of them mirrored, if it has to be and can be.

        progress(done, total) counts photos; what it raises ends the work, which goes on there the next time.
        """
        pack, aged = self.pack, self.config.data.aged
        if (
            self.encoder is None
            or not self.encoder.worth_keeping
            or self.kept
            or not self.config.data.keep_features
            or not isinstance(pack, Pack)
        ):
            return  # what is in shards is too much to keep more of it
        count, learnt_from = len(pack.split), pack.split == "train"

        def compute(rows: Indices) -> tuple[Tensor, Sequence[Tensor]]:
            photos = rows % count
            rgb = pack.rgb(photos)
            y, _ = color.from_rgb(rgb)
            if aged:
                to_age = torch.from_numpy(learnt_from[photos])[:, None, None, None]
                y = torch.where(to_age, aged_luma(rgb, y, photos, aged), y)
            y = mirrored(y, torch.from_numpy(rows >= count))
            y = color.in_levels((y + 1) / 2).to(self.device)  # as it can be kept
            return y, self.seen(y)

        y, features = compute(np.arange(1))
        shapes = [tuple(each.shape[1:]) for each in (y, *features)]
        path = pack.folder / f"features-{feature_key(self.config, pack.checksum)}.bytes"
        try:
            with processes.first_before_others():
                rows = (1 + self.config.data.flip) * count
                self.kept = keep(path, shapes, rows, compute, progress, self.device)
        except OSError as error:
            self.notes.append(
                f"what the encoder sees cannot be kept in {path.parent} ({error.strerror}): it is computed in every step, "
                "which takes longer; free some space, or take --no-keep-features"
            )

    def train_step(self) -> dict[str, float]:
        """One step of the optimiser; returns every loss. Raises PhotochromError if a number is not finite."""
        options = self.config.training
        mine = slice(processes.number(), None, processes.count())  # this process's share of the batch
        generator = random_for(options.seed, 1, self.step)  # for the whole batch, in every process
        if self.config.model.dropout:
            # Dropout knows no other generator.
            torch.manual_seed(generator.initial_seed() ^ processes.number())
        photos = self.pack.photos_of_step(options.seed, self.step, options.batch_size, mine)
        flip = torch.rand(options.batch_size, generator=generator) < 0.5 if self.config.data.flip else None
        t = self.time_steps(options.batch_size, generator)
        eps = torch.randn((options.batch_size, *self.chroma_shape), generator=generator)[mine].to(self.device)
        flipped = None if flip is None else flip[mine]
        y, x0, features = self.batch(photos, flipped, self.config.data.aged, look=not self.sees_anew)
        sighted = torch.ones(len(photos), device=self.device)
        if self.config.drops_encoder and not self.teacher:
            kept = torch.rand(options.batch_size, generator=generator) >= options.encoder_dropout
            sighted *= kept[mine].to(self.device)
            features = [each * sighted[:, None, None, None] for each in features]
        xt, whole = self.diffusion.add_noise(x0, eps, t[mine]), self.losses.whole(t)
        whole = whole._replace(compared=whole.compared[mine])
        log = self.backward(Noisy(y, x0, eps, t[mine], xt, features, whole, sighted=sighted))
        log["gradient"] = float(self.accelerator.clip_grad_norm_(self.weights, options.clip))
        bad = [name for name, value in log.items() if not math.isfinite(value)]
        # With fp16 a gradient overflows now and then: its scaler skips the step and lowers the scale.
        overflow = bad == ["gradient"] and self.precision == "fp16" and self.overflows < OVERFLOWS
        if bad and not overflow:
            return self.without_this_batch(bad, photos)
        steps = self.stage.epochs * self.steps_per_epoch
        rate = learning_rate(
            options.learning_rate, self.step_in_stage, steps, options.warmup_steps, options.anneal
        )
        for group, share in zip(self.optimizer.param_groups, SHARES, strict=False):
            group["lr"] = share * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.learn()
        self.average()
        self.step += 1
        self.step_in_epoch += 1
        self.bad_batches, self.overflows = 0, self.overflows + 1 if overflow else 0
        for name, value in log.items():
            if math.isfinite(value):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = [total + value, count + 1]
        return log

    def backward(self, batch: Noisy) -> dict[str, float]:
        """Gradients of one batch, and its losses. If any process is short of memory, batches go through all in more parts."""
        try:
            return self.gradients(batch)
        except processes.Trouble:
            pass
        except (
            RuntimeError
        ) as error:  # torch.OutOfMemoryError is one; on a processor it is a plain RuntimeError
            if "memory" not in str(error).lower() or self.parts == self.most_parts:
                raise
            processes.meet(trouble=True)
        self.optimizer.zero_grad()
        self.losses.forget()
        self.parts = min(2 * self.parts, self.most_parts)
        self.replayed = None  # parts do without it, and its memory may be what lacks
        if self.kept:
            self.kept.give_way()
        self.notes.append(
            f"out of memory: batches go through in parts of {math.ceil(len(batch.t) / self.parts)}, "
            f"the batch size of {self.config.training.batch_size} is kept"
        )
        return self.backward(batch)

    def gradients(self, batch: Noisy) -> dict[str, float]:
        """Add up gradients and losses over parts and processes; a method of its own, so that failing frees its memory.

        The sums do not depend on the number of parts and processes, up to rounding. Two things do: dropout, and the
        discriminator's term, which is balanced in each part by itself.
        """
        logs = []
        for number in range(self.parts):
            part = batch.only(slice(number, None, self.parts))
            output = self.answer(part)
            with self.accelerator.autocast():
                part = self.taught(part)
            loss, log = self.losses(part, output, self.network.last_layer, self.step_in_stage)
            self.accelerator.backward(loss)
            if self.replayed:
                self.replayed.backward()
            logs.append(log)
        learnt = [weight.grad for weight in self.weights if weight.grad is not None]
        processes.add_up([*learnt, *self.losses.gradients()])
        sums = torch.tensor([sum(log[name] for log in logs) for name in log], dtype=torch.float64)
        log = dict(zip(log, processes.total(sums.to(processes.connect())).tolist(), strict=True))
        if taught := self.losses.gradients():
            log["discriminator_gradient"] = nn.utils.get_total_norm(taught).item()
        return log

    def answer(self, batch: Noisy) -> Tensor:
        """What the network says of a batch, (B,2,h,w), to be differentiated."""
        features = batch.features
        if self.sees_anew and self.network.encoder and batch.sighted is not None:
            with self.accelerator.autocast():
                features = [
                    each * batch.sighted[:, None, None, None] for each in self.network.encoder(batch.y)
                ]
        seen = (batch.xt, batch.t, batch.y, features)
        trunk = self.replayed.forward(*seen) if self.replayed else None
        with self.accelerator.autocast():
            return (self.model(*seen) if trunk is None else self.network.head(trunk)).float()

    def without_this_batch(self, bad: list[str], photos: Indices) -> dict[str, float]:
        """Leave out a batch whose numbers are not finite, once; raises PhotochromError at the second in a row."""
        self.optimizer.zero_grad()
        self.losses.forget()
        if self.accelerator.scaler:
            self.accelerator.scaler.update()  # or it would refuse to look at the next gradient
        self.bad_batches += 1
        origins = ", ".join(self.pack.origins(photos[:3]))
        said = (
            f"step {self.step}: {', '.join(bad)} not finite; the step was not taken (photos {origins}, ...)"
        )
        if self.bad_batches > 1:
            raise PhotochromError(
                f"{said}; twice in a row: the last good checkpoint is kept, go on from it by --from and a lower --learning-rate"
            )
        self.notes.append(f"{said}; going on with the next batch")
        self.step += 1
        return self.train_step()

    @property
    def step_in_stage(self) -> int:
        """Steps that this stage has taken."""
        return (self.epoch - self.stage_begin) * self.steps_per_epoch + self.step_in_epoch

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights over fixed photos, time steps and noise, so that two epochs compare."""
        generator = random_for(self.config.training.seed, 2)
        count = len(self.validation)
        t = self.time_steps(count, generator)
        found: dict[int, dict[str, Tensor]] = {}
        for number, start in enumerate(range(0, count, VALIDATION_BATCH)):
            part = slice(start, min(start + VALIDATION_BATCH, count))
            eps = torch.randn((part.stop - start, *self.chroma_shape), generator=generator).to(self.device)
            if number % processes.count() != processes.number():
                continue
            y, x0, features = self.batch(self.validation[part])
            xt = self.diffusion.add_noise(x0, eps, t[part])
            with self.accelerator.autocast():
                output = self.averaged(xt, t[part], y, features)
                batch = self.taught(Noisy(y, x0, eps, t[part], xt, features))
            terms = self.losses.validation(batch, output.float())
            found[number] = {name: values.cpu() for name, values in terms.items()}
        everywhere = {number: terms for share in processes.gather(found) for number, terms in share.items()}
        batches = [everywhere[number] for number in sorted(everywhere)]
        names = dict.fromkeys(name for terms in batches for name in terms)
        return {
            name: torch.cat([terms[name] for terms in batches if name in terms]).mean().item()
            for name in names
        }

    def sheet(self) -> tuple[Image.Image, dict[str, Any]]:
        """Gray, coloured (by the averaged weights) and true, for the same validation photos in every epoch.

        Returns the picture, and how colourful the samples are beside the true photos: `colorfulness` (Hasler &
        Suesstrunk) and `spread`, the standard deviation over photos of their mean chroma.
        """
        y, x0, features = self.batch(self.validation[:SHEET_PHOTOS])
        generators = [random_for(self.config.training.seed, 3, i) for i in range(len(y))]
        steps, guidance = self.config.steps_after(self.stage), self.config.guidance_after(self.stage)
        c = sample(self.averaged, self.diffusion, y, generators, steps, features=features, guidance=guidance)
        columns = {
            "gray": pictures.to_images(y, torch.zeros_like(x0)),
            "coloured": pictures.to_images(y, c),
            "true": pictures.to_images(y, x0),
        }
        measured: dict[str, dict[str, float]] = {"colorfulness": {}, "spread": {}}
        for name, photos, chroma in (("samples", columns["coloured"], c), ("data", columns["true"], x0)):
            rgb = np.stack([np.asarray(photo) for photo in photos]) / 255
            measured["colorfulness"][name] = float(colorfulness(rgb).mean())
            measured["spread"][name] = chroma.mean(dim=(2, 3)).std(dim=0, correction=0).mean().item()
        return pictures.sheet(columns, across=2), measured

    def end_epoch(self) -> dict[str, Any]:
        """Validate, write down the epoch, and begin the next one, in its stage."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        val = self.validate()
        if bad := [name for name, value in val.items() if not math.isfinite(value)]:
            raise PhotochromError(
                f"epoch {self.epoch + 1}: validation {', '.join(bad)} not finite; the last good checkpoint is kept, "
                f"go on from it by --from and a lower --learning-rate"
            )
        weights = {"noise": self.stage.noise, "perceptual": self.stage.perceptual}
        photos = self.step_in_epoch * self.config.training.batch_size
        record = {
            "epoch": self.epoch + 1,
            "stage": self.stage.label,
            "stage_began": self.stage_begin + 1,
            "train_loss": means.pop("loss"),
            "val_loss": sum(weights[name] * value for name, value in val.items()),
            **{f"val_{name}": value for name, value in val.items()},
            **means,
            "weights": weights | {"adversarial": self.stage.adversarial if self.stage.use_gan else 0.0},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "device": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else self.device.type,
            "precision": self.precision,
            "photos": photos,
            "seconds": round(self.seconds, 2),
            "photos_per_second": round(photos / self.seconds, 2),
            "memory_mb": memory_mb(self.device),
        }
        self.history.append(record)
        better = record["val_loss"] < self.best_val_loss
        self.best_val_loss = min(self.best_val_loss, record["val_loss"])
        self.epochs_since_best = 0 if better else self.epochs_since_best + 1
        self.epoch += 1
        self.step_in_epoch, self.sums, self.seconds = 0, {}, 0.0
        return record

    def state(self) -> dict[str, Any]:
        """A checkpoint: all that the training needs to go on, and all that using the model needs."""
        last = self.history[-1] if self.history else {"train_loss": None, "val_loss": None}
        return {
            "format": 1,
            "config": self.config.model_dump(mode="json"),
            **{name: getattr(self, name) for name in COUNTERS},
            "model_state_dict": self.network.state_dict(),
            "ema_state_dict": self.averaged.state_dict(),
            "ema_updates": self.averages,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "loss_state_dict": self.losses.state(),
            "teacher_state_dict": self.teacher.network.state_dict() if self.teacher else None,
            "scaler_state_dict": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
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
        self.averages = state["ema_updates"]
        if "optimizer_state_dict" in state:
            self.optimizer.load_state_dict(state["optimizer_state_dict"])
        if self.accelerator.scaler and state.get("scaler_state_dict"):
            self.accelerator.scaler.load_state_dict(state["scaler_state_dict"])
        for name in state.keys() & COUNTERS:
            setattr(self, name, state[name])
        if anew:
            self.step_in_epoch, self.sums, self.seconds = 0, {}, 0.0
        self.begin_stage(state.get("loss_state_dict"))
        if self.teacher and self.step_in_stage:
            model_folder.load_tensors(self.teacher.network, state["teacher_state_dict"], origin)


def mirrored(photos: Tensor, which: Tensor | None) -> Tensor:
    """Photos (B,C,H,W), left and right exchanged in those of which `which` (B,) says so."""
    if which is None:
        return photos
    return torch.where(which.to(photos.device)[:, None, None, None], photos.flip(-1), photos)


def memory_mb(device: torch.device) -> int:
    """The most memory that this process has held so far, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) >> 20  # what graphs hold between replays included
    import resource  # not on Windows, where nobody has asked yet

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def feature_key(config: Config, checksum: str) -> str:
    """What kept features depend on, in a few letters: the encoder, its layers, the photos, and what is done to them."""
    model, data = config.model, config.data
    parts = ("luma", SHA256, model.encoder, list(model.encoded.values()), checksum, data.aged, data.flip)
    return hashlib.blake2b(repr(parts).encode(), digest_size=4).hexdigest()
