"""Fewer steps: a student learns to go in one step as far as its teacher goes in STRIDE.

Source: Salimans & Ho 2022, section 3 and appendix G. They halve the steps round by round; we divide them by
STRIDE at once.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from photochrom.config import STRIDE
from photochrom.diffusion.diffusion import Diffusion, guided_x0
from photochrom.diffusion.samplers import levels
from photochrom.randomness import stratified_steps
from photochrom.training.noisy import Noisy


class Teacher:
    """A guided copy of the network as it is now, which a student of `steps` time steps learns from.

    The student then needs no second evaluation for guidance. Source: Meng et al. 2023, section 3.
    """

    def __init__(self, network: nn.Module, diffusion: Diffusion, steps: int, guidance: float = 1.0) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.diffusion, self.guidance = diffusion, guidance
        path = levels(diffusion.alpha_bar.tolist(), STRIDE * steps)
        device = next(network.parameters()).device
        self.t = torch.tensor([level.t for level in path], device=device)  # (STRIDE * steps + 1,)
        self.alpha = torch.tensor([level.alpha for level in path], device=device)
        self.sigma = torch.tensor([level.sigma for level in path], device=device)
        self.student_t = self.t[:-1:STRIDE].cpu()  # (steps,)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Time steps of the student for `count` photos, (count,) int64; each occurs equally often."""
        return self.student_t[stratified_steps(count, len(self.student_t), generator)]

    @torch.no_grad()
    def target(self, batch: Noisy) -> Tensor:
        """What the student should predict, (B,2,h,w), to go in one DDIM step as far as the teacher in STRIDE.

        The time steps of `batch` must come from `times`. One DDIM step goes from xt to xs = alpha_s x0 +
        sigma_s eps, where eps = (xt - alpha_t x0) / sigma_t. Solved for x0 (Salimans & Ho 2022, appendix G):

            x0 = (xs - sigma_s / sigma_t xt) / (alpha_s - sigma_s / sigma_t alpha_t).
        """
        first = (self.t == batch.t[:, None]).int().argmax(dim=1)  # (B,) places in the teacher's path
        places = first + torch.arange(STRIDE + 1, device=first.device)[:, None]  # (STRIDE + 1, B)
        alpha, sigma = (each[places][..., None, None, None] for each in (self.alpha, self.sigma))
        xs = batch.xt
        for k, k_then in pairwise(range(STRIDE + 1)):
            t = self.t[places[k]]
            x0 = guided_x0(self.network, self.diffusion, xs, t, batch.y, batch.features, self.guidance)
            eps = (xs - alpha[k] * x0) / sigma[k]
            xs = alpha[k_then] * x0 + sigma[k_then] * eps
        ratio = sigma[STRIDE] / sigma[0]
        x0 = (xs - ratio * batch.xt) / (alpha[STRIDE] - ratio * alpha[0])
        return self.diffusion.target(x0, (batch.xt - alpha[0] * x0) / sigma[0], batch.t)
