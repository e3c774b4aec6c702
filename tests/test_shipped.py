"""The shipped models: whole, small, found everywhere, never written to, and good to start from."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import DEFAULT_MODEL, build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.errors import UsageError
from photochrom.evaluation import evaluate
from photochrom.evaluation.card import read_evaluation
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.validation import validate

WEIGHTS = Path(model_folder.__file__).parent / "weights"
NAMES = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


@pytest.fixture(autouse=True, scope="module")
def they_come_along() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "SHIPPED", WEIGHTS)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """24 noisy pictures of 64 pixels, the size that they were trained at."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(24):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    import_photos(folder, folder.parent / "small", size=64, validation=0.3, workers=1)
    return Pack.open(folder.parent / "small")


def test_the_default_is_among_them() -> None:
    assert DEFAULT_MODEL in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_whole_and_small_and_says_what_it_is(name: str) -> None:
    folder = model_folder.find_model(name, Path("nowhere"))
    assert folder.shipped
    assert (folder / model_folder.WEIGHTS).stat().st_size <= 25 * 10**6
    config, weights = model_folder.read_weights(folder / model_folder.WEIGHTS)
    assert config == folder.config
    assert all(tensor.isfinite().all() for tensor in weights.values())
    evaluation = read_evaluation(folder)
    assert evaluation
    assert evaluation["data"]["split"] == "test"
    assert folder.history[-1]["epoch"] == evaluation["epoch"]
    card = (folder / model_folder.CARD).read_text()
    for word in ("## Use and limits", "research", "Evaluation", "photochrom train"):
        assert word in card


def test_a_photo_is_coloured_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gray = Image.fromarray(np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (64, 1)))
    picture = Colorizer.load(DEFAULT_MODEL)(gray)
    assert picture.size == (96, 64)
    assert np.abs(np.asarray(picture.convert("L")).astype(int) - np.asarray(gray)).max() <= 1
    assert np.ptp(np.asarray(picture), axis=2).max() > 5
    assert not list(tmp_path.iterdir())


def test_own_models_of_other_names_are_listed_after_them(tmp_path: Path) -> None:
    (tmp_path / "aaa").mkdir()
    files.write_json(tmp_path / "aaa" / model_folder.CONFIG, build({}).model_dump(mode="json"))
    assert [folder.name for folder in model_folder.list_models(tmp_path)] == [*NAMES, "aaa"]
    with pytest.raises(UsageError, match=f"--from {DEFAULT_MODEL}"):
        model_folder.model_folder(DEFAULT_MODEL, tmp_path)


def test_training_goes_on_from_one(small: Pack, tmp_path: Path) -> None:
    """It begins at its loss, keeps its epochs, and the averaged weights do not forget it at once."""
    source = model_folder.find_model("photochrom-v2", tmp_path)
    values: dict[str, Any] = {
        section: getattr(source.config, section).model_dump(mode="json") for section in ("model", "diffusion")
    }
    values["training"] = {"batch_size": 8, "learning_rate": 1e-5, "sample_every": 0}
    values["data"] = {"photos_per_epoch": 16}
    config = build(values | {"stages": [{"epochs": 1, "perceptual": 0}]})
    before = Training(config, small)
    before.restore(source.weights_alone()[0], source / model_folder.WEIGHTS, anew=True)
    loss = validate(before)["noise"]
    folder = ModelFolder(tmp_path / "mine")
    train(config, folder, small, source=source)
    last = folder.history[-1]
    assert last["epoch"] == source.history[-1]["epoch"] + 1
    assert len(folder.history) == len(source.history) + 1
    assert last["val_loss"] == pytest.approx(loss, rel=0.02)
    assert folder.config.source == "photochrom-v2"
    tensors = torch.load(folder / model_folder.LAST, weights_only=True)["ema_state_dict"]
    for key, true in model_folder.read_weights(source / model_folder.WEIGHTS)[1].items():
        assert (tensors[key] - true).abs().max() < 1e-3, key


def test_an_evaluation_leaves_them_as_they_are(small: Pack, tmp_path: Path) -> None:
    folder = model_folder.find_model(DEFAULT_MODEL, tmp_path)
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    evaluate.keep_in(folder, {})
    assert {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
