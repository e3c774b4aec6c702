"""What the encoder sees comes in at the right levels, is kept without loss that matters, and changes what is learnt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import ModelConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion import color, encoder
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import Interrupted, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import Progress, train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate

Values = dict[str, Any]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_vgg() -> Any:
    """All models share one VGG16, so that its weights are read once."""
    vgg = VGG16.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", lambda weights=None: vgg)
        yield


@pytest.fixture
def own_pack(pack: Pack, tmp_path: Path) -> Pack:
    """A copy of the data set, beside which features can be kept."""
    return Pack.open(Path(shutil.copytree(pack.folder, tmp_path / "photos")))


@pytest.fixture
def seeing(values: Values) -> Values:
    """The tiny network, with an encoder."""
    values["model"] |= {"features": (8, 16), "encoder": "vgg16"}
    return values


def features_of(config: ModelConfig, side: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {level: side // (config.chroma_scale * 2**level) for level in config.encoded}
    return [
        torch.randn(batch, channels, sizes[level], sizes[level], generator=generator).abs()
        for level, (_, channels) in config.encoded.items()
    ]


@pytest.mark.parametrize(
    ("features", "scale", "encoded"),
    [
        ((8, 16, 24, 32), 2, {1: "relu3_3", 2: "relu4_3", 3: "relu5_3"}),
        ((8, 16, 24, 32), 1, {2: "relu3_3", 3: "relu4_3"}),
        ((8, 16), 4, {0: "relu3_3", 1: "relu4_3"}),
        ((8, 8, 8, 8, 8), 2, {1: "relu3_3", 2: "relu4_3", 3: "relu5_3"}),
    ],
)
def test_maps_come_in_at_the_level_of_their_size(
    features: tuple[int, ...], scale: int, encoded: dict[int, str]
) -> None:
    config = build({"model": {"features": features, "chroma_scale": scale, "encoder": "vgg16"}}).model
    assert {level: layer for level, (layer, _) in config.encoded.items()} == encoded
    seen = Encoder(config)(torch.rand(2, 1, 32, 32) * 2 - 1)
    assert [each.shape for each in seen] == [each.shape for each in features_of(config, 32)]
    network = UNet(config).eval()
    torch.nn.init.normal_(network.last_layer)
    xt, y = torch.randn(2, 2, 32 // scale, 32 // scale), torch.rand(2, 1, 32, 32)
    answers = [network(xt, torch.tensor([3, 3]), y, [factor * each for each in seen]) for factor in (0, 1)]
    assert answers[1].shape == xt.shape
    assert (answers[1] - answers[0]).abs().max() > 1e-3


def test_every_map_has_a_say(seeing: Values) -> None:
    config = build(seeing | {"model": seeing["model"] | {"features": (8, 8, 8, 8)}}).model
    network = UNet(config).eval()
    torch.nn.init.normal_(network.last_layer)
    xt, t, y = torch.randn(2, 2, 16, 16), torch.tensor([3, 3]), torch.rand(2, 1, 32, 32)
    features = features_of(config, 32)
    plain = network(xt, t, y, features)
    for place in range(3):
        changed = [2 * each if i == place else each for i, each in enumerate(features)]
        assert (network(xt, t, y, changed) - plain).abs().max() > 1e-4
    with pytest.raises(ValueError, match="shorter"):
        network(xt, t, y)  # left out by mistake, they are missed


def test_features_are_those_of_vgg16_about_one_in_size(pack: Pack) -> None:
    config = build({"model": {"features": (8, 8, 8, 8), "encoder": "vgg16"}}).model
    gray = color.luma(pack.rgb(np.arange(16)))
    seen = Encoder(config)(2 * gray - 1)
    true = VGG16.load()(gray.expand(-1, 3, -1, -1))
    for layer, each in zip(("relu3_3", "relu4_3", "relu5_3"), seen, strict=True):
        torch.testing.assert_close(
            each.square() * encoder.MEAN["vgg16"][layer], true[layer], rtol=1e-3, atol=1e-2
        )
        assert 0.3 < each.square().mean().sqrt() < 3


def test_the_larger_view_is_vgg16_of_the_photo_enlarged_by_pillow_or_nearly(pack: Pack) -> None:
    """Bicubic, to twice the size; Pillow's own differs in its constant (a = -0.5, not -0.75) and its rounding."""
    config = build({"model": {"features": (8, 8, 8, 8), "encoder": "vgg16x2"}}).model
    assert {level: layer for level, (layer, _) in config.encoded.items()} == {1: "relu4_3", 2: "relu5_3"}
    gray = color.luma(pack.rgb(np.arange(8)))
    seen = Encoder(config)(2 * gray - 1)
    assert [each.shape for each in seen] == [each.shape for each in features_of(config, 16, 8)]
    large = torch.stack([
        torch.from_numpy(np.asarray(Image.fromarray(each[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)).copy())
        for each in gray
    ])[:, None]  # fmt: skip
    true = VGG16.load()(large.expand(-1, 3, -1, -1))
    for layer, each in zip(("relu4_3", "relu5_3"), seen, strict=True):
        exact = (true[layer] / encoder.MEAN["vgg16x2"][layer]).sqrt()
        assert np.corrcoef(each.flatten(), exact.flatten())[0, 1] > 0.97
        assert 0.3 < each.square().mean().sqrt() < 3


def test_a_share_of_the_photos_is_learnt_from_without_the_encoder(pack: Pack, seeing: Values) -> None:
    """As often as asked, whole photos at a time, other ones in each step, none in validation, and in parts as at once."""
    seeing["training"] |= {"encoder_dropout": 0.5}
    shown: list[Tensor] = []
    rows = []
    for accumulate in (1, 4):
        training = Training(
            build(seeing | {"training": seeing["training"] | {"accumulate": accumulate}}), pack
        )
        shown.clear()
        training.network.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[3][0]))
        for _ in range(6):
            train_step(training)
        rows.append(sorted(float(each.sum()) for part in shown for each in part))
    dark = rows[0].count(0.0)
    assert 12 <= dark <= 36  # of 48: a binomial is outside once in 2,000
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    shown.clear()
    training.averaged.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[3][0]))
    validate(training)
    assert all(each.sum() > 0 for part in shown for each in part)


def test_without_dropout_no_photo_is_seen_blind_and_nothing_else_changes(pack: Pack, seeing: Values) -> None:
    losses = {}
    for share in (0.0, 0.9):
        seeing["training"] |= {"encoder_dropout": share}
        training = Training(build(seeing), pack)
        # The network says nothing yet, so that its loss does not depend on what it sees, but on photos, noise and steps.
        losses[share] = train_step(training)["noise"]
    assert losses[0.0] == losses[0.9]


def test_a_trained_model_can_be_guided_and_one_that_never_was_blind_is_refused(
    own_pack: Pack, seeing: Values, tmp_path: Path
) -> None:
    seeing["stages"] = [{"epochs": 6, "perceptual": 0.0}]
    for name, share in (("led", 0.3), ("never-blind", 0.0)):
        seeing["training"] |= {"encoder_dropout": share, "guidance": 2.0, "learning_rate": 1e-2}
        train(build(seeing), ModelFolder(tmp_path / name), own_pack)
    led, plain = Colorizer.load(tmp_path / "led"), Colorizer.load(tmp_path / "never-blind")
    assert (led.config.guidance, plain.config.guidance) == (2.0, 1.0)
    photo = own_pack.photos[0]
    pictures = {g: np.asarray(led(photo, steps=3, guidance=g)).astype(int) for g in (None, 1.0, 2.0)}
    assert (pictures[None] == pictures[2.0]).all()
    assert np.abs(pictures[1.0] - pictures[2.0]).max() > 1
    for colorizer, guidance, why in (
        (plain, 1.5, "guidance 1.5: this model was trained without an encoder, or without its dropout"),
        (led, 0.5, "guidance = 0.5: Input should be greater"),
        (led, 11.0, "guidance = 11.0: Input should be less"),
    ):
        with pytest.raises(UsageError, match=why):
            colorizer(photo, steps=2, guidance=guidance)
    folder = ModelFolder(tmp_path / "never-blind")
    seeing["training"] |= {"encoder_dropout": 0.3}
    student = {**seeing, "stages": [{"epochs": 1, "distill": 2}]}
    with pytest.raises(UsageError, match="never-blind was trained with encoder_dropout = 0 and cannot be"):
        train(build(student), ModelFolder(tmp_path / "s0"), own_pack, source=ModelFolder(folder.path))


def test_an_encoder_without_a_level_is_refused() -> None:
    with pytest.raises(UsageError, match="take more features"):
        build({"model": {"features": (8,), "encoder": "vgg16"}})
    with pytest.raises(UsageError, match="encoder = 'resnet'"):
        build({"model": {"encoder": "resnet"}})


def test_progress_and_stopping_before_the_first_step(own_pack: Pack, seeing: Values, tmp_path: Path) -> None:
    seen: list[Progress] = []
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted, match="before the first step"):
        train(build(seeing), folder, own_pack, seen.append, lambda: 2)
    assert seen[0].preparing
    assert (seen[0].step, seen[0].steps) == (0, 2 * len(own_pack.split))  # mirrored as well
    train(build(seeing), folder, own_pack, seen.append)
    assert folder.has_checkpoint


def test_a_trained_model_brings_its_encoder(own_pack: Pack, seeing: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models" / "seeing")
    train(build(seeing), folder, own_pack)
    colorizer = Colorizer.load("seeing", tmp_path / "models")
    assert colorizer.encoder is not None
    picture = colorizer(own_pack.photos[0], steps=2)
    assert picture.size == own_pack.photos[0].shape[1::-1]
    looked_at: list[int] = []
    colorizer.encoder.register_forward_pre_hook(lambda module, inputs: looked_at.append(len(inputs[0])))
    both = colorizer(list(own_pack.photos[:2]), average=3, steps=2)
    assert looked_at == [2]  # each photo once, for three colourings
    alone = colorizer(own_pack.photos[1], average=3, steps=2)
    assert np.abs(np.asarray(both[1]).astype(int) - np.asarray(alone)).max() <= 1
    _, weights = model_folder.read_weights(folder / model_folder.WEIGHTS)
    assert not any("vgg" in key for key in weights)  # which comes with the package
