"""Baseline (a): direct regression. The same network predicts chroma at once, without noise or steps.

It learns the mean of all colours that a photo may have had, and always gives the same answer (Zhang, Isola &
Efros 2016, section 2, says why that is sepia).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import Config
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import CHROMA_CHANNELS
from photochrom.evaluation.candidates import given_luma
from photochrom.training.backward import Backward
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training


def guess(network: nn.Module, y: Tensor, scale: int) -> Tensor:
    """Chroma (B,2,H/s,W/s) of luma y (B,1,H,W) in one evaluation, with noisy chroma 0 at time step 0."""
    xt = y.new_zeros(len(y), CHROMA_CHANNELS, y.shape[-2] // scale, y.shape[-1] // scale)
    chroma: Tensor = network(xt, torch.zeros(len(y), dtype=torch.long, device=y.device), y)
    return chroma


class Distance(Backward):
    """The loss ||c_hat - c||^2."""

    def gradients(self, batch: Noisy, *_: object) -> dict[str, float]:
        """Gradients of one batch. Ignores noise and time steps."""
        with self.arithmetic.autocast():
            c_hat = guess(self.network, batch.y, self.network.config.chroma_scale).float()
        loss = F.mse_loss(c_hat, batch.x0)
        torch.autograd.backward(loss)
        return {"loss": loss.item()}


class Regression(Training):
    """The package's training with another loss."""

    title = "regression"

    def __init__(self, config: Config, pack: Pack) -> None:
        super().__init__(config, pack)
        self.backward = Distance(
            self.network, self.arithmetic, config.training, self.workers, self.inputs.free_memory
        )

    @torch.inference_mode()
    def paint(self, rgb: Tensor, seeds: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """See `PhotochromV1.paint`. Ignores seeds and steps."""
        y = given_luma(rgb)
        return y, guess(self.averaged, y.to(self.device), self.config.model.chroma_scale).cpu()
