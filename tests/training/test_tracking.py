"""What TensorBoard is told is read back by its own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.tracking import tensorboard
from tests.training.making import signal_at

Values = dict[str, Any]


def run(folder: ModelFolder, pack: Pack, values: Values, *stops: int) -> None:
    config = build(values)
    with tensorboard(folder, config, lambda progress: None) as report:
        train(config, folder, pack, report, signal_at(*stops))


def read(folder: ModelFolder) -> Any:
    accumulation = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    return accumulation.EventAccumulator(str(folder / "tensorboard")).Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_losses_rates_sheets_and_settings_are_read_back(pack: Pack, values: Values, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    values["training"]["sample_every"] = 1
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        run(folder, pack, values, 4)
    run(folder, pack, values)
    found, history = read(folder), folder.history
    for name in ("train_loss", "val_loss", "noise", "learning_rate", "photos_per_second"):
        events = found.Scalars(f"epoch/{name}")
        assert [event.step for event in events] == [3, 6]
        assert [event.value for event in events] == pytest.approx([record[name] for record in history])
    assert found.Scalars("epoch/spread/samples")[-1].value == pytest.approx(history[-1]["spread"]["samples"])
    steps = found.Scalars("step/loss")
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert np.mean([event.value for event in steps[:3]]) == pytest.approx(history[0]["train_loss"], rel=1e-5)
    images = found.Images("samples")
    assert [image.step for image in images] == [3, 6]
    with Image.open(folder / "samples" / "epoch_0002.png") as sheet:
        assert (images[-1].width, images[-1].height) == sheet.size
    said = found.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert build(json.loads(said.removeprefix("```json\n").removesuffix("\n```"))) == build(values)


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(
            PhotochromError, match=r"^--tracker needs TensorBoard: pip install 'photochrom\[tensor"
        ),
        tensorboard(ModelFolder(tmp_path), build(values), lambda progress: None),
    ):
        pass
