"""Samplers: the ways from noise to chroma, each its paper's equation.

A sampler is a pure function of what predicts x0, the first noise and the path; noise that it needs on the way it asks for.
In the papers' notation, xt = alpha x0 + sigma eps with alpha = sqrt(alpha_bar) and sigma = sqrt(1 - alpha_bar).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from photochrom.config import SamplerName


class Level(NamedTuple):
    """A place on the path: the step t that the network is told, and how much of the photo is there."""

    t: int
    alpha_bar: float

    @property
    def alpha(self) -> float:
        """What x0 is multiplied by."""
        return math.sqrt(self.alpha_bar)

    @property
    def sigma(self) -> float:
        """What the noise is multiplied by."""
        return math.sqrt(1 - self.alpha_bar)

    @property
    def log_snr(self) -> float:
        """lambda = log(alpha / sigma): minus infinity for pure noise, infinity for the clean photo."""
        if self.alpha_bar in (0, 1):
            return math.inf if self.alpha_bar else -math.inf
        return math.log(self.alpha / self.sigma)


CLEAN = Level(-1, 1.0)
Predict = Callable[[Tensor, int], Tensor]  # (xt, t) -> x0, all (B,2,h,w)
Noise = Callable[[], Tensor]  # -> fresh noise (B,2,h,w)
Sampler = Callable[[Predict, Tensor, Sequence[Level], Noise], Tensor]


def levels(alpha_bar: Sequence[float], steps: int) -> list[Level]:
    """`steps` levels with even spacing that begin at the last one of `alpha_bar`, and CLEAN after them.

    Trailing spacing, the only one that begins with pure noise. Source: Lin et al. 2024, section 3.3 and table 2.
    """
    timesteps = len(alpha_bar)
    times = [round(timesteps - k * timesteps / steps) - 1 for k in range(steps)]
    return [*(Level(t, alpha_bar[t]) for t in times), CLEAN]


def ddim(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Source: Song et al. 2021 (DDIM), equation 12 with sigma_t = 0: the same noise all the way."""
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        eps = (xt - now.alpha * x0) / now.sigma
        xt = then.alpha * x0 + then.sigma * eps
    return xt


def ddpm(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Source: Ho et al. 2020 (DDPM), equations 6 and 7, where alpha_t is now.alpha_bar / then.alpha_bar: fresh noise."""
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        alpha = now.alpha_bar / then.alpha_bar
        left = (1 - then.alpha_bar) / (1 - now.alpha_bar)  # share of the noise that the next level has
        xt = then.alpha * (1 - alpha) / (1 - now.alpha_bar) * x0 + math.sqrt(alpha) * left * xt
        if then is not CLEAN:
            xt = xt + math.sqrt(left * (1 - alpha)) * noise()
    return xt


def dpm_solver_pp(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Source: Lu et al. 2022 (DPM-Solver++), algorithm 2 (2M): x0 goes on as it went from the level before to this one.

    The first step has no level before it. The last is of first order as well: its length in lambda is infinite.
    """
    before: Tensor | None = None
    length_before = math.inf
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        length = then.log_snr - now.log_snr  # h in the paper
        ahead = x0
        if before is not None and then is not CLEAN:
            ahead = x0 + length / length_before / 2 * (
                x0 - before
            )  # 1 / (2 r), 0 after a step from pure noise
        shrink = now.alpha * then.sigma / (now.sigma * then.alpha)  # exp(-h), without its infinities
        xt = then.sigma / now.sigma * xt + then.alpha * (1 - shrink) * ahead
        before, length_before = x0, length
    return xt


def unipc(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Source: Zhao et al. 2023 (UniPC), algorithms 1 and 2, of order 2, predicting x0, with B(h) = 1 - exp(-h).

    Its prediction is DPM-Solver++ (2M). The network's answer there then corrects the step that led there, without another
    evaluation. The first step is of first order, and so is the last, which is not corrected.
    """
    straight, before, slope = xt, torch.zeros_like(xt), torch.zeros_like(xt)
    grown, weights, length_before = 0.0, (0.0, 0.0), math.inf
    for number, (now, then) in enumerate(pairwise(path)):
        x0 = predict(xt, now.t)
        xt = straight + now.alpha * grown * (weights[0] * slope + weights[1] * (x0 - before))
        length = then.log_snr - now.log_snr  # h in the paper
        grown = 1 - now.alpha * then.sigma / (now.sigma * then.alpha)  # B(h), without its infinities
        straight = then.sigma / now.sigma * xt + then.alpha * grown * x0
        if number == 0 or then is CLEAN:
            slope, weights = torch.zeros_like(xt), (0.0, 0.5)
        else:
            slope = length / length_before * (x0 - before)  # D1 / r1
            weights = _corrector(length, -length_before / length)
        xt = straight + then.alpha * grown / 2 * slope
        before, length_before = x0, length
    return xt


def _corrector(h: float, r: float) -> tuple[float, float]:
    """The weights of the differences at r and at 1, in units of h, that make UniC exact to second order.

    They solve a1 + a2 = b1 and r a1 + a2 = b2 (Zhao et al. 2023, equation 4).
    """
    shrunk = math.expm1(-h)
    phi = shrunk / -h - 1
    b1, b2 = phi / shrunk, 2 * (phi / -h - 0.5) / shrunk
    before = (b2 - b1) / (r - 1)
    return before, b1 - before


SAMPLERS: dict[SamplerName, Sampler] = {"ddim": ddim, "ddpm": ddpm, "dpm++": dpm_solver_pp, "unipc": unipc}
