"""PatchGAN: a small network that tells true from predicted colours, patch by patch.

Source of the patches: Isola et al. 2017 (pix2pix), section 3.2.2; of the hinge loss: Lim & Ye 2017, Miyato et al. 2018;
of balancing it by gradients: Esser et al. 2021 (VQGAN), equation 7.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """(luma, RGB) -> one score per overlapping patch of 34x34 pixels; above 0 means "true".

    Runs at chroma's size, where 34 pixels are 68 of a photo at chroma scale 2 (pix2pix's patches have 70).
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = (4, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for number, (before, width) in enumerate(pairwise(widths)):
            stride = 2 if number < 2 else 1
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride, padding=1)), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, padding=1)))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, y: Tensor, rgb: Tensor) -> Tensor:
        """y (B,1,H,W) in [-1,1], rgb (B,3,H,W), 0 to 1 -> scores (B,1,H/4-2,W/4-2)."""
        scores: Tensor = self.layers(torch.cat([y, 2 * rgb - 1], dim=1))
        return scores


def discriminator_loss(true: Tensor, coloured: Tensor) -> Tensor:
    """Hinge loss (mean max(0, 1 - D(true)) + mean max(0, 1 + D(coloured))) / 2 of scores (B, ...), per photo: (B,)."""
    return (F.relu(1 - true).flatten(1).mean(dim=1) + F.relu(1 + coloured).flatten(1).mean(dim=1)) / 2


def generator_loss(coloured: Tensor) -> Tensor:
    """-mean D(coloured) of scores (B, ...), per photo: (B,)."""
    return -coloured.flatten(1).mean(dim=1)
