"""How much the discriminator may say: by hand, for a layer whose gradient has a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from photochrom.training.balancing import LARGEST, balance

WEIGHTS = {"noise": 0.7, "perceptual": 0.3, "adversarial": 0.02}


def layer() -> tuple[Tensor, Tensor, Tensor]:
    """What goes in, x (5,3), the layer's weights (2,3), and what comes out, x W^T (5,2)."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(2, 3, requires_grad=True)
    return x, weight, x @ weight.T


def asked(*names: str) -> dict[str, Tensor]:
    """Gradients of these terms with respect to the output."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(5, 2, generator=generator) for name in names}


def test_it_is_the_ratio_of_the_gradients_lengths_at_the_last_layer() -> None:
    x, weight, output = layer()
    gradients = asked("noise", "perceptual", "adversarial")
    ratio, factor = balance(gradients, WEIGHTS, output, weight)
    at_layer = {name: gradient.T @ x for name, gradient in gradients.items()}
    noise, perceptual = (WEIGHTS[name] * at_layer[name] for name in ("noise", "perceptual"))
    assert ratio == pytest.approx((perceptual.norm() / noise.norm()).item(), rel=1e-5)
    expected = (noise + perceptual).norm() / at_layer["adversarial"].norm()
    assert factor == pytest.approx(expected.item(), rel=1e-4)


def test_a_term_that_is_missing_has_no_say() -> None:
    x, weight, output = layer()
    ratio, factor = balance(gradients := asked("noise", "adversarial"), WEIGHTS, output, weight)
    assert math.isnan(ratio)
    noise, adversarial = (gradient.T @ x for gradient in gradients.values())
    assert factor == pytest.approx((0.7 * noise.norm() / adversarial.norm()).item(), rel=1e-4)
    ratio, factor = balance(asked("noise", "perceptual"), WEIGHTS, output, weight)
    assert ratio > 0
    assert factor == 1.0


def test_a_discriminator_that_says_nothing_is_not_blown_up_without_limit() -> None:
    _, weight, output = layer()
    gradients = asked("noise") | {"adversarial": torch.full((5, 2), 1e-12)}
    assert balance(gradients, WEIGHTS, output, weight)[1] == LARGEST
