"""Photos that tests of commands colour and import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(path: Path, width: int = 24, height: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncated(path: Path) -> Path:
    whole = photo(path, 200, 200).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path
