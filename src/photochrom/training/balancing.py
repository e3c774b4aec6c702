"""How much the discriminator may say: its gradient becomes as long as that of all other terms."""

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
    """Compare what each term asks of the network's last layer, in all processes together.

    gradients: of each term with respect to the output, among them "noise"; weights: of each term.
    Returns how long the weighted gradient of "perceptual" is beside that of "noise" (nan without it), and

        lambda = ||grad of all other terms|| / (||grad L_G|| + delta),

    by which to multiply the weight of "adversarial" (1 without it). Source: Esser et al. 2021 (VQGAN), equation 7.
    """
    own = [
        weights[name] * torch.autograd.grad(output, last_layer, gradient, retain_graph=True)[0]
        for name, gradient in gradients.items()
    ]
    asked = dict(zip(gradients, processes.total(torch.stack(own)), strict=True))
    ratio, factor = float("nan"), 1.0
    if "perceptual" in asked:
        ratio = (asked["perceptual"].norm() / (asked["noise"].norm() + 1e-12)).item()
    if "adversarial" in asked:
        adversarial = asked.pop("adversarial").norm() / weights["adversarial"]
        others = torch.stack(list(asked.values())).sum(dim=0).norm()
        factor = min((others / (adversarial + DELTA)).item(), LARGEST)
    return ratio, factor
