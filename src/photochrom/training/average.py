"""The averaged weights: validation measures them, and colouring uses them."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from photochrom.diffusion.unet import UNet
from photochrom.training.workers import Workers


class Average:
    """Exponential moving average (EMA) of a network's weights over its training steps."""

    def __init__(self, network: UNet, decay: float, workers: Workers) -> None:
        """Start from the current weights.

        decay: per step, once the first updates are past. workers: share the work of an update.
        """
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0
        # Collected once: it takes a while, and every step needs them.
        pairs = list(zip(self.network.parameters(), network.parameters(), strict=True))
        shares = workers.shares([current for _, current in pairs])
        self._shares = [[pairs[place] for place in share] for share in shares]
        self._workers = workers

    @torch.no_grad()
    def update(self) -> None:
        """Average the current weights in, with decay min(decay, (1 + n) / (10 + n)) after n updates.

        Source: `num_updates` in TensorFlow's ExponentialMovingAverage. The average soon forgets its first
        weights.
        """
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        average = get_ema_multi_avg_fn(decay)
        list(self._workers.map(lambda share: average(*zip(*share, strict=True), n), self._shares))
        self.updates += 1
