"""One step: its loss, and batches whose numbers are not finite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.randomness import random_for, stratified_steps
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from tests.training.making import GAN, V1, Values, assert_equal, frozen, hashes, signal_at, staged

pytestmark = pytest.mark.usefixtures("one_vgg", "no_curves")


def test_an_untrained_network_loses_the_targets_own_size(pack: Pack, values: Values) -> None:
    """It answers 0, so the first noise loss is the mean square of v over the batch."""
    training = Training(build(values), pack)
    generator = random_for(0, 1, 0)
    _, x0, _ = training.inputs.of(
        training.pack.photos_of_step(0, 0, 8), torch.rand(8, generator=generator) < 0.5
    )
    t = stratified_steps(8, 50, generator)
    v = training.diffusion.target(x0, torch.randn(x0.shape, generator=generator), t)
    assert train_step(training)["noise"] == pytest.approx(v.square().mean().item(), rel=1e-5)


def bad_photos(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batches are not numbers, this many times."""
    real, left = Pack.rgb, iter(range(times))
    monkeypatch.setattr(
        Pack, "rgb", lambda self, where: real(self, where) * (1.0 if next(left, None) is None else math.nan)
    )


def test_a_batch_that_is_not_a_number_is_left_out(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ends as if it had never been drawn."""
    config = staged(values, {**V1, "epochs": 3})
    training, other = Training(config, pack), Training(config, pack)
    for each in (training, other):
        train_step(each)
    with monkeypatch.context() as patch:
        bad_photos(1, patch)
        log = train_step(training)
    assert math.isfinite(log["loss"])
    assert training.step_in_epoch == 2
    assert training.step == 3
    (note,) = training.notes
    assert note.startswith("step 1: noise")
    assert "not finite; skipped this batch" in note
    assert "going on with the next batch" in note
    other.step += 1  # the batch that the first one left out
    train_step(other)
    assert_equal(frozen(training), frozen(other))
    train_step(training)
    assert len(training.notes) == 1


def test_an_overflow_of_fp16_before_it_is_none(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, {**V1, "epochs": 3}), pack)
    training.arithmetic.precision = "fp16"
    with monkeypatch.context() as patch:
        patch.setattr(training.backward, "clip", lambda *arguments: math.inf)
        assert train_step(training)["gradient"] == math.inf
    bad_photos(1, monkeypatch)
    assert math.isfinite(train_step(training)["loss"])
    assert len(training.notes) == 1


def test_with_a_discriminator_as_well(pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(staged(values, {**GAN, "gan_delay": 0}), pack)
    train_step(training)
    before = frozen(training)
    bad_photos(2, monkeypatch)
    with pytest.raises(
        PhotochromError, match=r"^step 2: .*discriminator.* not finite; .*twice in a row: .*last good"
    ):
        train_step(training)
    assert_equal(frozen(training), before)
    training.bad_batches = 0
    train_step(training)  # which is as good as ever
    assert training.step_in_epoch == 2


def test_twice_in_a_row_ends_the_training_with_the_last_good_state(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = staged(values, {**GAN, "perceptual": 0.0}), ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(config, folder, pack, signal_received=signal_at(4))
    before = hashes(folder)
    with monkeypatch.context() as patch:
        bad_photos(2, patch)
        with pytest.raises(
            PhotochromError, match=r"^step 5: .*the last good checkpoint is kept, .*lower --learning"
        ):
            train(config, folder, pack)
    assert hashes(folder) == before
    train(config, folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2]


def test_a_gradient_that_is_not_a_number_is_noticed_too(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, V1), pack)
    weight = training.network.last_layer
    handle = weight.register_hook(lambda gradient: gradient * math.nan)
    before = frozen(training)
    with pytest.raises(PhotochromError, match=r"^step 1: gradient not finite"):
        train_step(training)
    assert_equal(frozen(training), before)
    handle.remove()


def test_a_loss_that_is_not_a_number_costs_nothing(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(4))
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    real = Pack.rgb
    with monkeypatch.context() as patched:
        patched.setattr(Pack, "rgb", lambda self, indices: real(self, indices) * float("nan"))
        with pytest.raises(PhotochromError, match=r"^step \d: .*not finite.* a lower --learning-rate$"):
            train(build(values), folder, pack)
    assert {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
    train(build(values), folder, pack)
    assert len(folder.history) == 2
