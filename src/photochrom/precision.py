"""Chooses the precision: float32, or 16 bits where they are faster.

Some CPUs have instructions for bfloat16, which then takes half the time; others emulate it and take many
times longer. Only a measurement shows which.
"""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom import processes
from photochrom.errors import UsageError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
GAIN = 1.2  # smallest speed-up that is worth the lost digits
ROUNDS = 25  # so many that processes agree even on a busy machine


@cache
def bfloat16_is_faster() -> bool:
    """Measure, in some milliseconds, whether the CPU convolves at least GAIN times as fast in bfloat16."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads would wait for each other when another program takes a core
    try:
        x = torch.ones(4, 64, 16, 16).to(memory_format=torch.channels_last)
        weight = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last)
        exact, rounded = (x, weight), (x.bfloat16(), weight.bfloat16())
        for pair in (exact, rounded):
            _seconds(*pair)  # the first use compiles the kernels
        # In turns, so that other work on the machine slows both; the best time of each counts.
        pairs = [(_seconds(*exact), _seconds(*rounded)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return min(a for a, _ in pairs) > GAIN * min(b for _, b in pairs)


def device_for_training() -> torch.device:
    """This process's CUDA GPU if it has one, else Apple's GPU, else the CPU."""
    place = processes.connect()
    if torch.cuda.is_available():
        return torch.device(place if processes.count() > 1 else "cuda")
    return torch.device("mps" if processes.count() == 1 and torch.backends.mps.is_available() else "cpu")


class Arithmetic:
    """The device and precision of a training, and the gradient scaling that float16 needs."""

    def __init__(self, precision: str, device: torch.device) -> None:
        """precision: "fp32", "bf16" or "fp16". Raises UsageError for fp16 on a CPU."""
        if precision == "fp16" and device.type == "cpu":
            raise UsageError("fp16 needs a GPU, but there is none here: take --precision bf16 or fp32")
        self.precision, self.device, self.dtype = precision, device, DTYPES.get(precision)
        # Small gradients would become 0 in float16, so losses are multiplied and gradients divided again.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self) -> torch.autocast:
        """A context in which torch uses 16 bits where that helps."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def for_training(wanted: str) -> str:
    """Resolve "auto" to "bf16" or "fp32", the same in all processes; other values stay."""

    def faster() -> bool:
        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return not torch.backends.mps.is_available() and bfloat16_is_faster()

    return processes.from_first(lambda: "bf16" if faster() else "fp32") if wanted == "auto" else wanted


@torch.inference_mode()
def _seconds(x: Tensor, weight: Tensor) -> float:
    begun = time.perf_counter()
    F.conv2d(x, weight, padding=1)
    return time.perf_counter() - begun


def convolve_in_bfloat16(network: nn.Module) -> None:
    """Convert a network's convolutions, which are most of its work, to bfloat16."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
