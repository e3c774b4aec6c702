"""Models, trained or not, a report of one of them, and a folder of photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from photochrom import files, model_folder
from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.evaluation import folder
from photochrom.evaluation.at_size import model_at_size
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from tests.evaluation.making import blotchy, colored_folder, run


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], dict[str, Any]]
) -> Path:
    """A folder with two models whose weights are random, of 16 and of 32 pixels."""
    place = tmp_path_factory.mktemp("models")
    for name, size in (("tiny", 16), ("large", 32)):
        values = new_values()
        values["data"] = {"name": pack.name, "size": size, "checksum": pack.checksum}
        config = build(values)
        torch.manual_seed(0)
        network = UNet(config.model)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        model = ModelFolder(place / name)
        model.path.mkdir()
        files.write_json(model / model_folder.CONFIG, config.model_dump(mode="json"))
        model.save_weights(network.state_dict(), config)
    return place


@pytest.fixture(scope="session")
def whole(pack: Pack, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A report of a real model and of one that is not ours."""
    out = tmp_path_factory.mktemp("reports") / "whole"
    other = blotchy("<b>rough & ready</b>", 0.5)
    tiny = model_at_size("tiny", models, pack, steps=3, average=2)
    return run([tiny, other], pack, out, page=True), out


@pytest.fixture
def trained(pack: Pack, values: dict[str, Any], tmp_path: Path) -> ModelFolder:
    """A model of two epochs, `models/mine` beside the test's own files."""
    made = ModelFolder(tmp_path / "models" / "mine")
    train(build(values), made, pack)
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a folder are measured in squares of 64 pixels, which says the same sooner."""
    monkeypatch.setattr(folder, "SIZE", 64)


@pytest.fixture
def true(tmp_path: Path) -> Path:
    """A folder of photos in their true colours."""
    return colored_folder(tmp_path / "photos", kind=".jpg")
