"""The encoder: VGG16 or EfficientNet, pretrained to recognise objects, sees the gray photo.

A network that learns colours from scratch must first learn what grass and skin are. The encoder already
knows. Its maps enter the levels of the U-Net that have their size (`ModelConfig.encoded`). They are computed
once for all steps.
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
"""The mean activation of each layer, over some hundred gray photos of Tiny ImageNet at 64 pixels."""
SPREAD = {"stride8": 7.7, "stride16": 6.6, "stride32": 2.9}
"""The root mean square of each map of EfficientNet-Lite0, over a thousand gray photos of 128 pixels."""


class Encoder(nn.Module):
    """Computes the maps of `ModelConfig.encoded`, with a root mean square of about 1.

    For VGG16 they are sqrt(activation / MEAN). The root tames a heavy tail: the largest activations are a
    hundred times the mean. For EfficientNet they are its maps divided by SPREAD; no activation function
    follows these maps.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = True) -> None:
        """pretrained: read the weights of the package; without it, the caller brings a model's own."""
        super().__init__()
        self.layers = [layer for layer, _ in config.encoded.values()]
        self.scale = 2 if config.encoder.endswith("x2") else 1
        self.mean = MEAN.get(config.encoder)  # None for EfficientNet
        kind = VGG16 if self.mean else EfficientNetLite0
        self.network = kind.load() if pretrained else kind()

    @classmethod
    def of(cls, config: ModelConfig) -> Encoder | None:
        """The encoder for a configuration, or None if it has none."""
        return cls(config) if config.encoded else None

    @property
    def worth_keeping(self) -> bool:
        """Whether caching its maps on disk saves time. EfficientNet is as fast as reading from disk."""
        return self.mean is not None

    def forward(self, y: Tensor) -> list[Tensor]:
        """Luma y (B,1,H,W) in [-1,1] -> maps, each (B,C,H/stride,W/stride).

        H and W must be multiples of the coarsest map's stride.
        """
        if self.scale != 1:
            y = F.interpolate(y, scale_factor=self.scale, mode="bicubic", align_corners=False)
        found = self.network((y + 1).expand(-1, 3, -1, -1) / 2, last=self.layers[-1])
        if self.mean:
            return [(found[layer] / self.mean[layer]).sqrt() for layer in self.layers]
        return [found[layer] / SPREAD[layer] for layer in self.layers]
