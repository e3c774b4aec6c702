"""What changes while training: which checkpoints can be taken up, and what one stage hands to the next."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from photochrom import model_folder
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import end_epoch
from tests.training.making import GAN, V1, Values, assert_equal, last, signal_at, staged

pytestmark = pytest.mark.usefixtures("one_vgg", "no_curves")


def test_a_checkpoint_of_another_network_is_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    checkpoint = model_folder.read_checkpoint(folder / model_folder.LAST)
    checkpoint["model_state_dict"]["stem.weight"] = torch.zeros(8, 6, 5, 5)
    folder.save_checkpoint(model_folder.LAST, checkpoint)
    message = r"last_model\.pth: 'stem\.weight' has shape \(8, 6, 5, 5\), this network expects \(8, 6, 3, 3\)"
    with pytest.raises(PhotochromError, match=message):
        train(build(values), folder, pack)


def test_checkpoints_of_all_stages_have_the_same_keys(
    two_stages: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "v1")
    train(staged(values, V1), folder, pack)
    v1, v2 = last(folder), last(two_stages)
    assert v1.keys() == v2.keys()
    assert v1["loss_state_dict"].keys() == v2["loss_state_dict"].keys()
    weights = ("mse_weight", "perceptual_weight", "adversarial_weight", "use_gan")
    assert [v1["loss_state_dict"][key] for key in weights] == [1.0, 0.0, 0.0, False]
    assert [v2["loss_state_dict"][key] for key in weights] == [1.0, 0.1, 0.01, True]
    assert v1["loss_state_dict"]["discriminator_state_dict"] is None
    assert v1["loss_state_dict"]["discriminator_optimizer_state_dict"] is None
    discriminator = v2["loss_state_dict"]["discriminator_state_dict"]
    assert sum(key.endswith(("._u", "._v")) for key in discriminator) == 8  # of spectral norm, two a layer


def test_the_discriminator_goes_on_into_the_next_stage(pack: Pack, values: Values) -> None:
    training = Training(
        staged(values, {**GAN, "epochs": 1, "perceptual": 0.0}, {**GAN, "perceptual": 0.0}), pack
    )
    for _ in range(3):
        train_step(training)
    training.seconds = 1.0  # which `run_epoch` counts
    end_epoch(training)
    before = copy.deepcopy(training.losses.state())
    training.begin_stage(training.losses.state())
    assert training.stage is training.config.stages[1]
    assert_equal(training.losses.state(), before)


class Scaled:
    """On a processor there is no fp16, but there is its scaler."""

    def __init__(self, config: Config, pack: Pack) -> None:
        self.training = Training(config, pack)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
        self.training.arithmetic.scaler = self.scaler


def test_the_scaler_of_fp16_is_part_of_the_checkpoint(pack: Pack, values: Values, tmp_path: Path) -> None:
    first, second = Scaled(build(values), pack), Scaled(build(values), pack)
    for _ in range(4):
        train_step(first.training)
    assert first.scaler.get_scale() == 2.0**17
    folder = ModelFolder(tmp_path)
    folder.save_checkpoint(model_folder.LAST, first.training.state())
    second.training.restore(
        model_folder.read_checkpoint(folder / model_folder.LAST), folder / model_folder.LAST
    )
    assert second.scaler.state_dict() == first.scaler.state_dict()
