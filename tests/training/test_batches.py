"""The photos of a step: some are learnt from without what the encoder sees, none in validation."""

from __future__ import annotations

import pytest
from torch import Tensor

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate
from tests.training.making import Values

pytestmark = pytest.mark.usefixtures("one_vgg")


def test_a_share_of_the_photos_is_learnt_from_without_the_encoder(pack: Pack, seeing: Values) -> None:
    """As many as asked, whole photos, others in each step, none in validation, in parts as at once."""
    seeing["training"] |= {"encoder_dropout": 0.5}
    shown: list[Tensor] = []
    rows = []
    for accumulate in (1, 4):
        training = Training(
            build(seeing | {"training": seeing["training"] | {"accumulate": accumulate}}), pack
        )
        shown.clear()
        training.network.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[3][0]))
        for _ in range(6):
            train_step(training)
        rows.append(sorted(float(each.sum()) for part in shown for each in part))
    dark = rows[0].count(0.0)
    assert 12 <= dark <= 36  # of 48: a binomial is outside once in 2,000
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    shown.clear()
    training.averaged.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[3][0]))
    validate(training)
    assert all(each.sum() > 0 for part in shown for each in part)


def test_without_dropout_no_photo_is_seen_blind_and_nothing_else_changes(pack: Pack, seeing: Values) -> None:
    losses = {}
    for share in (0.0, 0.9):
        seeing["training"] |= {"encoder_dropout": share}
        training = Training(build(seeing), pack)
        # The untrained network outputs 0, so its loss depends on photos, noise and steps, not on its inputs.
        losses[share] = train_step(training)["noise"]
    assert losses[0.0] == losses[0.9]
