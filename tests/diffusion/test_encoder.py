"""The maps of an encoder come in at the levels of their size, about one in size, and each has a say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom.config import ModelConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion import color, encoder
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_vgg")


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


def test_every_map_has_a_say() -> None:
    config = build({"model": {"features": (8, 8, 8, 8), "encoder": "vgg16"}}).model
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
    """Bicubic, to twice the size. Pillow's kernel has another constant (a = -0.5, not -0.75) and rounding."""
    config = build({"model": {"features": (8, 8, 8, 8), "encoder": "vgg16x2"}}).model
    assert {level: layer for level, (layer, _) in config.encoded.items()} == {1: "relu4_3", 2: "relu5_3"}
    gray = color.luma(pack.rgb(np.arange(8)))
    seen = Encoder(config)(2 * gray - 1)
    assert [each.shape for each in seen] == [each.shape for each in features_of(config, 16, 8)]
    large = torch.stack([
        torch.from_numpy(
            np.asarray(Image.fromarray(each[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)).copy()
        )
        for each in gray
    ])[:, None]  # fmt: skip
    true = VGG16.load()(large.expand(-1, 3, -1, -1))
    for layer, each in zip(("relu4_3", "relu5_3"), seen, strict=True):
        exact = (true[layer] / encoder.MEAN["vgg16x2"][layer]).sqrt()
        assert np.corrcoef(each.flatten(), exact.flatten())[0, 1] > 0.97
        assert 0.3 < each.square().mean().sqrt() < 3


def test_an_encoder_without_a_level_is_refused() -> None:
    with pytest.raises(UsageError, match="give features more levels"):
        build({"model": {"features": (8,), "encoder": "vgg16"}})
    with pytest.raises(UsageError, match="encoder = 'resnet'"):
        build({"model": {"encoder": "resnet"}})
