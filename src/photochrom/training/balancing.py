"""How much weight the discriminator gets: its gradient becomes as long as that of all other terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from photochrom import processes

LARGEST = 1e4  # for lambda
DELTA = 1e-6


def balance(
    gradients: Mapping[str, Tensor], weights: Mapping[str, float], output: Tensor, last_layer: Tensor
) -> tuple[float, float]:
    """Compare the gradients of all terms at the network's last layer, summed over processes.

    gradients: of each term with respect to the output, one of them "noise"; weights: of each term. Returns
    two numbers. First the length of the weighted "perceptual" gradient, divided by that of "noise" (nan
    without "perceptual"). Second

        lambda = ||grad of all other terms|| / (||grad L_G|| + delta),

    a factor for the weight of "adversarial" (1 without it). Source: Esser et al. 2021 (VQGAN), equation 7.
    """
    own = [
        weights[name] * torch.autograd.grad(output, last_layer, gradient, retain_graph=True)[0]
        for name, gradient in gradients.items()
    ]
    summed = dict(zip(gradients, processes.total(torch.stack(own)), strict=True))
    ratio, factor = float("nan"), 1.0
    if "perceptual" in summed:
        ratio = (summed["perceptual"].norm() / (summed["noise"].norm() + 1e-12)).item()
    if "adversarial" in summed:
        adversarial = summed.pop("adversarial").norm() / weights["adversarial"]
        others = torch.stack(list(summed.values())).sum(dim=0).norm()
        factor = min((others / (adversarial + DELTA)).item(), LARGEST)
    return ratio, factor
