"""The averaged weights: what a training is judged by, and what colours in the end."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from photochrom.diffusion.unet import UNet


class Average:
    """An exponential average of a network's weights over the steps of its training."""

    def __init__(self, network: UNet, decay: float) -> None:
        """Begin with the weights as they are now. decay: per step, once the beginning is forgotten."""
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0
        # To collect them takes a while, and every step needs them.
        self._averaged, self._current = list(self.network.parameters()), list(network.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights in, with a decay of min(decay, (1 + n) / (10 + n)) after n updates.

        Source: the `num_updates` rule of TensorFlow's ExponentialMovingAverage, which soon forgets the beginning.
        """
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(self._averaged, self._current, n)
        self.updates += 1
