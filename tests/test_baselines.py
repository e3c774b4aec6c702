"""The baselines of benchmarks/baselines.py: what each learns from, its budget, and the whole command once."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation import report
from photochrom.evaluation.held_out import HeldOut
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training
from photochrom.training.step import train_step

RECIPE = """
[model]
features = [8, 16]
time_embedding = 16
blocks = 1
attention = 1

[diffusion]
timesteps = 50

[training]
batch_size = 8
learning_rate = 3e-3
"""


@pytest.fixture(scope="module")
def compare() -> Any:
    """benchmarks/baselines.py; its folder is where Python looks for its neighbours, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")  # type: ignore[no-untyped-call, unused-ignore]
        return importlib.import_module("baselines")


def tiny(compare: Any, method: str, pack: Pack, values: dict[str, Any]) -> Any:
    return compare.METHODS[method](build(values), pack)


@pytest.mark.parametrize("method", ["v1", "v2", "regression", "rgb-diffusion", "pix2pix"])
def test_training_lowers_what_a_row_minimises(
    compare: Any, method: str, sepia_pack: Pack, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("pix2pix"), "LEARNING_RATE", 3e-3)  # for few steps
    training = tiny(compare, method, sepia_pack, values)
    losses = [train_step(training)["loss"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("method", ["regression", "pix2pix"])
def test_rows_without_noise_do_not_look_at_it(
    compare: Any, method: str, pack: Pack, values: dict[str, Any]
) -> None:
    y, x0, _ = tiny(compare, method, pack, values).inputs.of(np.arange(8))
    found = []
    for seed in (1, 2):
        training = tiny(compare, method, pack, values)
        t = torch.full((8,), seed)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
        training.backward(Noisy(y, x0, eps, t, x0 + eps), training.losses, None, 0)
        found.append([weight.grad for weight in training.network.parameters() if weight.grad is not None])
    assert found[0]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_all_rows_see_the_same_photos(
    compare: Any, pack: Pack, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    real = Pack.rgb

    def rgb(self: Pack, indices: Any) -> torch.Tensor:
        read.append(list(indices))
        return real(self, indices)

    monkeypatch.setattr(Pack, "rgb", rgb)
    for method in compare.METHODS:
        training = tiny(compare, method, pack, values)
        for _ in range(3):
            train_step(training)
    assert len(read) == 15
    assert all(read[i : i + 3] == read[:3] for i in range(3, 15, 3))


def test_a_model_that_knows_the_noise_gives_the_photo_back(
    compare: Any, pack: Pack, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny(compare, "rgb-diffusion", pack, values)
    rgb = pack.rgb(range(4))

    def knowing(xt: torch.Tensor, t: torch.Tensor, y: torch.Tensor, *features: object) -> torch.Tensor:
        signal, noise = training.diffusion._roots(t)
        return torch.as_tensor((xt - signal * (2 * rgb - 1)) / noise)

    monkeypatch.setattr(training.averaged, "forward", knowing)
    y, c = training.paint(rgb, range(4), 10)
    assert color.to_rgb(y, c) == pytest.approx(rgb, abs=1e-3)


def test_a_budget_is_processor_time_and_the_rate_falls_within_it(
    compare: Any, pack: Pack, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes one second of a clock made for this test, and reading the clock nothing."""
    clock, rates = [0.0], []
    values["stages"][0]["epochs"] = 1
    training = tiny(compare, "v1", pack, values)

    def timed(training: Training) -> dict[str, float]:
        clock[0] += 1.0
        log = train_step(training)
        rates.append(training.optimizer.param_groups[0]["lr"])
        return log

    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    monkeypatch.setattr(compare, "train_step", timed)
    assert compare.train_for(training, 40.0, "v1") == 40.0
    assert training.step == 40
    assert max(rates) == pytest.approx(3e-3, rel=0.05)
    assert 0 < rates[-1] < 0.01 * 3e-3
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_the_command_trains_evaluates_and_writes_the_page(
    compare: Any,
    pack: Pack,
    new_values: Callable[[], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "html", lambda result, photos: "")
    model, recipe, page = ModelFolder(tmp_path / "model_v1"), tmp_path / "tiny.toml", tmp_path / "page.md"
    train(build(new_values()), model, pack)
    recipe.write_text(RECIPE)
    common: list[str] = [
        *("--data", str(pack.folder), "--recipe", str(recipe), "--models", str(model.path)),
        *("--photos", "6", "--steps", "2", "--threads", "1"),
        *("--out", str(tmp_path / "out"), "--doc", str(page)),
    ]  # fmt: skip
    compare.main([*common, "--minutes", "0.002"])
    text = page.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in text
    for name in ("model_v1", "Photochrom V1", "regression", "RGB diffusion", "pix2pix", "gray"):
        assert f"\n| {name} |" in text
    assert "6 photos of its validation part" in text
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.stem for file in files] == ["pix2pix", "regression", "rgb-diffusion", "v1", "v2"]
    assert load_file(files[2])["head.2.weight"].shape[0] == 3
    before = [file.stat().st_mtime_ns for file in files]
    compare.main([*common, "--minutes", "0.002"])  # nothing is trained twice
    assert [file.stat().st_mtime_ns for file in files] == before
    with pytest.raises(SystemExit, match=r"other settings or another budget .*--out"):
        compare.main([*common, "--minutes", "0.004"])


def test_painting_is_a_function_of_photo_and_seed(compare: Any, pack: Pack, values: dict[str, Any]) -> None:
    training = tiny(compare, "rgb-diffusion", pack, values)
    batch = HeldOut(pack, count=2).batch(range(2))
    both, one = (training.paint(batch.rgb[:n], batch.seeds[:n], 2) for n in (2, 1))
    assert both[1][:1] == pytest.approx(one[1], abs=1e-5)
