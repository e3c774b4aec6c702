"""Meaning for the network: what VGG16 or EfficientNet, which have learnt to name things, see in the gray photo.

A network that learns colours from scratch first has to learn what grass and skin are. The maps of a network that knows
come in at the levels of the U that have their size (`ModelConfig.encoded`), once for all steps of a colouring.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from photochrom.config import ModelConfig
from photochrom.diffusion.efficientnet import EfficientNetLite0
from photochrom.diffusion.vgg16 import VGG16

Compute = Callable[[npt.NDArray[np.int64]], tuple[Tensor, Sequence[Tensor]]]  # photos -> luma, features
Progress = Callable[[int, int], None]  # (done, total)
MEAN = {
    "vgg16": {"relu3_3": 240.0, "relu4_3": 34.0, "relu5_3": 1.8},
    "vgg16x2": {"relu4_3": 19.5, "relu5_3": 1.1},
}
"""The mean activation of each layer over some hundred gray photos of Tiny ImageNet at 64 pixels."""
SPREAD = {"stride8": 7.7, "stride16": 6.6, "stride32": 2.9}
"""The root mean square of each map of EfficientNet-Lite0 over a thousand gray photos of 128 pixels."""
LEVELS = 16  # of a kept feature, for each unit: all but a few in a million are below 255 / 16
KEPT_AT_ONCE = 64
COPIED_AT_ONCE = 1024
SPARE = 1 << 30  # bytes of disk that are left free


class Encoder(nn.Module):
    """The maps of `ModelConfig.encoded`, about 1 in root mean square.

    Of VGG16: sqrt(activation / MEAN). The root because activations have a heavy tail: the largest are a hundred times their
    mean. Of EfficientNet: its maps, which have no activation behind them, divided by SPREAD.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = [layer for layer, _ in config.encoded.values()]
        self.scale = 2 if config.encoder.endswith("x2") else 1
        self.mean = MEAN.get(config.encoder)  # of VGG16's layers
        self.network = VGG16.load() if self.mean else EfficientNetLite0.load()

    @classmethod
    def of(cls, config: ModelConfig) -> Encoder | None:
        """The encoder of such a network, if it has one."""
        return cls(config) if config.encoded else None

    @property
    def worth_keeping(self) -> bool:
        """Whether what it sees is worth its place on disk: to read a map of EfficientNet takes as long as to compute it."""
        return self.mean is not None

    def forward(self, y: Tensor) -> list[Tensor]:
        """Luma y (B,1,H,W) in [-1,1], H and W multiples of the coarsest map's stride -> features, each (B,C,H/stride,W/stride)."""
        if self.scale != 1:
            y = F.interpolate(y, scale_factor=self.scale, mode="bicubic", align_corners=False)
        found = self.network((y + 1).expand(-1, 3, -1, -1) / 2, last=self.layers[-1])
        if self.mean:
            return [(found[layer] / self.mean[layer]).sqrt() for layer in self.layers]
        return [found[layer] / SPREAD[layer] for layer in self.layers]


class Kept:
    """All photos of a data set as the network is to see them, luma and features, in bytes.

    To look at a photo with the encoder once more would cost as much as a training step.
    """

    def __init__(
        self, path: Path, shapes: Sequence[tuple[int, ...]], count: int, device: torch.device
    ) -> None:
        self.shapes = shapes  # (C, h, w) of luma, and of each map
        self.count, self.device = count, device
        self.sizes = [math.prod(shape) for shape in shapes]
        self.file = np.memmap(path, np.uint8, "r", shape=(count, sum(self.sizes)))
        self.near: Tensor | None = None  # all of it in the GPU's own memory, from where it comes much faster
        if device.type == "cuda":
            torch.cuda.empty_cache()  # or what an earlier training had would count as taken
            if self.file.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
                self.near = torch.empty(self.file.shape, dtype=torch.uint8, device=device)
                for start in range(0, count, COPIED_AT_ONCE):
                    part = slice(start, start + COPIED_AT_ONCE)
                    self.near[part] = torch.from_numpy(np.array(self.file[part]))

    def give_way(self) -> None:
        """Give back the GPU's memory."""
        self.near = None

    def __call__(self, photos: npt.NDArray[np.int64]) -> tuple[Tensor, list[Tensor]]:
        """Luma (B,1,S,S) in [-1,1] and features of B photos, by their numbers."""
        if self.near is None:
            rows = torch.from_numpy(self.file[photos]).to(self.device)  # (B, all)
        else:
            rows = self.near[torch.from_numpy(photos).to(self.device)]
        parts = rows.float().split(self.sizes, dim=1)
        y, *maps = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        return y / 127.5 - 1, [each / LEVELS for each in maps]


def keep(
    path: Path,
    shapes: Sequence[tuple[int, ...]],
    count: int,
    compute: Compute,
    progress: Progress,
    device: torch.device,
) -> Kept:
    """What the network is to see in `count` photos, kept in `path`: computed once, and taken up where that was interrupted.

    compute: from numbers of photos (B,) to their luma and features. progress(done, total) is called every KEPT_AT_ONCE photos;
    what it raises ends the work. Raises OSError for a disk without enough space, or where nothing can be written.
    """
    row = sum(math.prod(shape) for shape in shapes)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists() or path.stat().st_size != count * row:
            part = path.with_suffix(".part")
            done = part.stat().st_size // row if part.exists() else 0
            if shutil.disk_usage(path.parent).free < (count - done) * row + SPARE:
                raise OSError(errno.ENOSPC, f"{count * row / 1e9:.1f} GB are needed")
            with part.open("ab") as file:
                file.truncate(done * row)
                for start in range(done, count, KEPT_AT_ONCE):
                    progress(start, count)
                    y, maps = compute(np.arange(start, min(start + KEPT_AT_ONCE, count)))
                    levels = [(y + 1) * 127.5, *(each.float() * LEVELS for each in maps)]
                    rows = torch.cat([each.flatten(1) for each in levels], dim=1)  # (B, row)
                    file.write(rows.round_().clamp_(max=255).to(torch.uint8).cpu().numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    return Kept(path, shapes, count, device)
