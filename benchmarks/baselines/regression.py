"""Baseline (a): direct regression. The same network says the chroma outright, without noise and without steps.

What it learns is the mean of all colours that a photo may have had (Zhang, Isola & Efros 2016, section 2, on why that is
sepia), and it always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.diffusion.unet import CHROMA_CHANNELS
from photochrom.evaluation.candidates import given_luma
from photochrom.training.losses import Noisy
from photochrom.training.training import Training


def guess(network: nn.Module, y: Tensor, scale: int) -> Tensor:
    """Chroma (B,2,H/s,W/s) of luma y (B,1,H,W) in one go: noisy chroma is zero and the time step is 0, always."""
    xt = y.new_zeros(len(y), CHROMA_CHANNELS, y.shape[-2] // scale, y.shape[-1] // scale)
    chroma: Tensor = network(xt, torch.zeros(len(y), dtype=torch.long, device=y.device), y)
    return chroma


class Regression(Training):
    """The package's training, but for the loss: ||c_hat - c||^2."""

    title = "regression"

    def gradients(self, batch: Noisy) -> dict[str, float]:
        """Gradients of one batch; its noise and time steps are not looked at."""
        with self.accelerator.autocast():
            c_hat = guess(self.model, batch.y, self.config.model.chroma_scale).float()
        loss = F.mse_loss(c_hat, batch.x0)
        self.accelerator.backward(loss)
        return {"loss": loss.item()}

    @torch.inference_mode()
    def paint(self, rgb: Tensor, seeds: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """See `photochrom.subjects.Subject`; seeds and steps change nothing."""
        y = given_luma(rgb)
        return y, guess(self.averaged, y.to(self.device), self.config.model.chroma_scale).cpu()
