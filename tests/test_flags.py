"""From flags to a configuration: what a model that is gone on from brings, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from photochrom import flags, precision
from photochrom.config import build
from photochrom.flags import resolve, train_command


@pytest.mark.parametrize("weights", ["torchvision", "/somewhere/else.safetensors"])
def test_a_file_on_another_machine_is_not_taken_over(weights: str) -> None:
    """The source may be a stranger's: nothing is downloaded or opened because it says so."""
    source = build({"training": {"vgg_weights": weights, "seed": 7}})
    config = resolve(None, None, {}, source)
    assert config.training.vgg_weights is None
    assert config.training.seed == 7
    typed = resolve(None, None, {"training__vgg_weights": weights}, source)
    assert f"--vgg-weights {weights}" in train_command(typed, "mine", source)


@pytest.mark.parametrize(
    ("device", "batch", "rate", "photos", "sheets"),
    [("cpu", 32, 1e-3 / 4, None, 5), ("cuda", 512, 1e-3, 200_000, 0)],
)
def test_a_batch_for_a_gpu_is_not_taken_over_without_one(
    device: str, batch: int, rate: float, photos: int | None, sheets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "device_for_training", lambda: torch.device(device))
    training = {"batch_size": 512, "learning_rate": 1e-3, "sample_every": 0, "seed": 7}
    source = build({"training": training, "data": {"photos_per_epoch": 200_000, "aged": 0.3}})
    config = resolve(None, None, {}, source)
    assert (config.training.batch_size, config.training.seed, config.data.aged) == (batch, 7, 0.3)
    assert config.training.learning_rate == pytest.approx(rate)
    assert (config.data.photos_per_epoch, config.training.sample_every) == (photos, sheets)
    asked = resolve(None, None, {"training__batch_size": 512, "data__photos_per_epoch": 9}, source)
    assert (asked.training.batch_size, asked.data.photos_per_epoch) == (512, 9)
    assert "--photos-per-epoch 9" in train_command(asked, "mine", source)
    small = build({"training": {"batch_size": 48, "learning_rate": 3e-4}})
    assert resolve(None, None, {}, small).training == small.training


def test_sides_stay_with_the_photos_that_they_suit() -> None:
    source = build({"data": {"name": "large", "sides": (128, 192)}})
    assert resolve(None, None, {}, source).data.sides == (128, 192)
    other = resolve(None, None, {"data__name": "thumbnails"}, source)
    assert other.data.sides == ()
    assert "--sides" not in train_command(other, "mine", source)
    typed = resolve(None, None, {"data__name": "thumbnails", "data__sides": "32,64"}, source)
    assert typed.data.sides == (32, 64)
    assert "--sides 32,64" in train_command(typed, "mine", source)


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "[model]\nfeatures = [8, 16]\ndropout = 0.1\n[data]\nflip = true\n[training]\nseed = 5\n"
        "[[stages]]\nepochs = 7\nnoise = 2.0\n"
    )
    given = {"model__dropout": 0.3, "data__flip": False, "stages__epochs": 9, "training__seed": None}
    config = flags.resolve(recipe, None, given)
    assert (config.model.features, config.model.dropout) == ((8, 16), 0.3)
    assert config.data.flip is False
    assert (config.training.seed, config.training.batch_size) == (5, build({}).training.batch_size)
    assert (config.stages[0].epochs, config.stages[0].noise) == (9, 2.0)
    recipe.write_text("[model]\nfeatures = [8, 16]\n[training]\nseed = 5\nbatch_size = 7\n")
    small = flags.resolve(recipe, "small", {})
    assert small.model.features == (32, 64, 128, 256)
    assert (small.training.batch_size, small.training.learning_rate, small.training.seed) == (32, 8e-4, 5)
    other = flags.resolve(recipe, "small", {"model__features": "8,24", "training__batch_size": 9})
    assert (other.model.features, other.training.batch_size) == ((8, 24), 9)
    assert build({}) == flags.resolve(None, "default", {})  # which is what there is without one


def test_stages_are_v2_unless_the_perceptual_weight_is_zero() -> None:
    stage = flags.resolve(None, None, {}).stages[0]
    assert (stage.noise, stage.perceptual, stage.gan, stage.adversarial) == (1.0, 0.1, False, 0.01)
    assert stage.label == "v2"
    assert flags.resolve(None, None, {"stages__perceptual": 0.0}).stages[0].label == "v1"
