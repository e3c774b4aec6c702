"""Photos held as bytes: a GPU's memory holds them, here a processor's."""

from __future__ import annotations

import pytest
import torch

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.training import photos_on_gpu
from photochrom.training.photos_on_gpu import PhotosOnGpu
from photochrom.training.state import Training
from tests.training.making import Values

pytestmark = pytest.mark.usefixtures("one_vgg")


def test_photos_held_as_bytes_are_the_same_photos(
    pack: Pack, seeing: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mirrored or not, aged or not. What a GPU would hold, a processor's memory holds here."""
    monkeypatch.setattr(photos_on_gpu, "AT_ONCE", 5)
    seeing["data"] = {"aged": 0.5}
    from_disk, held = Training(build(seeing), pack), Training(build(seeing), pack)
    counted: list[tuple[int, int]] = []
    held.inputs.on_gpu = PhotosOnGpu(pack, 0.5, torch.device("cpu"), lambda *done: counted.append(done))
    assert counted[-1] == (len(pack.split), len(pack.split))
    photos = pack.indices("train")
    flip = torch.arange(len(photos)) % 2 == 0
    for shown, flipped, aged in ((photos, flip, 0.5), (held.batches.validation, None, 0.0)):
        for found, wanted in zip(
            held.inputs.of(shown, flipped, aged)[:2],
            from_disk.inputs.of(shown, flipped, aged)[:2],
            strict=True,
        ):
            torch.testing.assert_close(found, wanted)
    assert not torch.equal(from_disk.inputs.of(photos).y, held.inputs.of(photos).y)  # some are aged


def test_a_processor_holds_no_photos(pack: Pack, seeing: Values) -> None:
    seeing["data"] = {"keep_features": False}
    training = Training(build(seeing), pack)
    assert training.inputs.prepare() == []
    assert training.inputs.on_gpu is None
