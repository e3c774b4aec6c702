"""What a stage's network is told: perceptual loss, discriminator, and how the terms are put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.vgg16 import VGG16
from photochrom.randomness import random_for
from photochrom.training import losses
from photochrom.training.losses import COMPARED, PerceptualLoss, StageLoss, lift_shadows
from photochrom.training.noisy import Noisy
from tests.training.making import network_of, noisy, stage_loss, with_stage

Values = dict[str, Any]


pytestmark = pytest.mark.usefixtures("one_vgg")


# --- Perceptual loss ----------------------------------------------------------------------------------------


def test_identical_pictures_have_no_distance(vgg: VGG16, rgb: Tensor) -> None:
    perceptual = PerceptualLoss(vgg)
    assert torch.equal(perceptual(rgb, rgb), torch.zeros(4))
    assert (perceptual(rgb.roll(1, dims=0), rgb) > 0.1).all()


def test_the_distance_is_the_sum_of_the_layers_relative_ones(vgg: VGG16, rgb: Tensor) -> None:
    other = rgb.flip(-1)
    found, true = vgg(other), vgg(rgb)
    layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    for photo, value in enumerate(PerceptualLoss(vgg)(other, rgb)):
        relative = [
            (
                torch.linalg.norm(found[layer][photo] - true[layer][photo])
                / torch.linalg.norm(true[layer][photo])
            )
            for layer in layers
        ]
        assert value.item() == pytest.approx(sum(float(part) ** 2 for part in relative), rel=1e-4)


@pytest.mark.parametrize("layer", COMPARED)
def test_no_layer_outweighs_the_others(
    layer: str, vgg: VGG16, rgb: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PerceptualLoss(vgg)(rgb.flip(-1), rgb)
    forward = vgg.forward

    def louder(x: Tensor, last: str) -> dict[str, Tensor]:
        return {name: 1000 * f if name == layer else f for name, f in forward(x, last).items()}

    monkeypatch.setattr(vgg, "forward", louder)
    torch.testing.assert_close(PerceptualLoss(vgg)(rgb.flip(-1), rgb), expected)


@pytest.mark.parametrize("layer", COMPARED)
@pytest.mark.parametrize("photo", ["colourful", "black", "white"])
def test_every_layer_reaches_the_output(
    layer: str, photo: str, vgg: VGG16, rgb: Tensor, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself, for nearly every pixel of both channels, also where a clamp would have no gradient."""
    monkeypatch.setattr(losses, "COMPARED", (layer,))
    config = with_stage(values, chroma_scale=2)
    photos = {"black": torch.zeros_like(rgb), "white": torch.ones_like(rgb)}.get(photo, rgb)
    y, x0 = color.from_rgb(photos, 2)
    t = torch.tensor([25, 33, 41, 49])
    eps = torch.randn(x0.shape, generator=random_for(1))
    loss = stage_loss(config)
    batch = Noisy(y, x0, eps, t, loss.diffusion.add_noise(x0, eps, t))
    output = torch.randn(x0.shape, generator=random_for(2)).requires_grad_()
    _, rgb_hat, true = loss.colours(batch, output)
    (gradient,) = torch.autograd.grad(PerceptualLoss(vgg)(rgb_hat, true).sum(), output)
    assert gradient.isfinite().all()
    assert ((gradient != 0).float().mean(dim=(2, 3)) > 0.9).all()


def test_neither_vgg_nor_the_target_learns(vgg: VGG16, rgb: Tensor) -> None:
    found, target = rgb.flip(-1).requires_grad_(), rgb.clone().requires_grad_()
    before = {key: value.clone() for key, value in vgg.state_dict().items()}
    PerceptualLoss(vgg)(found, target).sum().backward()
    assert found.grad is not None
    assert target.grad is None
    assert all(weight.grad is None and not weight.requires_grad for weight in vgg.parameters())
    assert all(torch.equal(value, before[key]) for key, value in vgg.state_dict().items())


# --- Which photos, and how much -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "share", "expected"),
    [
        (0.5, 1.0, [0, 3, 4, 6]),  # t >= 25
        (0.5, 0.25, [0, 3]),  # a quarter of eight
        (0.5, 0.3, [0, 3, 4]),  # rounded up
        (0.0, 1.0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.98, 1.0, [3]),  # t >= 49
    ],
)
def test_colours_are_compared_at_high_noise(
    gate: float, share: float, expected: list[int], values: Values
) -> None:
    loss = stage_loss(with_stage(values, perceptual_from=gate))
    t = torch.tensor([25, 24, 0, 49, 30, 10, 41, 3])
    assert loss.chosen(t, share).tolist() == expected
    assert loss.chosen(t - 50).tolist() == []


def test_trust_in_v_is_whole_and_in_epsilon_alpha_bar(values: Values) -> None:
    t = torch.tensor([0, 20, 49])
    assert stage_loss(with_stage(values)).trust(t).tolist() == [1, 1, 1]
    loss = stage_loss(with_stage(values, prediction="epsilon"))
    trust = loss.trust(t).tolist()
    assert trust == pytest.approx(loss.diffusion.alpha_bar[t].tolist(), rel=1e-6)
    assert trust[0] > 0.99
    assert 0.1 < trust[1] < 0.9
    assert 0 < trust[2] < 0.01


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_only_photos_beyond_the_gate_are_told_more_than_the_noise(
    prediction: str, pack: Pack, values: Values
) -> None:
    config = with_stage(values, prediction=prediction, perceptual_from=0.5, perceptual_share=1.0)
    batch = noisy(pack, config, [1, 26, 8, 31, 16, 36, 23, 41])
    network = network_of(config)
    output = network(batch.xt, batch.t, batch.y)
    loss = stage_loss(config)
    surrogate, _ = loss(batch, output, network.last_layer, 0)
    (gradient,) = torch.autograd.grad(surrogate, output, retain_graph=True)
    (of_noise,) = torch.autograd.grad(
        F.mse_loss(output, loss.diffusion.target(batch.x0, batch.eps, batch.t)), output
    )
    more = (gradient - of_noise).abs().amax(dim=(1, 2, 3))
    assert (more[::2] == 0).all()
    assert (more[1::2] > 0).all()


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_validation_shows_each_photo_with_its_weight(
    prediction: str, vgg: VGG16, pack: Pack, values: Values
) -> None:
    """All photos beyond the gate, whatever share of them the training looks at."""
    config = with_stage(values, prediction=prediction, perceptual_share=0.1)
    loss, batch = stage_loss(config), noisy(pack, config, [1, 8, 16, 23, 26, 31, 36, 41])
    output = torch.randn(batch.x0.shape, generator=random_for(3))
    found = loss.validation(batch, output)
    target = loss.diffusion.target(batch.x0, batch.eps, batch.t)
    assert found["noise"].tolist() == pytest.approx(
        [F.mse_loss(*pair).item() for pair in zip(output, target, strict=True)]
    )
    x0_hat = loss.diffusion.predict_x0(batch.xt, output, batch.t)
    rgb_hat, rgb = (lift_shadows(color.to_rgb(batch.y, chroma), batch.y) for chroma in (x0_hat, batch.x0))
    distance = PerceptualLoss(vgg)(rgb_hat, rgb)[4:]
    weight = loss.diffusion.alpha_bar[batch.t[4:]].float() if prediction == "epsilon" else torch.ones(4)
    torch.testing.assert_close(found["perceptual"], weight * distance, rtol=1e-4, atol=1e-6)


def test_colours_are_compared_at_chromas_size(pack: Pack, values: Values) -> None:
    config = with_stage(values, chroma_scale=2)
    loss, batch = stage_loss(config), noisy(pack, config)
    v = loss.diffusion.target(batch.x0, batch.eps, batch.t)
    luma, rgb_hat, rgb = loss.colours(batch, v)
    small = F.avg_pool2d(pack.rgb(range(8)), 2)
    torch.testing.assert_close(luma, 2 * color.luma(small) - 1, atol=1e-5, rtol=0)
    lit = small / (color.luma(small) + 0.05)
    torch.testing.assert_close(rgb, lit, atol=2e-4, rtol=0)
    torch.testing.assert_close(rgb_hat, lit, atol=2e-3, rtol=0)  # the right v stands for the right colours


def test_tints_in_the_dark_are_seen_with_shadows_lifted(vgg: VGG16, rgb: Tensor) -> None:
    """In a photo at a tenth of its light, lifting makes a tint at least three times as visible to VGG16."""
    dark = rgb / 10
    tint = torch.tensor([0.03, -0.03 * 0.299 / 0.587, 0.0])[:, None, None]  # red, of no luma
    y = 2 * color.luma(dark) - 1
    torch.testing.assert_close(color.luma(dark + tint), color.luma(dark), atol=1e-6, rtol=0)
    perceptual = PerceptualLoss(vgg)
    seen = perceptual(lift_shadows(dark + tint, y), lift_shadows(dark, y))
    assert (seen > 3 * perceptual(dark + tint, dark)).all()


def test_lifting_keeps_hue_and_is_by_hand() -> None:
    rgb = torch.tensor([[0.1, 0.02, 0.01], [0.9, 0.9, 0.9]]).T[None, :, None]  # (1, 3, 1, 2)
    lit = lift_shadows(rgb, 2 * color.luma(rgb) - 1)[0, :, 0]
    luma = 0.299 * 0.1 + 0.587 * 0.02 + 0.114 * 0.01
    torch.testing.assert_close(lit[:, 0], torch.tensor([0.1, 0.02, 0.01]) / (luma + 0.05))
    torch.testing.assert_close(lit[:, 1], torch.full((3,), 0.9 / 0.95))


# --- The combined loss --------------------------------------------------------------------------------------


def parts(loss: StageLoss, batch: Noisy, output: Tensor) -> dict[str, Tensor]:
    """The terms, written down once more; the discriminator as it stands after the loss has been called."""
    where = (batch.t >= loss.stage.perceptual_from * 50).nonzero()[:, 0]
    where = where[: int(np.ceil(loss.stage.perceptual_share * 8))]
    x0_hat = loss.diffusion.predict_x0(batch.xt, output, batch.t)
    rgb_hat, rgb = (
        lift_shadows(color.to_rgb(batch.y, chroma), batch.y)[where] for chroma in (x0_hat, batch.x0)
    )
    found = {"noise": F.mse_loss(output, loss.diffusion.target(batch.x0, batch.eps, batch.t))}
    if loss.perceptual:
        found["perceptual"] = (loss.trust(batch.t)[where] * loss.perceptual(rgb_hat, rgb)).mean()
    if loss.discriminator:
        found["adversarial"] = -loss.discriminator.network.eval()(batch.y[where], rgb_hat).mean()
        loss.discriminator.network.train()
    return found


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("perceptual", [0.0, 0.3])
@pytest.mark.parametrize("adversarial", [0.0, 0.02])
def test_the_gradient_is_that_of_the_weighted_sum(
    prediction: str, perceptual: float, adversarial: float, pack: Pack, values: Values
) -> None:
    config = with_stage(
        values,
        prediction=prediction,
        **{"noise": 0.7, "perceptual": perceptual, "gan": True, "adversarial": adversarial, "gan_delay": 0},
    )
    loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
    output = network(batch.xt, batch.t, batch.y)
    surrogate, log = loss(batch, output, network.last_layer, 0)
    (found,) = torch.autograd.grad(surrogate, output, retain_graph=True)
    terms = parts(loss, batch, output)
    assert log["noise"] == pytest.approx(terms["noise"].item(), rel=1e-5)
    assert log["weighted_noise"] == pytest.approx(0.7 * log["noise"])

    def at_last(name: str) -> Tensor:
        return torch.autograd.grad(terms[name], network.last_layer, retain_graph=True)[0]

    rest, last = 0.7 * terms["noise"], 0.7 * at_last("noise")
    assert ("perceptual" in log) == bool(perceptual)
    if perceptual:
        assert log["perceptual"] == pytest.approx(terms["perceptual"].item(), rel=1e-4)
        assert log["weighted_perceptual"] == pytest.approx(0.3 * log["perceptual"])
        ratio = 0.3 * at_last("perceptual").norm() / (0.7 * at_last("noise").norm())
        assert log["gradient_ratio"] == pytest.approx(ratio.item(), rel=1e-3)
        rest, last = rest + 0.3 * terms["perceptual"], last + 0.3 * at_last("perceptual")
    total = rest
    assert ("adversarial" in log) == bool(adversarial)
    if adversarial:
        assert log["adversarial"] == pytest.approx(terms["adversarial"].item(), rel=1e-4)
        weight = log["weighted_adversarial"] / log["adversarial"]
        assert weight * at_last("adversarial").norm().item() == pytest.approx(
            0.02 * last.norm().item(), rel=1e-3
        )
        total = rest + weight * terms["adversarial"]
    assert log["loss"] == pytest.approx(total.item(), rel=1e-4)
    (expected,) = torch.autograd.grad(total, output)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_a_weight_of_0_constructs_nothing(values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(weights: object = None) -> VGG16:
        raise AssertionError("VGG16 was loaded")

    monkeypatch.setattr(VGG16, "load", load)
    for stage in ({"perceptual": 0.0}, {"perceptual": 0.0, "gan": True, "adversarial": 0.0}):
        loss = stage_loss(with_stage(values, **stage))
        assert (loss.perceptual, loss.discriminator) == (None, None)
        assert loss.state()["use_gan"] is False
        assert loss.state()["discriminator_state_dict"] is None
    gan_alone = stage_loss(with_stage(values, perceptual=0.0, gan=True))
    assert gan_alone.perceptual is None
    assert gan_alone.discriminator is not None


def test_the_weights_asked_for_are_loaded(
    values: Values, vgg: VGG16, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def load(weights: str | None) -> VGG16:
        asked.append(weights)
        return vgg

    monkeypatch.setattr(VGG16, "load", load)
    stage_loss(with_stage(values))
    values["training"]["vgg_weights"] = "mine.safetensors"
    stage_loss(with_stage(values))
    assert asked == [None, "mine.safetensors"]


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("gan", [False, True])
def test_twenty_steps_on_one_batch_lower_the_loss(
    prediction: str, gan: bool, pack: Pack, values: Values
) -> None:
    scale = 1 if gan else 2
    config = with_stage(
        values, prediction=prediction, chroma_scale=scale, perceptual=0.3, gan=gan, gan_delay=5
    )
    loss, batch, network = stage_loss(config), noisy(pack, config), network_of(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    found = []
    for step in range(20):
        surrogate, log = loss(batch, network(batch.xt, batch.t, batch.y), network.last_layer, step)
        optimizer.zero_grad()
        surrogate.backward()
        optimizer.step()
        # The discriminator's opinion changes with the discriminator, and is no measure.
        found.append((log["weighted_noise"] + log["weighted_perceptual"], log["noise"], log["perceptual"]))
    assert all(last < 0.85 * first for first, last in zip(found[0], found[-1], strict=True))
