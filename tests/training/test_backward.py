"""From a batch to gradients: in parts where memory is short, with the same result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from tests.training.making import GAN, V1, Values, last, losses, staged

pytestmark = pytest.mark.usefixtures("one_vgg", "no_curves")


def memory_for(photos: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the network run out of memory for batches larger than this. Returns the batches that it got."""
    real, seen = UNet.forward, list[int]()

    def forward(self: UNet, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(len(xt))
            if len(xt) > photos:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, xt, t, y, features)

    monkeypatch.setattr(UNet, "forward", forward)
    return seen


def test_out_of_memory_halves_the_batch_and_not_the_effect(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values["training"]["learning_rate"] = 1e-3
    config = build({**values, "stages": [{**V1, "epochs": 2}]})
    whole, parts = ModelFolder(tmp_path / "whole"), ModelFolder(tmp_path / "parts")
    train(config, whole, pack)
    notes: list[str] = []
    with monkeypatch.context() as patch:
        seen = memory_for(3, patch)
        train(config, parts, pack, lambda progress: notes.extend(progress.notes))
    assert seen == [8, 4, *[2] * 4 * 6]
    assert [note for note in notes if "memory" in note] == [
        "out of memory: processing batches in parts of 4; the batch size stays 8",
        "out of memory: processing batches in parts of 2; the batch size stays 8",
    ]
    ours, theirs = last(parts), last(whole)
    for key in ("model_state_dict", "ema_state_dict"):
        for name, value in theirs[key].items():
            # Adam divides by the gradient's size: where it should be 0, rounding alone moves a weight.
            torch.testing.assert_close(ours[key][name], value, rtol=1e-3, atol=2e-4, msg=name)
    assert [record["parts"] for record in parts.history] == [4, 4]
    assert [record["parts"] for record in whole.history] == [1, 1]
    for found, expected in zip(losses(parts), losses(whole), strict=True):
        for name in ("train_loss", "val_loss", "gradient"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3)


def test_out_of_memory_with_a_discriminator(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, {**GAN, "gan_delay": 0}), pack)
    memory_for(4, monkeypatch)
    assert math.isfinite(train_step(training)["adversarial"])
    assert training.backward.parts == 2
    assert len(training.backward.notes) == 1


def test_no_memory_for_a_single_photo_is_an_error(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, V1), pack)
    memory_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        train_step(training)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: UNet, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    training = Training(staged(values, V1), pack)
    monkeypatch.setattr(UNet, "forward", forward)
    with pytest.raises(RuntimeError, match="mat1"):
        train_step(training)
    assert training.backward.parts == 1
