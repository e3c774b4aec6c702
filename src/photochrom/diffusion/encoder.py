"""What VGG16 or EfficientNet, which have learnt to name things, see in the gray photo.

A network that learns colours from scratch must first learn what grass and skin are. The encoder knows: its maps enter the
levels of the U-Net that have their size (`ModelConfig.encoded`), computed once for all steps of a colouring.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import ModelConfig
from photochrom.diffusion.efficientnet import EfficientNetLite0
from photochrom.diffusion.vgg16 import VGG16

MEAN = {
    "vgg16": {"relu3_3": 240.0, "relu4_3": 34.0, "relu5_3": 1.8},
    "vgg16x2": {"relu4_3": 19.5, "relu5_3": 1.1},
}
"""The mean activation of each layer over some hundred gray photos of Tiny ImageNet at 64 pixels."""
SPREAD = {"stride8": 7.7, "stride16": 6.6, "stride32": 2.9}
"""The root mean square of each map of EfficientNet-Lite0 over a thousand gray photos of 128 pixels."""


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
