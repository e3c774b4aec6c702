"""What each step learns from: which photos, at which time steps, with which noise.

All of it is a function of (seed, step), so nothing here has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.unet import CHROMA_CHANNELS
from photochrom.randomness import Indices, random_for, stratified_steps
from photochrom.training.distillation import Teacher
from photochrom.training.inputs import Inputs
from photochrom.training.losses import StageLoss
from photochrom.training.noisy import Noisy

VALIDATION_BATCH = 64


class Batches:
    """Draws the batches of training steps and of validation."""

    def __init__(self, config: Config, pack: DataSet, diffusion: Diffusion, inputs: Inputs) -> None:
        self.config, self.pack, self.diffusion, self.inputs = config, pack, diffusion, inputs
        self.device = inputs.device
        self.channels = CHROMA_CHANNELS
        self.validation = pack.drawn("validation", config.data.validation_photos, config.training.seed)

    def of_step(self, step: int, losses: StageLoss, teacher: Teacher | None) -> tuple[Indices, Noisy]:
        """This process's share of a step's batch: the numbers of its photos, and the photos with their noise.

        A photo occurs `draws` times in a row, each time with another time step and noise. Every process
        draws for the whole batch, so the result does not depend on the number of processes.
        """
        options, sides = self.config.training, self.config.data.sides
        side = sides[step % len(sides)] if sides else None
        mine = slice(processes.number(), None, processes.count())
        generator = random_for(options.seed, 1, step)
        if self.config.model.dropout:
            # Dropout takes no generator of its own.
            torch.manual_seed(generator.initial_seed() ^ processes.number())
        photos = self.pack.photos_of_step(options.seed, step, options.batch_size, mine)
        count = options.batch_size * options.draws
        drawn = torch.arange(count).view(-1, options.draws)[mine].flatten()  # this process's, photo by photo
        flip = None
        if self.config.data.flip:
            flip = torch.rand(options.batch_size, generator=generator)[mine] < 0.5
        t = self.times(count, generator, teacher)
        whole = losses.whole(t)
        whole = whole._replace(compared=whole.compared[drawn].to(self.device))
        t = t[drawn].to(self.device)
        eps = self.noise(count, side or self.pack.size, generator)[drawn].to(self.device)
        # Distillation does not train the encoder.
        trains_encoder = self.inputs.trained_encoder is not None and not teacher
        y, x0, features = self.inputs.of(
            photos, flip, self.config.data.aged, encode=not trains_encoder, side=side
        )
        y, x0, *features = (each.repeat_interleave(options.draws, dim=0) for each in (y, x0, *features))
        feature_mask = torch.ones(len(drawn), device=self.device)
        if self.config.drops_encoder and not teacher:
            keep = torch.rand(count, generator=generator) >= options.encoder_dropout
            feature_mask *= keep[drawn].to(self.device)
            features = [each * feature_mask[:, None, None, None] for each in features]
        batch = Noisy(y, x0, eps, t, self.diffusion.add_noise(x0, eps, t), features, whole)
        return photos, batch._replace(feature_mask=feature_mask) if trains_encoder else batch

    def of_validation(self, teacher: Teacher | None) -> Iterator[tuple[int, Noisy]]:
        """This process's share of the validation batches, each with its number.

        Photos, time steps and noise are the same in every epoch.
        """
        generator = random_for(self.config.training.seed, 2)
        count = len(self.validation)
        t = self.times(count, generator, teacher).to(self.device)
        for number, start in enumerate(range(0, count, VALIDATION_BATCH)):
            part = slice(start, min(start + VALIDATION_BATCH, count))
            eps = self.noise(part.stop - start, self.pack.size, generator).to(self.device)
            if number % processes.count() == processes.number():
                y, x0, features = self.inputs.of(self.validation[part])
                xt = self.diffusion.add_noise(x0, eps, t[part])
                yield number, Noisy(y, x0, eps, t[part], xt, features)

    def noise(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Noise for the chroma of `count` photos of `side` pixels."""
        side //= self.config.model.chroma_scale
        return torch.randn((count, self.channels, side, side), generator=generator)

    def times(self, count: int, generator: torch.Generator, teacher: Teacher | None) -> Tensor:
        """Time steps for `count` photos, (count,) int64.

        With a teacher, only those that its student takes.
        """
        if teacher:
            return teacher.times(count, generator)
        return stratified_steps(count, self.config.diffusion.timesteps, generator)
