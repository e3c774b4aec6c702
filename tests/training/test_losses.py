"""What a stage's network is told: perceptual loss, discriminator, and how the terms are put together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom.config import Config, build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.diffusion import color, vgg16
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.unet import UNet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError
from photochrom.randomness import random_for, stratified_steps
from photochrom.training import losses
from photochrom.training.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from photochrom.training.losses import COMPARED, PerceptualLoss, StageLoss, lift_shadows
from photochrom.training.noisy import Noisy

Values = dict[str, Any]
CPU = torch.device("cpu")
load_vgg = VGG16.load  # the real one, which `one_vgg` replaces


@pytest.fixture(scope="module")
def vgg() -> VGG16:
    return load_vgg()


@pytest.fixture(autouse=True)
def one_vgg(vgg: VGG16, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages share one VGG16, so that its weights are read once."""
    monkeypatch.setattr(VGG16, "load", lambda weights=None: vgg)


@pytest.fixture
def rgb(pack: Pack) -> Tensor:
    """Four photos, (4,3,16,16)."""
    return pack.rgb(range(4))


def with_stage(values: Values, **stage: Any) -> Config:
    """Chroma as large as luma (16 pixels, for the discriminator's sake), and one stage."""
    values["model"]["chroma_scale"] = stage.pop("chroma_scale", 1)
    values["diffusion"]["prediction"] = stage.pop("prediction", "v")
    return build({**values, "stages": [stage]})


def stage_loss(config: Config) -> StageLoss:
    return StageLoss(config.stages[0], config, CPU)


def noisy(pack: Pack, config: Config, t: list[int] | None = None) -> Noisy:
    """Eight photos of the data set, at eight time steps."""
    y, x0 = color.from_rgb(pack.rgb(range(8)), config.model.chroma_scale)
    generator = random_for(7)
    steps = torch.tensor(t) if t else stratified_steps(8, config.diffusion.timesteps, generator)
    eps = torch.randn(x0.shape, generator=generator)
    return Noisy(y, x0, eps, steps, Diffusion(config.diffusion).add_noise(x0, eps, steps))


def network_of(config: Config) -> UNet:
    """An untrained network, except that its last layer is not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(config.model)
        torch.nn.init.normal_(network.last_layer, std=0.05)
    return network


# --- Perceptual loss --------------------------------------------------------------------------------------------------


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


# --- VGG16 ------------------------------------------------------------------------------------------------------------


def torchvision_features() -> torch.nn.Sequential:
    """The convolutions of `torchvision.models.vgg16()`, without making the 120 million weights of its classifier."""
    vgg = pytest.importorskip("torchvision.models.vgg", reason="torchvision is not installed")
    layers: torch.nn.Sequential = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    return layers.eval()


def test_it_is_torchvisions_network(vgg: VGG16, rgb: Tensor) -> None:
    reference = torchvision_features()
    reference.load_state_dict(vgg.features.state_dict())
    rgb = rgb[:1].repeat(1, 1, 2, 2)  # 32 pixels, of which 2 are left in the end
    x = rgb * 255 - torch.tensor([123.68, 116.779, 103.939]).reshape(1, 3, 1, 1)
    found = vgg(rgb)
    assert list(found) == ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    names = {3: "relu1_2", 8: "relu2_2", 15: "relu3_3", 22: "relu4_3", 29: "relu5_3"}
    for number, layer in enumerate(reference):
        x = layer(x)
        if number in names:
            torch.testing.assert_close(found[names[number]], x.detach(), rtol=1e-4, atol=1e-2)  # of hundreds


def test_torchvisions_own_weights_get_their_own_preparation(
    rgb: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = torchvision_features()
    models = pytest.importorskip("torchvision.models")
    prepare = models.VGG16_Weights.IMAGENET1K_V1.transforms()
    monkeypatch.setattr(
        models, "vgg16", lambda weights: SimpleNamespace(features=theirs)
    )  # which would download
    vgg = load_vgg("torchvision")
    for key, value in theirs.state_dict().items():
        assert torch.equal(vgg.features.state_dict()[key], value)
    mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (prepare.mean, prepare.std))
    torch.testing.assert_close(rgb * vgg.scale - vgg.mean, (rgb - mean) / std, rtol=0.02, atol=0)


def test_torchvision_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(PhotochromError, match="needs torchvision: pip install torchvision"):
        load_vgg("torchvision")


def test_another_file_of_weights(vgg: VGG16, rgb: Tensor, tmp_path: Path) -> None:
    tensors = {key: value.half().contiguous() for key, value in vgg.state_dict().items()}
    tensors["features.0.bias"] = tensors["features.0.bias"] + 100
    safetensors.torch.save_file(tensors, tmp_path / "mine.safetensors")
    mine = load_vgg(str(tmp_path / "mine.safetensors"))
    assert torch.equal(mine.features[0].bias, tensors["features.0.bias"].float())  # type: ignore[arg-type]
    assert not torch.allclose(mine(rgb, last="relu1_2")["relu1_2"], vgg(rgb, last="relu1_2")["relu1_2"])
    assert not any(weight.requires_grad for weight in mine.parameters())


def test_damaged_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(vgg16.WEIGHTS.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    monkeypatch.setattr(vgg16, "WEIGHTS", tmp_path / "flipped.safetensors")
    with pytest.raises(
        PhotochromError, match=r"flipped\.safetensors is damaged: .*checksum .*install .*again"
    ):
        load_vgg()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"mine\.safetensors cannot be read: .*No such file"),
        (b"nonsense, and more of it", r"mine\.safetensors cannot be read"),
        ({"conv.weight": torch.zeros(3)}, r"mine\.safetensors has an unknown key 'conv\.weight'"),
        ({}, r"mine\.safetensors has no 'features\.0\.bias'"),
    ],
    ids=["missing", "no-safetensors", "other-keys", "no-keys"],
)
def test_weights_that_do_not_fit_are_told(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        safetensors.torch.save_file(content, path)
    with pytest.raises(PhotochromError, match=message):
        load_vgg(path)


@torch.no_grad()
def meaning(vgg: VGG16, photos: Tensor) -> Tensor:
    """relu4_3 of the gray photos (B,3,H,W), averaged over all places, at unit length: (B,512)."""
    features = vgg(color.luma(photos).expand(-1, 3, -1, -1), last="relu4_3")["relu4_3"]
    return F.normalize(features.mean(dim=(2, 3)), dim=1)


def right_neighbours(known: Tensor, asked: Tensor, of_known: Tensor, of_asked: Tensor) -> float:
    """Share of `asked` (B,C) whose nearest neighbour in `known` is of the same category."""
    return (of_known[(asked @ known.T).argmax(dim=1)] == of_asked).float().mean().item()


def test_the_features_mean_something(vgg: VGG16) -> None:
    """Crops of the right half of five photographs find crops of the left half of the same one, by gray features."""
    data = pytest.importorskip("skimage.data")
    sides: list[list[Tensor]] = [[], []]
    label = []
    random = np.random.default_rng(0)
    photographs = (
        data.astronaut(),
        data.coffee(),
        data.rocket(),
        data.chelsea(),
        data.stereo_motorcycle()[0],
    )
    for number, photograph in enumerate(photographs):
        photo = torch.as_tensor(photograph).permute(2, 0, 1)[None] / 255  # (1, 3, H, W)
        for _ in range(8):
            label.append(number)
            top, left = random.integers(photo.shape[-2] - 128), random.integers(photo.shape[-1] // 2 - 128)
            for side, offset in zip(sides, (0, photo.shape[-1] // 2), strict=True):
                crop = photo[..., top : top + 128, offset + left : offset + left + 128]
                side.append(F.interpolate(crop, size=32, mode="area"))
    left_half, right_half = (torch.cat(side) for side in sides)
    labels = torch.tensor(label)
    assert (
        right_neighbours(meaning(vgg, left_half), meaning(vgg, right_half), labels, labels) > 0.6
    )  # chance: 0.2


def test_the_features_know_categories_of_tiny_imagenet(vgg: VGG16, tmp_path: Path) -> None:
    shared = os.environ.get("PHOTOCHROM_SHARED")
    archives = sorted(Path(shared, "data").glob("tiny-imagenet*.zip")) if shared else []
    if not archives:
        pytest.skip("PHOTOCHROM_SHARED names no folder with data/tiny-imagenet*.zip")
    names = ["goldfish", "tarantula", "school bus", "teapot", "pizza"]
    names += ["jellyfish", "banana", "koala", "obelisk", "sports car"]
    import_photos(archives[0], tmp_path / "photos", size=32, limit=300, categories=names, workers=1)
    pack = Pack.open(tmp_path / "photos")
    features, labels = meaning(vgg, pack.rgb(range(300))), torch.as_tensor(pack.label)
    known = torch.rand(300, generator=random_for(0)) < 0.7
    share = right_neighbours(features[known], features[~known], labels[known], labels[~known])
    assert share > 0.3  # chance: 0.1


# --- Which photos, and how much ---------------------------------------------------------------------------------------


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
    """Of a photo at a tenth of its light, lifted, VGG16 sees a tint at least three times as well as otherwise."""
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


# --- The combined loss ------------------------------------------------------------------------------------------------


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


# --- The discriminator ------------------------------------------------------------------------------------------------


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
        (of_noise,) = torch.autograd.grad(parts(loss, batch, output)["noise"], output)
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
