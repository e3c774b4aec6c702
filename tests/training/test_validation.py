"""Validation: it repeats, judges the averaged weights, and its record says what the epoch did."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.training import loop, validation
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate
from tests.training.making import Values


def test_validation_repeats(pack: Pack, values: Values) -> None:
    training, another = Training(build(values), pack), Training(build(values), pack)
    first = validate(training)
    torch.manual_seed(5)
    assert validate(training) == first
    assert validate(another) == first
    for _ in range(3):
        train_step(training)
    assert validate(training) != first


def test_validation_judges_the_averaged_weights(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    before = validate(training)
    for weight in training.network.parameters():
        torch.nn.init.normal_(weight)
    assert validate(training) == before


def test_the_history_shows_every_term_of_each_stage(two_stages: ModelFolder) -> None:
    first, second, third = two_stages.history
    assert [record["stage"] for record in (first, second, third)] == ["v1", "v2", "v2"]
    assert first["weights"] == {"noise": 1.0, "perceptual": 0.0, "adversarial": 0.0}
    assert second["weights"] == third["weights"] == {"noise": 1.0, "perceptual": 0.1, "adversarial": 0.01}
    later = {
        *("perceptual", "weighted_perceptual", "gradient_ratio", "adversarial", "weighted_adversarial"),
        *("discriminator", "accuracy_true", "accuracy_coloured", "val_perceptual"),
    }
    assert not later & first.keys()
    assert later <= second.keys()
    assert second.keys() <= third.keys() | {"spread", "colorfulness"}
    for record in (first, second, third):
        assert record["weighted_noise"] == pytest.approx(record["noise"])
    for record in (second, third):
        assert record["weighted_perceptual"] == pytest.approx(0.1 * record["perceptual"])
        assert record["val_loss"] == pytest.approx(record["val_noise"] + 0.1 * record["val_perceptual"])
        assert record["gradient_ratio"] > 0
        assert 0 <= record["accuracy_true"] <= 1 >= record["accuracy_coloured"] >= 0
    assert third["train_loss"] == pytest.approx(
        sum(third[f"weighted_{name}"] for name in ("noise", "perceptual", "adversarial"))
    )
    assert third["colorfulness"].keys() == third["spread"].keys() == {"samples", "data"}


def test_a_validation_that_is_not_a_number_keeps_the_last_good_checkpoint(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModelFolder(tmp_path / "model")
    values["stages"][0]["epochs"] = 3
    monkeypatch.setattr(
        validation, "validate", lambda training: {"noise": 0.5 if training.epoch < 1 else math.inf}
    )
    with pytest.raises(
        PhotochromError, match=r"^epoch 2: validation noise not finite; the last good checkpoint"
    ):
        loop.train(build(values), folder, pack)
    assert folder.newest_checkpoint()[0]["epoch"] == 1
    assert len(folder.history) == 1
