"""The averaged weights: the formula they follow."""

from __future__ import annotations

import torch
from torch import Tensor

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.training.average import Average
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.workers import Workers
from tests.training.making import Values


def test_averaged_weights_follow_the_formula(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    expected: list[Tensor] = []
    for n in range(6):
        train_step(training)
        weights = [weight.detach().clone() for weight in training.network.parameters()]
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        expected = [
            decay * old + (1 - decay) * new for old, new in zip(expected or weights, weights, strict=True)
        ]
    for found, wanted in zip(training.averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_it_has_weights_of_its_own_that_no_step_changes(values: Values) -> None:
    values["model"]["dropout"] = 0.2
    network = UNet(build(values).model)
    before = [weight.detach().clone() for weight in network.parameters()]
    average = Average(network, 0.9, Workers(1))
    assert not any(weight.requires_grad for weight in average.network.parameters())
    assert not any(module.training for module in average.network.modules())
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    assert all(map(torch.equal, average.network.parameters(), before))
    average.update()
    assert all(map(torch.equal, average.network.parameters(), network.parameters()))
