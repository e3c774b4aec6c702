"""What a training refuses before it begins: it names the value and the mend, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from tests.training.making import V2, Values, distilling, signal_at, staged

pytestmark = pytest.mark.usefixtures("one_vgg", "no_curves")


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("training.learning_rate", 1e-3),
        ("training.seed", 1),
        ("training.batch_size", 4),
        ("model.features", (16, 16)),
        ("diffusion.schedule", "linear"),
        ("data.flip", False),
    ],
)
def test_other_settings_on_resume_are_refused_by_name(
    key: str, new: Any, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    section, field = key.split(".")
    values[section][field] = new
    with pytest.raises(PhotochromError, match=rf"model holds a training with {key} = .*--overwrite"):
        train(build(values), folder, pack)
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (32, "--sides 32 is larger than the photos, which have 16 pixels"),
        (9, "--sides 9 does not fit the network: give multiples of 4"),
        (0, "needs at least 1 pixels of chroma"),
    ],
)
def test_sides_that_do_not_fit_are_refused(
    side: int, message: str, pack: Pack, values: Values, tmp_path: Path
) -> None:
    values["data"]["sides"] = (16, side)
    with pytest.raises(UsageError, match=message):
        train(build(values), ModelFolder(tmp_path / "model"), pack)


def test_all_differences_are_shown(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    values["training"] |= {"seed": 1, "batch_size": 4}
    said = r"with training\.batch_size = 8, not 4; training\.seed = 0, not 1: give another"
    with pytest.raises(PhotochromError, match=said):
        train(build(values), folder, pack)
    values["training"] |= {
        "weight_decay": 0.5,
        "clip": 2,
        "ema_decay": 0.5,
        "warmup_steps": 7,
        "learning_rate": 1,
    }
    with pytest.raises(PhotochromError, match=r"; and 2 more: give another"):
        train(build(values), folder, pack)


def test_another_data_set_on_resume_is_refused(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    with pytest.raises(PhotochromError, match=rf"data\.checksum = {pack.checksum}, not 0123"):
        train(build(values), folder, replace(pack, checksum="0123"))


def test_more_epochs_and_other_patience_are_not_another_training(
    pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "model")
    train(build(values), folder, pack)
    values["stages"][0]["epochs"] = 3
    values["training"] |= {"patience": 50, "sample_every": 1}
    train(build(values), folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2, 3]
    assert folder.config.stages[0].epochs == 3


@pytest.mark.parametrize(("missing", "word"), [("validation", "validation"), ("train", "training")])
def test_a_missing_part_is_told(missing: str, word: str, pack: Pack, values: Values, tmp_path: Path) -> None:
    split = np.where(pack.split == missing, "test", pack.split)
    with pytest.raises(PhotochromError, match=f"'tiny' has no {word} photos: import it again"):
        train(build(values), ModelFolder(tmp_path / "model"), replace(pack, split=split))
    assert not (tmp_path / "model").exists()


def test_photos_too_small_for_the_depth_are_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["model"]["features"] = (8, 8, 8, 8, 8)
    with pytest.raises(
        UsageError, match=r"photos of 16 pixels .* 5 levels .* multiple of 32 .*fewer features"
    ):
        train(build(values), ModelFolder(tmp_path / "model"), pack)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "features", (8, 24), r"features = \(8, 16\), not \(8, 24\)"),
        ("model", "time_embedding", 32, "time_embedding = 16, not 32"),
        ("diffusion", "timesteps", 60, "timesteps = 50, not 60"),
        ("diffusion", "prediction", "epsilon", "prediction = v, not epsilon"),
    ],
)
def test_another_architecture_is_refused(
    section: str,
    key: str,
    value: Any,
    message: str,
    model_v1: ModelFolder,
    pack: Pack,
    values: Values,
    tmp_path: Path,
) -> None:
    values[section][key] = value
    with pytest.raises(UsageError, match=rf"^model_v1 has {message}: leave that setting out$"):
        train(staged(values, V2), ModelFolder(tmp_path / "model_v2"), pack, source=model_v1)
    assert not (tmp_path / "model_v2").exists()


def test_a_student_without_a_teacher_is_refused(sepia_pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "student")
    with pytest.raises(UsageError, match="--distill 2 makes a trained model faster: add --from MODEL"):
        train(build(distilling(values)), folder, sepia_pack)
    assert not folder.path.exists()


def test_a_student_that_is_to_teach_guided_is_refused(
    sepia_pack: Pack, values: Values, tmp_path: Path
) -> None:
    values["model"] |= {"encoder": "vgg16"}
    values["data"] |= {"keep_features": False, "photos_per_epoch": 8}
    teacher, student = ModelFolder(tmp_path / "teacher"), ModelFolder(tmp_path / "student")
    train(build({**values, "stages": [{"epochs": 1, "perceptual": 0}]}), teacher, sepia_pack)
    train(build(distilling(values, 1)), student, sepia_pack, source=teacher)
    with pytest.raises(
        UsageError, match="student was distilled, so guidance cannot lead it as a teacher: give"
    ):
        train(build(distilling(values, 1)), ModelFolder(tmp_path / "third"), sepia_pack, source=student)
    values["training"] |= {"guidance": 1.0}
    train(build(distilling(values, 1)), ModelFolder(tmp_path / "third"), sepia_pack, source=student)
