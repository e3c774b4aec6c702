"""PatchGAN: its shape, its loss, and how it learns beside the network that it judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom.config import Config
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError
from photochrom.randomness import random_for
from photochrom.training.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from tests.training.making import Values, network_of, noisy, stage_loss, with_stage


def test_hinge_loss_by_hand() -> None:
    true, coloured = torch.tensor([[2.0, 0.5, -1.0]]), torch.tensor([[-3.0, -0.5, 1.0, 0.0]])
    # (0 + 0.5 + 2) / 3 and (0 + 0.5 + 2 + 1) / 4
    assert discriminator_loss(true, coloured).item() == pytest.approx((2.5 / 3 + 3.5 / 4) / 2)
    assert generator_loss(coloured).item() == pytest.approx(2.5 / 4)
    assert discriminator_loss(torch.full((1, 4), 1.0), torch.full((1, 4), -1.0)).item() == 0
    two = torch.cat([coloured, coloured + 3])  # one number for each photo
    assert generator_loss(two).tolist() == pytest.approx([2.5 / 4, 2.5 / 4 - 3])


@pytest.mark.parametrize(("height", "width"), [(12, 12), (16, 16), (32, 32), (64, 48)])
def test_one_score_for_each_patch(height: int, width: int) -> None:
    scores = PatchDiscriminator(8)(torch.zeros(2, 1, height, width), torch.zeros(2, 3, height, width))
    assert scores.shape == (2, 1, height // 4 - 2, width // 4 - 2)


def test_a_score_sees_34_pixels() -> None:
    discriminator = PatchDiscriminator(8).eval()
    rgb = torch.rand(1, 3, 80, 80, generator=random_for(0)).requires_grad_()
    y = torch.rand(1, 1, 80, 80, generator=random_for(1)).requires_grad_()
    scores = discriminator(y, rgb)
    for gradient in torch.autograd.grad(scores[0, 0, 9, 8], (y, rgb)):
        seen = gradient.abs().amax(dim=(0, 1)) > 0  # (80, 80)
        for axis in (0, 1):
            places = seen.any(dim=axis).nonzero()[:, 0]
            assert places[-1] - places[0] + 1 == 34
            assert len(places) == 34


def test_its_layers_are_spectrally_normalised() -> None:
    """Once the power iteration has settled, the largest singular value of every layer (as a matrix) is 1."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    for _ in range(300):
        discriminator(torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 16, 16))
    for layer in discriminator.layers[::2]:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)  # type: ignore[operator]
        assert largest.item() == pytest.approx(1, abs=1e-2)


def gan_stage(values: Values, delay: int = 0) -> Config:
    return with_stage(values, perceptual=0.0, gan=True, gan_delay=delay, perceptual_share=1.0)


def test_its_steps_lower_its_loss(pack: Pack, values: Values) -> None:
    config = gan_stage(values, delay=100)
    loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
    logs = []
    for step in range(12):
        logs.append(loss(batch, network(batch.xt, batch.t, batch.y), network.last_layer, step)[1])
        loss.learn()
    found = [log["discriminator"] for log in logs]
    assert found[1] < found[0]
    assert found[-1] < 0.9 * found[0]
    assert (
        logs[-1]["accuracy_true"] + logs[-1]["accuracy_coloured"]
        > logs[0]["accuracy_true"] + logs[0]["accuracy_coloured"]
    )


def test_it_learns_alone_at_first(pack: Pack, values: Values) -> None:
    config = gan_stage(values, delay=3)
    loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
    assert loss.discriminator is not None
    for step in range(5):
        kernels = [weight for weight in loss.discriminator.network.parameters() if weight.ndim > 1]
        before = [weight.detach().clone() for weight in kernels]
        output = network(batch.xt, batch.t, batch.y)
        surrogate, log = loss(batch, output, network.last_layer, step)
        assert log.keys() >= {"discriminator", "accuracy_true", "accuracy_coloured"}
        assert ("adversarial" in log) == ("weighted_adversarial" in log) == (step >= 3)
        loss.learn()
        assert not any(map(torch.equal, kernels, before))
        (found,) = torch.autograd.grad(surrogate, output, retain_graph=True)
        (of_noise,) = torch.autograd.grad(
            F.mse_loss(output, loss.diffusion.target(batch.x0, batch.eps, batch.t)), output
        )
        assert torch.allclose(found, of_noise, rtol=1e-5, atol=1e-9) == (step < 3)


def test_colouring_better_does_not_teach_it(pack: Pack, values: Values) -> None:
    """Weights and gradients are the same whether the network listens to it or not."""
    seen = []
    for delay in (0, 100):
        config = gan_stage(values, delay)
        loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
        surrogate, log = loss(batch, network(batch.xt, batch.t, batch.y), network.last_layer, 0)
        assert ("adversarial" in log) == (delay == 0)
        surrogate.backward()
        assert loss.discriminator is not None
        weights = list(loss.discriminator.network.parameters())
        assert all(weight.requires_grad for weight in weights)
        seen.append([tensor for weight in weights for tensor in (weight.detach(), weight.grad)])
    assert all(
        theirs is not None and ours is not None and torch.equal(theirs, ours)
        for theirs, ours in zip(*seen, strict=True)
    )


def test_it_takes_no_step_that_is_not_wanted(pack: Pack, values: Values) -> None:
    """What is not a number shows in its loss and gradient; forgotten, it leaves no trace."""
    config = gan_stage(values)
    loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
    assert loss.discriminator is not None
    before = [weight.detach().clone() for weight in loss.discriminator.network.parameters()]
    output = network(batch.xt, batch.t, batch.y) * torch.nan
    _, log = loss(batch, output, network.last_layer, 1)
    assert np.isnan([log["discriminator"], torch.nn.utils.get_total_norm(loss.gradients()).item()]).all()
    loss.clear_gradients()
    loss.learn()
    assert all(map(torch.equal, loss.discriminator.network.parameters(), before))


def test_it_begins_as_the_seed_says_and_leaves_the_generator_alone(values: Values) -> None:
    def weights(config: Config) -> list[Tensor]:
        discriminator = stage_loss(config).discriminator
        assert discriminator is not None
        return list(discriminator.network.parameters())

    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = weights(gan_stage(values))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert all(map(torch.equal, first, weights(gan_stage(values))))
    values["training"]["seed"] = 1
    assert not any(map(torch.equal, first[1::2], weights(gan_stage(values))[1::2]))


def test_another_discriminators_checkpoint_is_told(pack: Pack, values: Values) -> None:
    loss = stage_loss(gan_stage(values))
    state = loss.state()
    key = next(key for key in state["discriminator_state_dict"] if key.endswith("_u"))
    del state["discriminator_state_dict"][key]
    with pytest.raises(PhotochromError, match=rf"last_model\.pth has no '{key}'"):
        loss.restore(state, Path("last_model.pth"))
