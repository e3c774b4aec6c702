"""What only a GPU can show; on a machine without one, all of this is skipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photochrom.coloring.colorizer import Colorizer
from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU"),
]
Values = dict[str, Any]
STAGES: dict[str, Values] = {
    "noise": {"perceptual": 0.0},
    "perceptual": {"perceptual": 0.1},
    "adversarial": {"perceptual": 0.1, "gan": True, "gan_delay": 0},
}
LEARNS: Values = {"features": (8, 8, 8, 16), "encoder": "lite0", "train_encoder": True}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rounding of NVIDIA's float32 convolutions, and with the precision that a test asks for."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def steps(training: Training, count: int = 5) -> list[dict[str, float]]:
    """The losses of some steps."""
    return [train_step(training) for _ in range(count)]


@pytest.mark.parametrize("encoder", [{}, LEARNS], ids=["no encoder", "an encoder that learns"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-3), ("bf16", 5e-2), ("fp16", 5e-2)])
def test_a_replayed_step_is_the_step(
    pack: Pack, values: Values, stage: str, precision: str, close: float, encoder: Values
) -> None:
    values["training"]["precision"] = precision
    values["model"] |= {"chroma_scale": 1, **encoder}  # or these photos would be too small to be judged
    values["stages"] = [{"epochs": 4, **STAGES[stage]}]
    replayed, plain = Training(build(values), pack), Training(build(values), pack)
    plain.backward.replays = False
    for found, wanted in zip(steps(replayed), steps(plain), strict=True):
        assert found == pytest.approx(wanted, rel=close, abs=close)
    assert [each.recorded is not None for each in replayed.backward.replayed.values()] == [True]
    before = Training(build(values), pack).network
    for new, true, old in zip(
        replayed.network.parameters(), plain.network.parameters(), before.parameters(), strict=True
    ):
        assert (new - true).norm() <= 0.2 * (true - old).norm() + 1e-3


def test_each_side_is_recorded_and_learns_alike(pack: Pack, values: Values) -> None:
    values["training"]["precision"] = "fp32"
    values["data"]["sides"] = (8, 16)
    replayed, plain = Training(build(values), pack), Training(build(values), pack)
    plain.backward.replays = False
    for found, wanted in zip(steps(replayed), steps(plain), strict=True):
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert {shape[-1] for shape in replayed.backward.replayed} == {8, 16}


def test_parts_are_not_replayed_and_come_to_the_same(pack: Pack, values: Values) -> None:
    values["training"]["precision"] = "fp32"
    at_once = steps(Training(build(values), pack))
    values["training"]["accumulate"] = 4
    in_parts = Training(build(values), pack)
    for found, wanted in zip(steps(in_parts), at_once, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    assert not in_parts.backward.replayed


def test_short_of_memory_it_goes_on_without_a_graph(
    own_pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    values["training"]["precision"] = "fp32"
    values["model"] |= LEARNS
    undisturbed = steps(Training(build(values), own_pack))
    training = Training(build(values), own_pack)
    training.inputs.prepare()
    assert training.inputs.on_gpu is not None
    first = steps(training, 2)
    gradients = training.backward.gradients

    def short(*_: object) -> dict[str, float]:
        monkeypatch.setattr(training.backward, "gradients", gradients)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.backward, "gradients", short)
    for found, wanted in zip([*first, *steps(training, 3)], undisturbed, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    assert not training.backward.replayed
    assert training.backward.parts == 2
    assert training.inputs.on_gpu is None


def test_dropout_is_drawn_anew_in_each_replay(pack: Pack, values: Values) -> None:
    values["model"]["dropout"] = 0.5
    training = Training(build(values), pack)
    steps(training, 4)  # after which the blocks are no longer the zeros that they begin with
    photos = pack.photos_of_step(0, 0, 8)
    y, x0, features = training.inputs.of(photos)
    t = torch.full((8,), 25, device=training.device)
    (replayed,) = training.backward.replayed.values()
    seen = (x0, t, y, *features)
    first = replayed.forward(*seen).clone()
    assert not torch.equal(first, replayed.forward(*seen))


@pytest.mark.parametrize("encoder", ["none", "vgg16"])
def test_it_learns_what_a_processor_learns(
    pack: Pack, values: Values, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Pack.open(Path(shutil.copytree(pack.folder, tmp_path / "photos")))
    values["model"] |= {"features": (8, 16), "encoder": encoder}
    values["data"] = {"aged": 0.5}
    values["training"]["precision"] = "fp32"
    values["stages"] = [{"epochs": 2, "perceptual": 0.1}]
    train(build(values), ModelFolder(tmp_path / "gpu"), own)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train(build(values), ModelFolder(tmp_path / "cpu"), own)
    gpu, cpu = (ModelFolder(tmp_path / name).history for name in ("gpu", "cpu"))
    for found, wanted in zip(gpu, cpu, strict=True):
        assert found["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-2)
        assert found["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-2)


def test_what_is_kept_lies_in_the_memory_of_the_gpu(pack: Pack, values: Values, tmp_path: Path) -> None:
    own = Pack.open(Path(shutil.copytree(pack.folder, tmp_path / "photos")))
    values["model"] |= {"features": (8, 16), "encoder": "vgg16"}
    training = Training(build(values), own)
    training.inputs.keep_features()
    assert training.inputs.kept is not None
    assert training.inputs.kept.near is not None
    near = steps(training, 2)
    far = Training(build(values), own)
    far.inputs.keep_features()
    assert far.inputs.kept is not None
    far.inputs.kept.free_gpu_memory()
    for found, wanted in zip(near, steps(far, 2), strict=True):
        assert found == pytest.approx(wanted, rel=5e-2, abs=5e-2)


def test_a_training_with_a_learning_encoder_goes_on_to_distil_it(
    pack: Pack, values: Values, tmp_path: Path
) -> None:
    """Each stage records its own passes: a student's encoder no longer learns."""
    values["model"] |= LEARNS
    values["stages"] = [{"epochs": 1, "perceptual": 0.0}, {"epochs": 1, "distill": 2}]
    train(build(values), ModelFolder(tmp_path / "m"), pack)
    assert [record["stage"] for record in ModelFolder(tmp_path / "m").history] == ["v1", "distilled"]


def test_photos_in_the_memory_of_the_gpu_are_those_on_disk(own_pack: Pack, values: Values) -> None:
    values["model"] |= LEARNS
    values["data"] = {"aged": 0.5}
    near, far = Training(build(values), own_pack), Training(build(values), own_pack)
    near.inputs.prepare()
    assert near.inputs.on_gpu is not None
    photos = own_pack.indices("train")
    flip = torch.arange(len(photos)) % 2 == 0
    found, wanted = (each.inputs.of(photos, flip, 0.5, encode=False) for each in (near, far))
    torch.testing.assert_close(found.y, wanted.y)
    torch.testing.assert_close(found.x0, wanted.x0)
    steps(near)


def test_a_gpu_colours_as_a_processor_does(pack: Pack, values: Values, tmp_path: Path) -> None:
    train(build(values), ModelFolder(tmp_path / "m"), pack)
    gpu, cpu = (Colorizer.load(tmp_path / "m", device=device) for device in ("cuda", "cpu"))
    photos = list(pack.photos[:4])
    for found, wanted in zip(gpu(photos, steps=4), cpu(photos, steps=4), strict=True):
        assert np.abs(np.asarray(found).astype(int) - np.asarray(wanted)).mean() < 2
