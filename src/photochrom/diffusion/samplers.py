"""The samplers, which turn noise into chroma. Each is its paper's equation.

A sampler is a pure function of a predictor of x0, the initial noise, the path of noise levels, and a source
of further noise. In the papers' notation, xt = alpha x0 + sigma eps, with alpha = sqrt(alpha_bar) and sigma =
sqrt(1 - alpha_bar).
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
    """A noise level on the path: the step t for the network, and its alpha_bar."""

    t: int
    alpha_bar: float

    @property
    def alpha(self) -> float:
        """The factor on x0."""
        return math.sqrt(self.alpha_bar)

    @property
    def sigma(self) -> float:
        """The factor on the noise."""
        return math.sqrt(1 - self.alpha_bar)

    @property
    def log_snr(self) -> float:
        """lambda = log(alpha / sigma): minus infinity for pure noise, infinity for the clean photo."""
        if self.alpha_bar in (0, 1):
            return math.inf if self.alpha_bar else -math.inf
        return math.log(self.alpha / self.sigma)


CLEAN = Level(-1, 1.0)
Predict = Callable[[Tensor, int], Tensor]  # (xt, t) -> x0, all (B,2,h,w)
Noise = Callable[[], Tensor]  # gives fresh noise (B,2,h,w)
Sampler = Callable[[Predict, Tensor, Sequence[Level], Noise], Tensor]


def levels(alpha_bar: Sequence[float], steps: int) -> list[Level]:
    """`steps` evenly spaced levels, beginning at the last of `alpha_bar`, then CLEAN.

    This "trailing" spacing is the only one that begins at pure noise. Source: Lin et al. 2024, section 3.3
    and table 2.
    """
    timesteps = len(alpha_bar)
    times = [round(timesteps - k * timesteps / steps) - 1 for k in range(steps)]
    return [*(Level(t, alpha_bar[t]) for t in times), CLEAN]


def ddim(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Deterministic: keeps the same noise. Source: Song et al. 2021 (DDIM), equation 12 with sigma_t = 0."""
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        eps = (xt - now.alpha * x0) / now.sigma
        xt = then.alpha * x0 + then.sigma * eps
    return xt


def ddpm(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Ancestral: adds fresh noise in every step. Source: Ho et al. 2020 (DDPM), equations 6 and 7.

    The paper's alpha_t is now.alpha_bar / then.alpha_bar.
    """
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        alpha = now.alpha_bar / then.alpha_bar
        left = (1 - then.alpha_bar) / (1 - now.alpha_bar)  # share of the noise variance that remains
        xt = then.alpha * (1 - alpha) / (1 - now.alpha_bar) * x0 + math.sqrt(alpha) * left * xt
        if then is not CLEAN:
            xt = xt + math.sqrt(left * (1 - alpha)) * noise()
    return xt


def dpm_solver_pp(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Second order: extrapolates x0. Source: Lu et al. 2022 (DPM-Solver++), algorithm 2 (2M).

    The first and the last step are of first order: the first has no level before it, the last is infinitely
    long in lambda.
    """
    x0_before: Tensor | None = None
    h_before = math.inf
    for now, then in pairwise(path):
        x0 = predict(xt, now.t)
        h = then.log_snr - now.log_snr
        d = x0  # D in the paper
        if x0_before is not None and then is not CLEAN:
            d = x0 + h / h_before / 2 * (x0 - x0_before)  # h / h_before is 1 / r, and 0 after pure noise
        exp_minus_h = now.alpha * then.sigma / (now.sigma * then.alpha)  # finite even if h is not
        xt = then.sigma / now.sigma * xt + then.alpha * (1 - exp_minus_h) * d
        x0_before, h_before = x0, h
    return xt


def unipc(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Second order: predictor and corrector. Source: Zhao et al. 2023 (UniPC), algorithms 1 and 2.

    It predicts x0, with B(h) = 1 - exp(-h). The predictor is DPM-Solver++ (2M). The network's next prediction
    also corrects the step before it, which costs no further evaluation. The first and the last step are of
    first order; the last is not corrected.
    """
    first_order, x0_before, slope = xt, torch.zeros_like(xt), torch.zeros_like(xt)
    b_h, weights, h_before = 0.0, (0.0, 0.0), math.inf
    for number, (now, then) in enumerate(pairwise(path)):
        x0 = predict(xt, now.t)
        xt = first_order + now.alpha * b_h * (weights[0] * slope + weights[1] * (x0 - x0_before))
        h = then.log_snr - now.log_snr
        b_h = 1 - now.alpha * then.sigma / (now.sigma * then.alpha)  # finite even if h is not
        first_order = then.sigma / now.sigma * xt + then.alpha * b_h * x0
        if number == 0 or then is CLEAN:
            slope, weights = torch.zeros_like(xt), (0.0, 0.5)
        else:
            slope = h / h_before * (x0 - x0_before)  # D1 / r1
            weights = _corrector(h, -h_before / h)
        xt = first_order + then.alpha * b_h / 2 * slope
        x0_before, h_before = x0, h
    return xt


def _corrector(h: float, r: float) -> tuple[float, float]:
    """The corrector's weights a1, a2 of the differences at r and at 1 (in units of h), exact to second order.

    They solve a1 + a2 = b1 and r a1 + a2 = b2. Source: Zhao et al. 2023, equation 4.
    """
    shrunk = math.expm1(-h)
    phi = shrunk / -h - 1
    b1, b2 = phi / shrunk, 2 * (phi / -h - 0.5) / shrunk
    before = (b2 - b1) / (r - 1)
    return before, b1 - before


SAMPLERS: dict[SamplerName, Sampler] = {"ddim": ddim, "ddpm": ddpm, "dpm++": dpm_solver_pp, "unipc": unipc}
