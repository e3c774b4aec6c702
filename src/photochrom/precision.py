"""In which numbers a machine computes: float32, or numbers of 16 bits where it is faster with them.

Some processors have instructions for bfloat16 and take half the time; others imitate it and take many times longer. Only
a try tells.
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
GAIN = 1.2  # times as fast, at least, or it is not worth the lost digits
ROUNDS = 25  # so that even on a busy machine every process comes to the same answer


@cache
def bfloat16_is_faster() -> bool:
    """Whether the processor convolves in bfloat16 at least GAIN times as fast as in float32. Takes some milliseconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of two, one waits for the other wherever another program takes its core
    try:
        x = torch.ones(4, 64, 16, 16).to(memory_format=torch.channels_last)
        weight = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last)
        exact, rounded = (x, weight), (x.bfloat16(), weight.bfloat16())
        for pair in (exact, rounded):
            _seconds(*pair)  # kernels are made at their first use
        # In turns, so that what else the machine does strikes both; the best of each is what it can do.
        pairs = [(_seconds(*exact), _seconds(*rounded)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return min(a for a, _ in pairs) > GAIN * min(b for _, b in pairs)


def device_for_training() -> torch.device:
    """This process's GPU, if it has one, or Apple's, or the processor."""
    place = processes.connect()
    if torch.cuda.is_available():
        return torch.device(place if processes.count() > 1 else "cuda")
    return torch.device("mps" if processes.count() == 1 and torch.backends.mps.is_available() else "cpu")


class Arithmetic:
    """How a training computes: its device, its precision, and what float16 needs besides."""

    def __init__(self, precision: str, device: torch.device) -> None:
        """precision: "fp32", "bf16" or "fp16"; raises UsageError for fp16 on a processor."""
        if precision == "fp16" and device.type == "cpu":
            raise UsageError("fp16 needs a GPU, and there is none here: take --precision bf16, or fp32")
        self.precision, self.device, self.dtype = precision, device, DTYPES.get(precision)
        # Small gradients would be 0 in float16: losses are multiplied, and gradients divided again.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self) -> torch.autocast:
        """Within it, what gains by 16 bits takes them."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def for_training(wanted: str) -> str:
    """What "auto" comes to here, "bf16" or "fp32", the same in all processes; another wish stays as it is."""

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
    """Let a network's convolutions, which are most of its work, run in bfloat16; all else stays as it is."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
