"""The diffusion process: noise schedules, adding noise to chroma, predicting x0, and drawing chroma.

Notation of Ho et al. 2020 (DDPM): xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps, with t in 0..T-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from photochrom.config import DiffusionConfig, ModelConfig, SamplerName
from photochrom.diffusion.color import LARGEST_CHROMA
from photochrom.diffusion.samplers import SAMPLERS, levels
from photochrom.diffusion.unet import CHROMA_CHANNELS
from photochrom.errors import UsageError


def linear_betas(timesteps: int) -> Tensor:
    """Betas (T,) from 1e-4 to 0.02 for T = 1000, scaled to the same total noise for other T.

    Source: Ho et al. 2020, section 4.
    """
    scale = 1000 / timesteps
    return torch.linspace(1e-4 * scale, 0.02 * scale, timesteps, dtype=torch.float64).clamp(max=0.999)


def cosine_betas(timesteps: int) -> Tensor:
    """Betas (T,) of alpha_bar = cos^2(pi/2 (t/T + 0.008) / 1.008), at most 0.999.

    Source: Nichol & Dhariwal 2021, equation 17.
    """
    u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def with_zero_terminal_snr(betas: Tensor) -> Tensor:
    """Rescale sqrt(alpha_bar) so that the last step is pure noise. Source: Lin et al. 2024, algorithm 1."""
    root = (1 - betas).cumprod(0).sqrt()
    alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


class Diffusion:
    """A noise schedule and its formulas, without weights or state."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        betas = {"linear": linear_betas, "cosine": cosine_betas}[config.schedule](config.timesteps)
        self.betas = with_zero_terminal_snr(betas) if config.zero_terminal_snr else betas  # (T,) float64
        self.alpha_bar = (1 - self.betas).cumprod(0)  # (T,) float64
        self._tables: dict[torch.device, Tensor] = {}

    def _table(self, device: torch.device) -> Tensor:
        """alpha_bar, sqrt(alpha_bar) and sqrt(1 - alpha_bar), (3,T) float32, cached per device.

        With a table on the GPU, no step waits for the GPU to send its time steps to the CPU.
        """
        if device not in self._tables:
            rows = (self.alpha_bar, self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt())
            self._tables[device] = torch.stack(rows).float().to(device)  # float32 first: MPS has no float64
        return self._tables[device]

    def signal_share(self, t: Tensor) -> Tensor:
        """alpha_bar at steps t (B,), as (B,) float32 on t's device."""
        return self._table(t.device)[0][t]

    def _roots(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar) at steps t (B,), as (B,1,1,1) float32 on t's device."""
        _, signal, noise = self._table(t.device)
        return signal[t][:, None, None, None], noise[t][:, None, None, None]

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """xt of x0 (B,2,h,w), noise eps (B,2,h,w) and steps t (B,). Source: Ho et al. 2020, equation 4."""
        signal, noise = self._roots(t)
        return signal * x0 + noise * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The target of the network (B,2,h,w): eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0.

        Source of v: Salimans & Ho 2022, section 4 and appendix D.
        """
        if self.config.prediction == "epsilon":
            return eps
        signal, noise = self._roots(t)
        return signal * eps - noise * x0

    def predict_x0(self, xt: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean chroma x0 (B,2,h,w) that the network's output at step t implies.

        For v: x0 = sqrt(alpha_bar) xt - sqrt(1 - alpha_bar) v. For eps: x0 = (xt - sqrt(1 - alpha_bar) eps) /
        sqrt(alpha_bar).
        """
        signal, noise = self._roots(t)
        if self.config.prediction == "epsilon":
            return (xt - noise * output) / signal
        return signal * xt - noise * output


def noise_like(y: Tensor, scale: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw x_T (B,2,H/scale,W/scale) on y's device, with one generator per photo.

    So a photo's noise does not depend on the other photos of its batch.
    """
    shape = (CHROMA_CHANNELS, y.shape[-2] // scale, y.shape[-1] // scale)
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(y.device)


class KnownChroma(NamedTuple):
    """Chroma that is known at some pixels: c (1,2,h,w), and weight (1,1,h,w) from 0 (free) to 1 (held).

    Every step replaces the network's x0 there, so that xt contains the known chroma with noise; the network
    sees it and fits the rest to it. RePaint (Lugmayr et al. 2022, equation 8) adds fresh noise to the known
    part. Keeping the sampler's own noise also works for deterministic samplers, and does not change colours
    far away. RePaint's jumps back in time would spread a hint farther, but change the whole photo, at ten
    times the cost.
    """

    c: Tensor
    weight: Tensor

    def over(self, x0: Tensor) -> Tensor:
        """Blend the known chroma over x0 (B,2,h,w)."""
        return torch.lerp(x0, self.c.to(x0.device), self.weight.to(x0.device))


class Network(Protocol):
    """A network that predicts v or eps, such as `UNet` (see its `forward`) or its ONNX version."""

    config: ModelConfig

    def __call__(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ..., /) -> Tensor: ...


def guided_x0(
    network: Callable[..., Tensor],
    diffusion: Diffusion,
    xt: Tensor,
    t: Tensor,
    y: Tensor,
    features: Sequence[Tensor] = (),
    guidance: float = 1.0,
) -> Tensor:
    """Predict clean chroma x0 (B,2,h,w) with classifier-free guidance on the encoder.

    x0 = blind + guidance (seeing - blind), where `blind` is the prediction without the encoder's features. 1
    is plain prediction, without a second evaluation. Source: Ho & Salimans 2022, equation 6, with guidance =
    1 + w.
    """
    x0 = diffusion.predict_x0(xt, network(xt, t, y, features).float(), t)
    if guidance != 1:
        blind = network(xt, t, y, [torch.zeros_like(each) for each in features]).float()
        x0 = torch.lerp(diffusion.predict_x0(xt, blind, t), x0, guidance)
    return x0.clamp(-LARGEST_CHROMA, LARGEST_CHROMA)


@torch.inference_mode()
def sample(
    network: Network,
    diffusion: Diffusion,
    y: Tensor,
    generators: Sequence[torch.Generator],
    steps: int = 20,
    sampler: SamplerName = "ddim",
    callback: Callable[[int, Tensor], None] | None = None,
    *,
    temperature: float = 1.0,
    held: KnownChroma | None = None,
    features: Sequence[Tensor] = (),
    guidance: float = 1.0,
) -> Tensor:
    """Draw chroma (B,2,H/s,W/s) for luma y (B,1,H,W) in [-1,1].

    s is the network's chroma scale. generators: one CPU generator per photo. callback(step, x0) is called
    after each of the `steps` steps, with the predicted chroma; an exception in it ends the sampling.
    temperature: factor on x_T; not for "ddpm", which draws more noise in every step. held: see `KnownChroma`.
    features: the encoder's maps of y, if the network has an encoder. guidance: see `guided_x0`; any value but
    1 takes two evaluations per step. Raises UsageError for more steps than the schedule has.
    """
    timesteps = diffusion.config.timesteps
    if not 1 <= steps <= timesteps:
        raise UsageError(
            f"{steps} sampling steps: this model was trained with {timesteps}; take 1 to {timesteps}"
        )
    numbers = count()

    def predict(xt: Tensor, t: int) -> Tensor:
        ts = torch.tensor([t], device=y.device)  # (1,), the same for all photos
        x0 = guided_x0(network, diffusion, xt, ts, y, features, guidance)
        if held:
            x0 = held.over(x0)
        if callback:
            callback(next(numbers), x0)
        return x0

    def noise() -> Tensor:
        return noise_like(y, network.config.chroma_scale, generators)

    path = levels(diffusion.alpha_bar.tolist(), steps)
    return SAMPLERS[sampler](predict, temperature * noise(), path, noise)
