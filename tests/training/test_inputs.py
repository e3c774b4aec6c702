"""Photos as the network sees them: mirrored, and with what an encoder sees in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.encoder import Encoder
from photochrom.training.features import LEVELS
from photochrom.training.state import Training
from tests.training.making import Values

pytestmark = pytest.mark.usefixtures("one_vgg")


def test_mirrored_photos(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    y, c, _ = training.inputs.of(np.array([3, 4]), torch.tensor([False, True]))
    plain_y, plain_c = color.from_rgb(pack.rgb([3, 4]), 2)
    torch.testing.assert_close(y, torch.stack([plain_y[0], plain_y[1].flip(-1)]))
    torch.testing.assert_close(c, torch.stack([plain_c[0], plain_c[1].flip(-1)]))


def test_photos_of_another_side_are_those_that_pillow_shrinks(pack: Pack, values: Values) -> None:
    values["data"]["sides"] = (8,)
    training = Training(build(values), pack)
    y, c, _ = training.inputs.of(np.array([3]), side=8)
    channels = [Image.fromarray(each.numpy()) for each in pack.rgb([3])[0]]  # mode F, so nothing is rounded
    small = [np.asarray(each.resize((8, 8), Image.Resampling.BILINEAR)) for each in channels]
    wanted_y, wanted_c = color.from_rgb(torch.from_numpy(np.stack(small))[None], 2)
    torch.testing.assert_close(y, wanted_y, atol=1e-5, rtol=0)
    torch.testing.assert_close(c, wanted_c, atol=1e-5, rtol=0)
    aged, plain = (training.inputs.of(np.arange(24), aged=share, side=8) for share in (1.0, 0.0))
    assert aged.y.shape == plain.y.shape == (24, 1, 8, 8)
    assert not torch.equal(aged.y, plain.y)
    assert torch.equal(aged.x0, plain.x0)


def test_kept_features_are_those_of_the_photo_as_it_is_shown(own_pack: Pack, seeing: Values) -> None:
    """Mirrored or not, aged or not.

    Mirrored maps would not do: VGG16's features of a mirrored photo differ.
    """
    seeing["data"] = {"aged": 0.5}
    training = Training(build(seeing), own_pack)
    training.inputs.keep_features()
    photos = own_pack.indices("train")
    flip = torch.arange(len(photos)) % 2 == 0
    anew = Training(build(seeing), own_pack)  # which has kept nothing
    for shown, flipped, aged in ((photos, flip, 0.5), (training.batches.validation, None, 0.0)):
        y, x0, (kept,) = training.inputs.of(shown, flipped, aged)
        (seen,) = Encoder(training.config.model)(y)
        assert (kept - seen).abs().max() <= 0.5 / LEVELS + 1e-3
        exact = anew.inputs.of(shown, flipped, aged)
        assert (y - exact.y).abs().max() <= 1e-6
        assert torch.equal(x0, exact.x0)
