"""Trained models, photos with room for kept features, and configurations for tests of training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from photochrom import pictures
from photochrom.data.pack import Pack
from photochrom.diffusion.vgg16 import VGG16
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from tests.training.making import GAN, V1, Values, staged


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pictures, "loss_curve", lambda history: b"")


@pytest.fixture(scope="module")
def no_curves() -> Generator[None]:
    """No training draws its loss, which takes longer than its steps."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.fixture(scope="session")
def two_stages(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values], vgg_as_read: VGG16
) -> ModelFolder:
    """One epoch of V1, two with perceptual loss and discriminator; nine steps. No test changes it."""
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "two-stages")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        patch.setattr(VGG16, "load", lambda weights=None: vgg_as_read)
        train(staged(new_values(), V1, GAN), folder, pack)
    return folder


@pytest.fixture(scope="session")
def model_v1(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values]
) -> ModelFolder:
    """Two epochs of V1. No test changes it."""
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "model_v1")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        train(staged(new_values(), {**V1, "epochs": 2}), folder, pack)
    return folder


@pytest.fixture
def own_pack(pack: Pack, tmp_path: Path) -> Pack:
    """A copy of the data set, beside which features can be kept."""
    return Pack.open(Path(shutil.copytree(pack.folder, tmp_path / "photos")))


@pytest.fixture
def seeing(values: Values) -> Values:
    """The tiny network, with an encoder."""
    values["model"] |= {"features": (8, 16), "encoder": "vgg16"}
    return values
