"""What tests of films share: a colorizer that has learnt nothing, and a look into a film."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from photochrom.coloring.colorizer import Colorizer
from photochrom.config import build
from photochrom.diffusion.unet import UNet

av = pytest.importorskip("av")


def unlearned(size: int, last: float = 0.0) -> Colorizer:
    """A model for photos of this size. last: spread of its last layer's weights; at 0 it colours nothing."""
    model = {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 0}
    config = build({"model": model, "data": {"size": size}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(config.model)
        torch.nn.init.normal_(network.last_layer, std=last)
    return Colorizer(config, UNet.load(config.model, network.state_dict(), Path("none")), "cpu")


def decoded(path: Path) -> tuple[list[Image.Image], list[float]]:
    """The frames of a film as they are stored, and their times."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
        return [frame.to_image() for frame in frames], [frame.time for frame in frames]
