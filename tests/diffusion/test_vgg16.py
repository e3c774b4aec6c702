"""VGG16: it is the published network, its features mean something, and weights that do not fit are told."""

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

from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.diffusion import color, vgg16
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError
from photochrom.randomness import random_for


def torchvision_features() -> torch.nn.Sequential:
    """The convolutions of `torchvision.models.vgg16()`, without its classifier's 120 million weights."""
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
    vgg = VGG16.load("torchvision")
    for key, value in theirs.state_dict().items():
        assert torch.equal(vgg.features.state_dict()[key], value)
    mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (prepare.mean, prepare.std))
    torch.testing.assert_close(rgb * vgg.scale - vgg.mean, (rgb - mean) / std, rtol=0.02, atol=0)


def test_torchvision_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(PhotochromError, match="needs torchvision: pip install torchvision"):
        VGG16.load("torchvision")


def test_another_file_of_weights(vgg: VGG16, rgb: Tensor, tmp_path: Path) -> None:
    tensors = {key: value.half().contiguous() for key, value in vgg.state_dict().items()}
    tensors["features.0.bias"] = tensors["features.0.bias"] + 100
    safetensors.torch.save_file(tensors, tmp_path / "mine.safetensors")
    mine = VGG16.load(str(tmp_path / "mine.safetensors"))
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
        VGG16.load()


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
        VGG16.load(path)


@torch.no_grad()
def meaning(vgg: VGG16, photos: Tensor) -> Tensor:
    """relu4_3 of the gray photos (B,3,H,W), averaged over all places, at unit length: (B,512)."""
    features = vgg(color.luma(photos).expand(-1, 3, -1, -1), last="relu4_3")["relu4_3"]
    return F.normalize(features.mean(dim=(2, 3)), dim=1)


def right_neighbours(known: Tensor, asked: Tensor, of_known: Tensor, of_asked: Tensor) -> float:
    """Share of `asked` (B,C) whose nearest neighbour in `known` is of the same category."""
    return (of_known[(asked @ known.T).argmax(dim=1)] == of_asked).float().mean().item()


def test_the_features_mean_something(vgg: VGG16) -> None:
    """By gray features, crops of five photos' right halves find crops of the same photo's left half."""
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
