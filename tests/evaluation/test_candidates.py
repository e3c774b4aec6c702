"""What every candidate gives: luma, and chroma that keeps it."""

from __future__ import annotations

import torch

from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation import statistics
from photochrom.evaluation.candidates import Batch, render
from tests.evaluation.making import blotchy


def test_painted_pictures_keep_their_luma(pack: Pack) -> None:
    rgb = pack.rgb(range(8))
    y, c, _ = blotchy("wild", 3.0).paint(Batch(rgb, list(range(8))))
    for strength in statistics.STRENGTHS:
        made = torch.from_numpy(render(y, c, strength)).permute(0, 3, 1, 2)
        assert (255 * (color.luma(made) - (y + 1) / 2)).abs().max() <= 1
