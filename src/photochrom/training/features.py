"""The encoder's features of a data set's photos, kept on disk: computed once, read in every step."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from photochrom.config import Config
from photochrom.data.pack import FEATURES, Pack
from photochrom.diffusion.vgg16 import SHA256
from photochrom.randomness import Indices

Compute = Callable[[Indices], tuple[Tensor, Sequence[Tensor]]]  # photos -> luma, features
Progress = Callable[[int, int], None]  # (done, total)
LEVELS = 16  # a byte holds 16 times the feature: all but a few in a million are below 255 / 16
KEPT_AT_ONCE = 64
COPIED_AT_ONCE = 1024
SPARE = 1 << 30  # bytes of disk to leave free


class KeptFeatures:
    """Luma and features of all photos of a data set, in bytes.

    Encoding a photo again would cost as much as a training step.
    """

    def __init__(
        self, path: Path, shapes: Sequence[tuple[int, ...]], count: int, device: torch.device
    ) -> None:
        """Open a file that `keep` wrote.

        shapes: (C,h,w) of luma and of each feature map; count: rows of the file, one per photo.
        """
        self.shapes, self.count, self.device = shapes, count, device
        self.sizes = [math.prod(shape) for shape in shapes]
        self.file = np.memmap(path, np.uint8, "r", shape=(count, sum(self.sizes)))
        self.near: Tensor | None = None  # a copy in the GPU's memory, which is much faster
        if device.type == "cuda":
            torch.cuda.empty_cache()  # so that an earlier training's memory counts as free
            if self.file.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
                self.near = torch.empty(self.file.shape, dtype=torch.uint8, device=device)
                for start in range(0, count, COPIED_AT_ONCE):
                    part = slice(start, start + COPIED_AT_ONCE)
                    self.near[part] = torch.from_numpy(np.array(self.file[part]))

    def free_gpu_memory(self) -> None:
        """Read from disk from now on."""
        self.near = None

    def __call__(self, rows: Indices) -> tuple[Tensor, list[Tensor]]:
        """Luma (B,1,S,S) in [-1,1] and features of B rows."""
        if self.near is None:
            levels = torch.from_numpy(self.file[rows]).to(self.device)  # (B, all)
        else:
            levels = self.near[torch.from_numpy(rows).to(self.device)]
        parts = levels.float().split(self.sizes, dim=1)
        y, *maps = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        return y / 127.5 - 1, [each / LEVELS for each in maps]


def keep(
    path: Path,
    shapes: Sequence[tuple[int, ...]],
    count: int,
    compute: Compute,
    progress: Progress,
    device: torch.device,
) -> KeptFeatures:
    """Encode `count` photos into a file, or finish a file whose writing was interrupted, and open it.

    compute: numbers of photos (B,) -> their luma and features. progress(done, total): called every
    KEPT_AT_ONCE photos; it may raise to stop. Raises OSError if the disk has too little space or cannot be
    written.
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
    return KeptFeatures(path, shapes, count, device)


def remove_unneeded(pack: Pack, models: Sequence[Config]) -> dict[str, int]:
    """Delete kept features that no training of these models needs. Returns each deleted file's name and size.

    Leaves files that another process is writing; on Windows also those that another process is reading.
    """
    needed = {feature_key(each, pack.checksum) for each in models if each.data.checksum == pack.checksum}
    removed = {}
    for path in sorted(pack.folder.glob(FEATURES)):
        if path.suffix == ".lock" or path.stem.removeprefix("features-") in needed:
            continue
        lock, size = path.with_suffix(".lock"), path.stat().st_size
        with suppress(Timeout):
            with FileLock(lock).acquire(timeout=0):
                try:
                    path.unlink()
                except PermissionError:
                    if os.name == "posix":
                        raise
                    continue  # a training reads it, and Windows deletes no open file
            removed[path.name] = size
            lock.unlink(missing_ok=True)
    return removed


def feature_key(config: Config, checksum: str) -> str:
    """A short hash of all that kept features depend on: VGG16's weights, layers, photos, aging, mirroring."""
    model, data = config.model, config.data
    parts = ("luma", SHA256, model.encoder, list(model.encoded.values()), checksum, data.aged, data.flip)
    return hashlib.blake2b(repr(parts).encode(), digest_size=4).hexdigest()
