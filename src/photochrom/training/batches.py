"""The photos of a training as its network sees them, with their noise: functions of (seed, step), so nothing here changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import CHROMA_CHANNELS
from photochrom.precision import Arithmetic
from photochrom.randomness import Indices, random_for, stratified_steps
from photochrom.training.aging import aged_luma
from photochrom.training.average import Average
from photochrom.training.distillation import Teacher
from photochrom.training.features import KeptFeatures, feature_key, keep
from photochrom.training.losses import StageLoss
from photochrom.training.noisy import Noisy
from photochrom.training.workers import Workers

VALIDATION_BATCH = 64


class Batch(NamedTuple):
    """Photos as the network is to see them, and as they are."""

    y: Tensor  # (B,1,S,S) luma in [-1,1]
    x0: Tensor  # (B,2,S/s,S/s) true chroma
    features: Sequence[Tensor]  # what the encoder sees in y, (B,C,h,w) each


class Batches:
    """What each step learns from, and what each validation looks at."""

    def __init__(
        self,
        config: Config,
        pack: DataSet,
        diffusion: Diffusion,
        arithmetic: Arithmetic,
        average: Average,
        workers: Workers,
    ) -> None:
        """average: of the network, whose encoder is the one to ask if it learns along."""
        self.config, self.pack, self.diffusion, self.arithmetic = config, pack, diffusion, arithmetic
        self.device, self.workers = arithmetic.device, workers
        self.learning_encoder = average.network.encoder
        encoder = None if self.learning_encoder else Encoder.of(config.model)
        self.encoder = encoder.to(self.device) if encoder else None
        self.kept: KeptFeatures | None = None
        self.validation = pack.drawn("validation", config.data.validation_photos, config.training.seed)
        side = pack.size // config.model.chroma_scale
        self.chroma_shape: tuple[int, ...] = (CHROMA_CHANNELS, side, side)

    def photos(
        self, photos: Indices, flip: Tensor | None = None, aged: float = 0.0, look: bool = True
    ) -> Batch:
        """Luma (B,1,S,S) in [-1,1], chroma (B,2,S/s,S/s) and the encoder's features of B photos.

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
            y = color.in_levels((y + 1) / 2)  # as kept features have it, so that it is the same training
        return Batch(y, x0, self.seen(y) if look else ())

    def seen(self, y: Tensor) -> Sequence[Tensor]:
        """What the encoder sees in luma y, if there is one; of one that learns along, its average."""
        encoder = self.learning_encoder or self.encoder
        if not encoder:
            return ()

        @torch.no_grad()
        def see(part: slice) -> list[Tensor]:
            with self.arithmetic.autocast():
                found: list[Tensor] = encoder(y[part])
            return found

        parts = self.workers.map(see, self.workers.slices(len(y)))
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def of_step(self, step: int, losses: StageLoss, teacher: Teacher | None) -> tuple[Indices, Noisy]:
        """This process's share of a step's photos: their numbers, and what the network learns from.

        Every process draws for the whole batch, so that their number changes nothing.
        """
        options = self.config.training
        mine = slice(processes.number(), None, processes.count())
        generator = random_for(options.seed, 1, step)
        if self.config.model.dropout:
            # Dropout knows no other generator.
            torch.manual_seed(generator.initial_seed() ^ processes.number())
        photos = self.pack.photos_of_step(options.seed, step, options.batch_size, mine)
        flip = torch.rand(options.batch_size, generator=generator) < 0.5 if self.config.data.flip else None
        t = self.times(options.batch_size, generator, teacher)
        whole = losses.whole(t)
        eps = torch.randn((options.batch_size, *self.chroma_shape), generator=generator)[mine].to(self.device)
        learns_to_see = self.learning_encoder is not None and not teacher  # a student learns to see nothing
        flipped = None if flip is None else flip[mine]
        y, x0, features = self.photos(photos, flipped, self.config.data.aged, look=not learns_to_see)
        sighted = torch.ones(len(photos), device=self.device)
        if self.config.drops_encoder and not teacher:
            kept = torch.rand(options.batch_size, generator=generator) >= options.encoder_dropout
            sighted *= kept[mine].to(self.device)
            features = [each * sighted[:, None, None, None] for each in features]
        whole = whole._replace(compared=whole.compared[mine].to(self.device))
        t = t[mine].to(self.device)
        batch = Noisy(y, x0, eps, t, self.diffusion.add_noise(x0, eps, t), features, whole)
        return photos, batch._replace(sighted=sighted) if learns_to_see else batch

    def of_validation(self, teacher: Teacher | None) -> Iterator[tuple[int, Noisy]]:
        """This process's share of the validation's batches, each with its place; photos, steps and noise are always the same."""
        generator = random_for(self.config.training.seed, 2)
        count = len(self.validation)
        t = self.times(count, generator, teacher).to(self.device)
        for place, start in enumerate(range(0, count, VALIDATION_BATCH)):
            part = slice(start, min(start + VALIDATION_BATCH, count))
            eps = torch.randn((part.stop - start, *self.chroma_shape), generator=generator).to(self.device)
            if place % processes.count() == processes.number():
                y, x0, features = self.photos(self.validation[part])
                xt = self.diffusion.add_noise(x0, eps, t[part])
                yield place, Noisy(y, x0, eps, t[part], xt, features)

    def times(self, count: int, generator: torch.Generator, teacher: Teacher | None) -> Tensor:
        """Time steps for `count` photos, (count,) int64: of all there are, or of those that a student takes."""
        if teacher:
            return teacher.times(count, generator)
        return stratified_steps(count, self.config.diffusion.timesteps, generator)

    def give_way(self) -> None:
        """Give back the GPU's memory that kept features hold."""
        if self.kept:
            self.kept.give_way()

    def keep_features(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Keep on disk what the encoder sees in all photos, then in all of them mirrored; returns what hinders it.

        Does nothing where that is not wanted. progress(done, total) counts photos; what it raises ends the work, which goes
        on there the next time.
        """
        pack, aged = self.pack, self.config.data.aged
        wanted = self.encoder and self.encoder.worth_keeping and self.config.data.keep_features
        if not wanted or self.kept or not isinstance(pack, Pack):
            return []  # of shards there is too much to keep more of it
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
            return [
                f"what the encoder sees cannot be kept in {path.parent} ({error.strerror}): it is computed in every step, "
                "which takes longer; free some space, or take --no-keep-features"
            ]
        return []


def mirrored(photos: Tensor, which: Tensor | None) -> Tensor:
    """Photos (B,C,H,W), left and right exchanged in those of which `which` (B,) says so."""
    if which is None:
        return photos
    return torch.where(which.to(photos.device)[:, None, None, None], photos.flip(-1), photos)
