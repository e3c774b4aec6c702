"""What the tests share: one thread, two tiny data sets, and the configuration of a tiny training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from photochrom.data.pack import Pack, import_photos

# Tiny networks lose more to handing work between threads than they gain by it.
torch.set_num_threads(1)
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


def smooth(seed: int) -> Image.Image:
    """A random photo of 16 pixels whose colours run softly into each other."""
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((16, 16), Image.Resampling.BICUBIC)


def sepia(seed: int) -> Image.Image:
    """A random photo in which everything has one tint, (Cb, Cr) about (-0.066, 0.096)."""
    gray = np.asarray(smooth(seed).convert("L")).astype(int) // 2 + 64
    return Image.fromarray(np.stack([gray + 33, gray - 13, gray - 31], axis=-1).astype(np.uint8))


def make_pack(factory: pytest.TempPathFactory, photo: Callable[[int], Image.Image]) -> Pack:
    """32 photos, 8 of them to validate."""
    source, destination = factory.mktemp("photos"), factory.mktemp("data") / "tiny"
    for seed in range(32):
        photo(seed).save(source / f"{seed:02}.png")
    import_photos(source, destination, size=16, validation=0.25, test=0.0, workers=1)
    return Pack.open(destination)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Photos of all colours."""
    return make_pack(tmp_path_factory, smooth)


@pytest.fixture(scope="session")
def sepia_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Photos of one tint: as easy to learn as photos can be."""
    return make_pack(tmp_path_factory, sepia)


@pytest.fixture(scope="session")
def new_values() -> Callable[[], dict[str, Any]]:
    """Makes what `config.build` takes, for a V1 training of two epochs of three steps each."""
    return lambda: {
        "model": {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1},
        "diffusion": {"timesteps": 50},
        "data": {},
        "training": {"batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "ema_decay": 0.9},
        "stages": [{"epochs": 2, "perceptual": 0.0}],
    }


@pytest.fixture
def values(new_values: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same, for one test to change."""
    return new_values()
