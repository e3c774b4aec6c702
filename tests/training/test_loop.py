"""Training: it ends the same interrupted or not, it learns, and no fault costs what was saved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import Progress, train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate
from tests.training.making import Values, assert_same_training, signal_at

pytestmark = pytest.mark.usefixtures("one_vgg")

# --- Going on -----------------------------------------------------------------------------------------------


def long(values: Values) -> Config:
    """Four epochs of three steps, with all that is drawn at random."""
    values["model"]["dropout"] = 0.2
    values["stages"][0]["epochs"] = 4
    return build(values)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values]
) -> ModelFolder:
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "straight")
    train(long(new_values()), folder, pack)
    return folder


@pytest.mark.parametrize(
    "stops",
    [[6], [4], [2, 5], [1] * 11],
    ids=["after-epoch-2", "within-epoch-2", "twice", "after-every-step"],
)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    stops: list[int], uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = long(values), ModelFolder(tmp_path / "interrupted")
    for count in stops:
        torch.manual_seed(count)  # whatever state a new process finds
        with pytest.raises(Interrupted, match="all saved; the same command goes on from here") as caught:
            train(config, folder, pack, signal_received=signal_at(count))
        assert caught.value.signal_number == 15
        assert len(folder.history) < 4
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)
    assert len(folder.history) == 4


def test_a_training_that_was_killed_goes_on_from_its_last_epoch(
    uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = long(values), ModelFolder(tmp_path / "killed")

    def power_cut(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (3, 2):
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, folder, pack, power_cut)
    assert len(folder.history) == 2
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)


def test_what_another_trainer_ended_while_this_one_began_is_left_alone(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = ModelFolder(tmp_path / "model"), list[Progress]()
    locked = ModelFolder.locked

    def after_the_other(self: ModelFolder) -> AbstractContextManager[None]:
        with monkeypatch.context() as patch:
            patch.setattr(ModelFolder, "locked", locked)
            train(build(values), folder, pack)
        return locked(self)

    monkeypatch.setattr(ModelFolder, "locked", after_the_other)
    train(build(values), folder, pack, seen.append)
    assert seen == []
    assert len(folder.history) == 2


def test_a_finished_training_is_left_alone(uninterrupted: ModelFolder, pack: Pack, values: Values) -> None:
    config = long(values)
    before = (uninterrupted / model_folder.LAST).read_bytes()
    seen: list[Progress] = []
    train(config, uninterrupted, pack, seen.append)
    assert seen == []
    assert (uninterrupted / model_folder.LAST).read_bytes() == before


# --- Learning -----------------------------------------------------------------------------------------------


def test_it_learns(sepia_pack: Pack, values: Values) -> None:
    values["training"]["learning_rate"] = 2e-2
    values["data"] = {"photos_per_epoch": 800}
    training = Training(build(values), sepia_pack)
    untrained = validate(training)["noise"]
    found = [train_step(training)["noise"] for _ in range(120)]
    assert np.mean(found[-10:]) < found[0] / 5
    assert validate(training)["noise"] < untrained / 5


def test_early_stopping(pack: Pack, values: Values, tmp_path: Path) -> None:
    """A learning rate that moves nothing: the first epoch stays the best, and two more are waited for."""
    values["training"] |= {"learning_rate": 1e-30, "patience": 2}
    values["stages"][0]["epochs"] = 10
    folder = ModelFolder(tmp_path / "model")
    train(build(values), folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2, 3]
    assert model_folder.read_checkpoint(folder / model_folder.BEST)["epoch"] == 1
    assert (folder / "samples" / "epoch_0003.png").exists()
    train(build(values), folder, pack)  # and the same command does not go on
    assert len(folder.history) == 3


# --- The folder ---------------------------------------------------------------------------------------------


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (Tensor, bool, int, float, str)


def test_the_folder_holds_what_the_design_says(pack: Pack, values: Values, tmp_path: Path) -> None:
    trained, seen = ModelFolder(tmp_path / "model_v1"), list[Progress]()
    train(build(values), trained, pack, seen.append)

    there = {path.relative_to(trained.path).as_posix() for path in trained.path.rglob("*") if path.is_file()}
    expected = {
        model_folder.CONFIG,
        model_folder.BEST,
        model_folder.LAST,
        model_folder.HISTORY,
        model_folder.CURVE,
        model_folder.WEIGHTS,
        model_folder.CARD,
    }
    assert there - {".lock"} == expected | {"samples/epoch_0002.png"}

    checkpoint = torch.load(trained / model_folder.BEST, weights_only=True)
    assert plain(checkpoint)
    assert checkpoint.keys() >= {
        *("epoch", "model_state_dict", "ema_state_dict", "optimizer_state_dict", "loss_state_dict"),
        *("train_loss", "val_loss", "best_val_loss", "config"),
    }
    assert checkpoint["loss_state_dict"] == {
        "mse_weight": 1.0,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
        "use_gan": False,
        "discriminator_state_dict": None,
        "discriminator_optimizer_state_dict": None,
    }

    history = trained.history
    best = min(history, key=lambda record: record["val_loss"])
    assert checkpoint["epoch"] == best["epoch"]
    assert checkpoint["best_val_loss"] == checkpoint["val_loss"] == best["val_loss"]
    assert checkpoint["train_loss"] == best["train_loss"]
    assert build(checkpoint["config"]) == trained.config
    shared, weights = model_folder.read_weights(trained / model_folder.WEIGHTS)
    assert shared == trained.config
    for key, value in weights.items():
        torch.testing.assert_close(value, checkpoint["ema_state_dict"][key], atol=1e-4, rtol=1e-3)

    assert trained.config.data.checksum == pack.checksum
    assert trained.config.data.size == 16
    assert [record["epoch"] for record in history] == [1, 2]
    assert [record["photos"] for record in history] == [24, 24]
    assert {record["stage"] for record in history} == {"v1"}
    with (
        Image.open(trained / "samples" / "epoch_0002.png") as sheet,
        Image.open(trained / model_folder.CURVE) as curve,
    ):
        assert sheet.width > 600
        assert curve.width > 600
    assert "photochrom colorize" in (trained / model_folder.CARD).read_text(encoding="utf-8")

    steps = [(one.epoch, one.step) for one in seen if not one.record]
    assert steps == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert [one.record for one in seen if one.record] == history
    assert seen[-1].seconds_left == 0
    assert all(one.photos_per_second > 0 and one.steps == 3 and one.epochs == 2 for one in seen)


def test_sheets_come_every_few_epochs_and_at_the_end(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["training"]["sample_every"] = 2
    values["stages"][0]["epochs"] = 5
    train(build(values), ModelFolder(tmp_path / "model"), pack)
    sheets = sorted(path.name for path in (tmp_path / "model" / "samples").iterdir())
    assert sheets == ["epoch_0002.png", "epoch_0004.png", "epoch_0005.png"]


def test_photos_per_epoch(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["data"] = {"photos_per_epoch": 10}
    train(build(values), ModelFolder(tmp_path / "model"), pack)
    assert [record["photos"] for record in ModelFolder(tmp_path / "model").history] == [
        16,
        16,
    ]  # whole batches


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
        (plain, 1.5, "guidance 1.5: this model was trained without an encoder or without encoder dropout"),
        (led, 0.5, "guidance = 0.5: Input should be greater"),
        (led, 11.0, "guidance = 11.0: Input should be less"),
    ):
        with pytest.raises(UsageError, match=why):
            colorizer(photo, steps=2, guidance=guidance)
    folder = ModelFolder(tmp_path / "never-blind")
    seeing["training"] |= {"encoder_dropout": 0.3}
    student = {**seeing, "stages": [{"epochs": 1, "distill": 2}]}
    with pytest.raises(
        UsageError, match="never-blind was trained with encoder_dropout = 0, so guidance cannot"
    ):
        train(build(student), ModelFolder(tmp_path / "s0"), own_pack, source=ModelFolder(folder.path))


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
