"""The averaged weights: validation measures them, and colouring uses them."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from photochrom.diffusion.unet import UNet


class Average:
    """Exponential moving average (EMA) of a network's weights over its training steps."""

    def __init__(self, network: UNet, decay: float) -> None:
        """Start from the current weights. decay: per step, once the first updates are past."""
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0
        # Collected once: it takes a while, and every step needs them.
        self._averaged, self._current = list(self.network.parameters()), list(network.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Average the current weights in, with decay min(decay, (1 + n) / (10 + n)) after n updates.

        Source: `num_updates` in TensorFlow's ExponentialMovingAverage. The average soon forgets its first
        weights.
        """
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(self._averaged, self._current, n)
        self.updates += 1
