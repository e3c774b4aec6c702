"""All photos of a data set in a GPU's memory, as bytes, with the luma that the network sees.

Reading them, ageing them and sending them would take the processor longer than the GPU needs for a step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.randomness import Indices
from photochrom.training.aging import aged_luma

AT_ONCE = 256


class PhotosOnGpu:
    """RGB and luma of all photos of a data set."""

    def __init__(
        self, pack: Pack, aged: float, device: torch.device, progress: Callable[[int, int], None]
    ) -> None:
        """aged: the share of the training photos to age. progress(done, total) counts photos.

        It may raise to stop.
        """
        count, in_training = len(pack.split), pack.split == "train"
        self.rgb = torch.empty((count, 3, pack.size, pack.size), dtype=torch.uint8, device=device)
        self.luma = torch.empty((count, 1, pack.size, pack.size), dtype=torch.uint8, device=device)

        def bytes_of(start: int) -> tuple[int, Tensor, Tensor]:
            rows = np.arange(start, min(start + AT_ONCE, count))
            rgb = pack.rgb(rows)
            y, _ = color.from_rgb(rgb)
            if aged:
                held_out = torch.from_numpy(~in_training[rows])[:, None, None, None]
                y = torch.where(held_out, y, aged_luma(rgb, y, rows, aged))
            return start, in_bytes(rgb), in_bytes((y + 1) / 2)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start, rgb, luma in pool.map(bytes_of, range(0, count, AT_ONCE)):
                self.rgb[start : start + len(rgb)] = rgb.to(device)
                self.luma[start : start + len(rgb)] = luma.to(device)
                progress(start + len(rgb), count)

    @staticmethod
    def fit(pack: Pack, device: torch.device) -> bool:
        """Whether they take less than half of the memory that is free."""
        if device.type != "cuda":
            return False
        torch.cuda.empty_cache()  # so that an earlier training's memory counts as free
        return 4 * math.prod(pack.photos.shape[:3]) < torch.cuda.mem_get_info(device)[0] / 2

    def __call__(self, photos: Indices) -> tuple[Tensor, Tensor]:
        """RGB (B,3,S,S) in [0,1] and luma (B,1,S,S) in [-1,1] of B photos, by their numbers."""
        rows = torch.from_numpy(photos).to(self.rgb.device)
        return self.rgb[rows] / 255, self.luma[rows] / 127.5 - 1


def in_bytes(values: Tensor) -> Tensor:
    """Values in [0,1] as bytes."""
    return (255 * values).round().to(torch.uint8)
