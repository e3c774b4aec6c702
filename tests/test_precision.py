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

from photochrom import precision
from photochrom.config import DiffusionConfig, ModelConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion.diffusion import Diffusion, sample
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16
from photochrom.training.loop import train


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
    for epochs, arithmetic in ((1, "fp32"), (2, "bf16"), (3, "auto")):
        values["training"]["precision"] = arithmetic
        values["stages"][0]["epochs"] = epochs
        train(build(values), folder, pack)
    assert [record["precision"] for record in folder.history] == ["fp32", "bf16", "fp32"]


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
