"""Training in stages: going on across their border and from another model, and what is noticed on the way."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from photochrom import model_folder
from photochrom.config import Config
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted
from photochrom.model_folder import ModelFolder
from photochrom.training import loop
from photochrom.training.loop import Progress, train
from photochrom.training.state import Training
from tests.training.making import (
    GAN,
    V1,
    V2,
    assert_equal,
    assert_same_training,
    hashes,
    last,
    signal_at,
    staged,
)

Values = dict[str, Any]


pytestmark = pytest.mark.usefixtures("one_vgg", "no_curves")


# --- Stages of one training ---------------------------------------------------------------------------------


def test_each_stage_has_its_own_best_model_and_learning_rate(two_stages: ModelFolder, pack: Pack) -> None:
    history = two_stages.history
    best = model_folder.read_checkpoint(two_stages / model_folder.BEST)
    assert best["val_loss"] == best["best_val_loss"] == min(record["val_loss"] for record in history[1:])
    assert best["epoch"] > 1
    rates = [record["learning_rate"] for record in history]
    assert rates[0] == pytest.approx(3e-3 * 0.5 * (1 + math.cos(math.pi * 2 / 3)))  # the last step of three
    assert rates[1:] == pytest.approx([3e-3 * 0.5 * (1 + math.cos(math.pi * n / 6)) for n in (2, 5)])


@pytest.mark.parametrize(
    "stops",
    [[3], [4], [7], [1] * 8],
    ids=["before-stage-2", "in-the-delay", "with-gan", "after-every-step"],
)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    stops: list[int], two_stages: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = staged(values, V1, GAN), ModelFolder(tmp_path / "interrupted")
    for count in stops:
        torch.manual_seed(count)  # whatever state a new process finds
        with pytest.raises(Interrupted):
            train(config, folder, pack, signal_received=signal_at(count))
    train(config, folder, pack)
    assert_same_training(folder, two_stages)
    ours, theirs = last(folder), last(two_stages)
    for key in ("loss_state_dict", "optimizer_state_dict", "ema_updates", "step", "best_val_loss"):
        assert_equal(ours[key], theirs[key], key)


@pytest.mark.parametrize(
    "stop", [(1, True), (2, True), (3, False)], ids=["border", "in-stage-2", "in-epoch-3"]
)
def test_a_training_that_was_killed_ends_there_too(
    stop: tuple[int, bool], two_stages: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    """At the border the checkpoint is still that of the stage before."""
    config, folder = staged(values, V1, GAN), ModelFolder(tmp_path / "killed")

    def power_cut(progress: Progress) -> None:
        if (progress.epoch, bool(progress.record)) == stop:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, folder, pack, power_cut)
    train(config, folder, pack)
    assert_same_training(folder, two_stages)


# --- Going on from another model ----------------------------------------------------------------------------


def at_first_step(
    config: Config, folder: ModelFolder, pack: Pack, source: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What a training holds when its first step begins."""
    seen: list[dict[str, Any]] = []

    def step(training: Training) -> dict[str, float]:
        seen.append(copy.deepcopy(training.state()))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(SystemExit):
            train(config, folder, pack, source=source)
    return seen[0]


def test_a_model_goes_on_where_its_source_stood(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, old = staged(values, V2), last(model_v1)
    new = at_first_step(config, ModelFolder(tmp_path / "v2"), pack, model_v1, monkeypatch)
    carried = ("epoch", "step", "model_state_dict", "ema_state_dict", "ema_updates", "history")
    for key in (*carried, "optimizer_state_dict"):
        assert_equal(new[key], old[key], key)
    assert new["epoch"] == 2
    assert new["step"] == old["optimizer_state_dict"]["state"][0]["step"] == 6
    assert new["best_val_loss"] == math.inf  # V2's losses are other losses
    assert new["loss_state_dict"]["perceptual_weight"] == 0.1


def test_the_history_shows_where_the_stage_began_and_the_source_stays_as_it_was(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder, before = ModelFolder(tmp_path / "model_v2"), hashes(model_v1)
    assert before
    train(staged(values, {**V2, "epochs": 2}), folder, pack, source=model_v1)
    assert hashes(model_v1) == before
    assert folder.config.source == "model_v1"
    assert folder.config.first_epoch == 2
    assert [(record["epoch"], record["stage"]) for record in folder.history] == [
        *((1, "v1"), (2, "v1")),
        *((3, "v2"), (4, "v2")),
    ]
    assert folder.history[:2] == model_v1.history
    assert model_folder.read_checkpoint(folder / model_folder.BEST)["epoch"] > 2
    assert last(folder)["step"] == 12
    train(staged(values, {**V2, "epochs": 2}), folder, pack, source=model_v1)  # finished, and left alone
    assert len(folder.history) == 4


def test_a_source_that_was_stopped_within_an_epoch(pack: Pack, values: Values, tmp_path: Path) -> None:
    """What it had of that epoch is kept in the weights, and the new model's first epoch is a whole one."""
    source, folder = ModelFolder(tmp_path / "model_v1"), ModelFolder(tmp_path / "model_v2")
    with pytest.raises(Interrupted):
        train(staged(values, {**V1, "epochs": 3}), source, pack, signal_received=signal_at(5))
    train(staged(values, {**V1, "name": "more"}), folder, pack, source=source)
    assert [(record["epoch"], record["photos"]) for record in folder.history] == [(1, 24), (2, 24)]
    assert last(folder)["step"] == 8


def test_an_interrupted_model_goes_on_without_its_source_being_read_again(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config = staged(values, {**GAN, "perceptual": 0.0})
    straight, stopped = ModelFolder(tmp_path / "straight"), ModelFolder(tmp_path / "stopped")
    train(config, straight, pack, source=model_v1)
    with pytest.raises(Interrupted):
        train(config, stopped, pack, signal_received=signal_at(2), source=model_v1)
    gone = ModelFolder(tmp_path / "gone" / "model_v1")
    with pytest.raises(Interrupted):
        train(config, stopped, pack, signal_received=signal_at(2), source=gone)
    train(stopped.config, stopped, pack)  # its own settings say where it comes from
    assert_same_training(stopped, straight)


def test_v2_on_v2_carries_the_discriminator(
    two_stages: ModelFolder,
    model_v1: ModelFolder,
    pack: Pack,
    values: Values,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = staged(values, {**GAN, "adversarial": 0.02})
    from_v1 = at_first_step(config, ModelFolder(tmp_path / "a"), pack, model_v1, monkeypatch)
    from_v2 = at_first_step(config, ModelFolder(tmp_path / "b"), pack, two_stages, monkeypatch)
    old, new = last(two_stages)["loss_state_dict"], from_v2["loss_state_dict"]
    assert new["adversarial_weight"] == 0.02
    for key in ("discriminator_state_dict", "discriminator_optimizer_state_dict"):
        assert_equal(new[key], old[key], key)
    assert from_v1["loss_state_dict"]["discriminator_optimizer_state_dict"]["state"] == {}
    assert from_v2["loss_state_dict"]["discriminator_optimizer_state_dict"]["state"] != {}


def test_v2_without_gan_leaves_the_discriminator_behind(
    two_stages: ModelFolder, pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = at_first_step(staged(values, V2), ModelFolder(tmp_path / "a"), pack, two_stages, monkeypatch)
    assert new["loss_state_dict"]["use_gan"] is False
    assert new["loss_state_dict"]["discriminator_state_dict"] is None
    assert new["epoch"] == 3


# --- Advice -------------------------------------------------------------------------------------------------


def test_advice_reaches_the_person_who_waits(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "photochrom.training.loop.faults", lambda history, stage: [f"{len(history)} {stage.label}"]
    )
    said: list[str] = []
    config = staged(values, V1, {**V1, "name": "more"})
    train(config, ModelFolder(tmp_path / "model"), pack, lambda progress: said.extend(progress.notes))
    assert said == ["1 v1", "2 more"]
