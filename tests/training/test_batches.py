"""The photos of a step: some are learnt from without what the encoder sees, none in validation."""

from __future__ import annotations

import pytest
import torch
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


def test_steps_take_the_sides_in_turn_and_validation_the_photos_own(pack: Pack, seeing: Values) -> None:
    seeing["data"] = {"sides": (8, 16)}
    training = Training(build(seeing), pack)
    training.inputs.prepare()
    assert training.inputs.kept is None  # features of one side would not do for the other
    batches = [training.batches.of_step(step, training.losses, None)[1] for step in range(3)]
    scale = training.config.model.chroma_scale
    assert [each.y.shape[-1] for each in batches] == [8, 16, 8]
    assert [each.xt.shape[-1] for each in batches] == [8 // scale, 16 // scale, 8 // scale]
    assert {each.y.shape[-1] for _, each in training.batches.of_validation(None)} == {pack.size}
    for _ in range(2):
        train_step(training)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_photo_is_drawn_several_times_and_encoded_once(
    pack: Pack, seeing: Values, accumulate: int
) -> None:
    """The gradients against the plain mean over all drawings, each encoded by itself."""
    seeing["model"] |= {"encoder": "lite0", "train_encoder": True, "chroma_scale": 4}
    seeing["training"] |= {"batch_size": 3, "draws": 4, "encoder_dropout": 0.0, "accumulate": accumulate}
    training = Training(build(seeing), pack)
    encoder = training.network.encoder
    assert encoder
    torch.nn.init.normal_(training.network.last_layer, std=0.1)  # zeros would pass no gradient on
    photos, batch = training.batches.of_step(0, training.losses, None)
    assert len(set(photos)) == 3
    for photo in batch.y.unflatten(0, (3, 4)):
        assert torch.equal(photo, photo[:1].expand_as(photo))
    assert len(batch.t.unique()) == len(batch.eps.unique(dim=0)) == 12
    encoded: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda module, inputs: encoded.append(len(inputs[0])))
    training.backward(batch, training.losses, None, 0)
    hook.remove()
    assert sum(encoded) == 3 * accumulate  # a part in memory encodes its own photos
    found = [weight.grad.clone() for weight in training.network.parameters() if weight.grad is not None]
    training.backward.clear_gradients(training.losses)
    for place in range(12):
        one = batch.only(slice(place, place + 1))
        output = training.network(one.xt, one.t, one.y, encoder(one.y))
        ((output - training.losses.target(one)).square().mean() / 12).backward()
    plain = [weight.grad for weight in training.network.parameters() if weight.grad is not None]
    assert len(plain) == len(found)
    for expected, gradient in zip(plain, found, strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_without_dropout_no_photo_is_seen_blind_and_nothing_else_changes(pack: Pack, seeing: Values) -> None:
    losses = {}
    for share in (0.0, 0.9):
        seeing["training"] |= {"encoder_dropout": share}
        training = Training(build(seeing), pack)
        # The untrained network outputs 0, so its loss depends on photos, noise and steps, not on its inputs.
        losses[share] = train_step(training)["noise"]
    assert losses[0.0] == losses[0.9]
