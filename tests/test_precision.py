"""Arithmetic: chosen by measuring, and near the exact one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from photochrom import model_folder, precision
from photochrom.config import DiffusionConfig, ModelConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion.diffusion import Diffusion, sample
from photochrom.diffusion.unet import UNet
from photochrom.errors import Interrupted, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16
from photochrom.training import state
from photochrom.training.loop import train
from photochrom.training.step import train_step
from tests.training.making import signal_at


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN can be told to do without on x86 only")
def test_a_processor_that_imitates_bfloat16_does_without() -> None:
    code = "from photochrom.precision import bfloat16_is_faster; print(bfloat16_is_faster())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # takes fifteen times as long as float32 there
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_choice_is_made_once() -> None:
    assert bfloat16_is_faster() is bfloat16_is_faster()
    assert bfloat16_is_faster.cache_info().misses == 1


def test_the_choice_is_made_in_one_thread_for_other_programs_may_hold_the_other_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds, seen, before = precision._seconds, set(), torch.get_num_threads()

    def watched(x: Tensor, weight: Tensor) -> float:
        seen.add(torch.get_num_threads())
        return seconds(x, weight)

    monkeypatch.setattr(precision, "_seconds", watched)
    torch.set_num_threads(2)
    try:
        bfloat16_is_faster.__wrapped__()
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
def test_a_training_takes_what_is_faster_here(
    device: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: faster)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: faster)
    assert precision.for_training("auto") == ("bf16" if faster and device != "mps" else "fp32")
    assert precision.for_training("fp16") == "fp16"
    assert precision.for_training("fp32") == "fp32"


def test_a_training_goes_on_in_another_arithmetic(tmp_path: Path, pack: Pack, values: dict[str, Any]) -> None:
    folder = ModelFolder(tmp_path / "model")
    notes: list[str] = []
    for epochs, arithmetic in ((1, "fp32"), (2, "bf16"), (3, "auto")):
        values["training"]["precision"] = arithmetic
        values["stages"][0]["epochs"] = epochs
        train(build(values), folder, pack, lambda progress: notes.extend(progress.notes))
    assert [record["precision"] for record in folder.history] == ["fp32", "bf16", "bf16"]
    assert notes == ["changing precision from fp32 to bf16, from epoch 2 on"]


def test_auto_is_decided_once_for_a_training(
    tmp_path: Path, pack: Pack, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However this machine seems the next time, it ends bit for bit where an undisturbed one does."""
    found = iter(["bf16", "fp32"])
    monkeypatch.setattr(state, "for_training", lambda wanted: next(found) if wanted == "auto" else wanted)
    disturbed, undisturbed = ModelFolder(tmp_path / "disturbed"), ModelFolder(tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        train(build(values), disturbed, pack, signal_received=signal_at(2))
    train(build(values), disturbed, pack)
    values["training"]["precision"] = "bf16"
    train(build(values), undisturbed, pack)
    ours, theirs = (
        model_folder.read_checkpoint(each / model_folder.LAST) for each in (disturbed, undisturbed)
    )
    assert ours["precision"] == theirs["precision"] == "bf16"
    for name, weight in theirs["model_state_dict"].items():
        assert torch.equal(ours["model_state_dict"][name], weight), name


def test_a_checkpoint_of_an_earlier_version_has_its_precision_in_the_history(
    tmp_path: Path, pack: Pack, values: dict[str, Any]
) -> None:
    folder = ModelFolder(tmp_path / "model")
    values["training"]["precision"] = "bf16"
    train(build(values), folder, pack)
    checkpoint = model_folder.read_checkpoint(folder / model_folder.LAST)
    del checkpoint["precision"]
    folder.save_checkpoint(model_folder.LAST, checkpoint)
    values["training"]["precision"] = "auto"
    values["stages"][0]["epochs"] = 3
    train(build(values), folder, pack)
    assert [record["precision"] for record in folder.history] == ["bf16"] * 3


def test_float16_is_refused_to_a_processor() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU, but there is none here: take --precision bf16"):
        precision.Arithmetic("fp16", torch.device("cpu"))


def test_trainings_of_two_precisions_go_side_by_side(pack: Pack, values: dict[str, Any]) -> None:
    trainings = []
    for arithmetic in ("fp32", "bf16"):
        values["training"]["precision"] = arithmetic
        trainings.append(state.Training(build(values), pack))
    exact, rounded = ([train_step(each)["noise"] for _ in range(2)] for each in trainings)
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.05)


def test_only_convolutions_change() -> None:
    network = UNet(ModelConfig(features=(8, 16), time_embedding=16))
    convolve_in_bfloat16(network)
    for module in network.modules():
        expected = torch.bfloat16 if isinstance(module, nn.Conv2d) else torch.float32
        assert all(weight.dtype == expected for weight in module.parameters(recurse=False))


def test_colours_stay_as_they_are() -> None:
    """A whole sampling: far nearer to the exact one than another seed is."""
    torch.manual_seed(0)
    network = UNet(ModelConfig(features=(16, 32), time_embedding=16)).eval()
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    y = torch.rand(4, 1, 32, 32) * 2 - 1

    def colours(seed: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(4)]
        return sample(network, Diffusion(DiffusionConfig()), y, generators, 10)

    exact, other = colours(0), colours(10)
    convolve_in_bfloat16(network)
    found = colours(0)
    assert found.dtype == torch.float32
    assert (found - exact).std() < 0.05 * (other - exact).std()
