"""How fast each weight learns: groups of weights, and the learning rate of a step."""

from __future__ import annotations

import math

import torch

from photochrom.config import TrainingConfig
from photochrom.diffusion.unet import UNet

SHARES = (1.0, 0.1)
"""Shares of the learning rate: of the network's own weights, and of an encoder that trains with it."""


def optimizer_of(network: UNet, options: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the network's weights, in a group for each of SHARES that has any."""
    encoder = list(network.encoder.parameters()) if network.encoder else []
    own = [weight for name, weight in network.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": weights} for weights in (own, encoder) if weights]
    return torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of the rate. Without an encoder that trains there is only the first."""
    groups = optimizer.param_groups
    for group, share in zip(groups, SHARES[: len(groups)], strict=True):
        group["lr"] = share * rate


def learning_rate(peak: float, step: int, steps: int, warmup: int, anneal: bool = True) -> float:
    """The rate of a stage's step: a linear rise over `warmup` steps, then half a cosine down to 0 at `steps`.

    The rise takes a tenth of the steps at most. Without `anneal` the rate stays at its peak.
    """
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    if not anneal:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
