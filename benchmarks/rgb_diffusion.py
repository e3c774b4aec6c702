"""Baseline (b): classic diffusion of RGB.

Predicts the noise on three colour channels at full size, given gray. Source: Ho et al. 2020 (noise
prediction, linear betas over 1,000 steps), conditioned by concatenation as in Saharia et al. 2022 (Palette).
The model makes its own luma, and is measured with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from photochrom.config import Config, DiffusionConfig
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation.candidates import given_luma
from photochrom.training.average import Average
from photochrom.training.backward import Backward
from photochrom.training.batches import Batches
from photochrom.training.inputs import Inputs, Photos
from photochrom.training.state import Training


def classic(config: Config) -> Config:
    """The configuration with classic noise, and colour at full size."""
    diffusion = DiffusionConfig.model_validate({"prediction": "epsilon", "schedule": "linear"})
    model = config.model.model_copy(update={"chroma_scale": 1})
    return config.model_copy(update={"model": model, "diffusion": diffusion})


class RgbInputs(Inputs):
    """Photos with RGB in the place of chroma."""

    def of(self, *given: Any, **named: Any) -> Photos:
        """Luma (B,1,S,S) and RGB (B,3,S,S), both in [-1,1]."""
        y, c, features = super().of(*given, **named)  # at full size
        return Photos(y, 2 * color.to_rgb(y, c) - 1, features)


class RgbDiffusion(Training):
    """The package's training with noise on RGB."""

    title = "RGB diffusion"

    def __init__(self, config: Config, pack: Pack) -> None:
        super().__init__(classic(config), pack)
        options, width = config.training, config.model.features[0]
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.network.stem = nn.Conv2d(3 + 1, width, 3, padding=1)
            self.network.head[-1] = nn.Conv2d(width, 3, 3, padding=1)
        for weight in self.network.head[-1].parameters():
            nn.init.zeros_(weight)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, options.ema_decay, self.workers)
        weights = self.network.parameters()
        self.optimizer = torch.optim.AdamW(weights, weight_decay=options.weight_decay, fused=True)
        self.inputs = RgbInputs(self.config, pack, self.arithmetic, self.workers, self.averaged.encoder)
        self.batches = Batches(self.config, pack, self.diffusion, self.inputs)
        self.batches.channels = 3
        self.backward = Backward(
            self.network, self.arithmetic, options, self.workers, self.inputs.free_memory
        )

    @torch.inference_mode()
    def paint(self, rgb: Tensor, seeds: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """See `PhotochromV1.paint`: DDIM from noise of each photo's own seed. Luma is the model's own."""
        y = given_luma(rgb).to(self.device)
        scheduler = DDIMScheduler(
            num_train_timesteps=self.diffusion.config.timesteps,
            trained_betas=self.diffusion.betas.tolist(),
            timestep_spacing="trailing",
            clip_sample=True,  # to [-1, 1]
        )
        scheduler.set_timesteps(steps)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        xt = torch.stack([torch.randn(3, *y.shape[-2:], generator=g) for g in generators]).to(self.device)
        for t in scheduler.timesteps:
            output = self.averaged(xt, t.expand(len(y)).to(self.device), y)
            xt = scheduler.step(output, t, xt).prev_sample
        y, c = color.from_rgb((xt.clamp(-1, 1).cpu() + 1) / 2)
        return y, c
