"""EfficientNet-Lite0 as an encoder, with maps 8, 16 and 32 times smaller than the photo.

Source: Tan & Le 2019 (EfficientNet), Sandler et al. 2018 (inverted residuals), and the Lite variants of the
TensorFlow authors: no squeeze-and-excitation, ReLU6 for swish. Batch normalisation is folded into the
convolutions, so training the encoder does not change the batch statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.model_folder import read_pretrained, with_weights

WEIGHTS = Path(__file__).parents[1] / "weights" / "efficientnet-lite0.safetensors"
SHA256 = "eb7d5b8d58e9219db1ec0609b04d1909091893e91852f2b55076d261cb7f1182"

STAGES = (  # expansion, kernel, stride, channels, repeats: Tan & Le 2019, table 1
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM = 32
TAPPED = {2: "stride8", 4: "stride16", 6: "stride32"}
"""The last stage of each size, and the name of its map."""


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, for even sizes: stride 2 pads more below and right."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding = 0 if stride == 2 else kernel // 2
        super().__init__(channels_in, channels, kernel, stride, padding, groups=groups)
        self.before = (kernel - 2) // 2, kernel - 2 - (kernel - 2) // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            x = F.pad(x, (*self.before, *self.before))
        if self.groups > 1 and x.dtype == torch.bfloat16 and x.is_cpu and self.weight.requires_grad:
            # For a depthwise convolution, torch's bfloat16 gradient takes four times as long as float32's.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; add the input if the shape stays.

    Source: Sandler et al. 2018, figure 3.
    """

    def __init__(self, channels_in: int, channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels_in
        self.expand = Convolution(channels_in, wide, 1) if expansion != 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = Convolution(wide, channels, 1)
        self.expands, self.adds = expansion != 1, stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.expand(x)) if self.expands else x
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.adds else h


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its head; gives maps of 40, 112 and 320 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        channels_in, stages = STEM, []
        for expansion, kernel, stride, channels, repeats in STAGES:
            blocks = []
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(channels_in, channels, expansion, kernel, stride if i == 0 else 1)
                )
                channels_in = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls) -> Self:
        """Load the weights of the package, frozen. Raises PhotochromError if they are missing or damaged."""
        network = with_weights(cls, read_pretrained(WEIGHTS, SHA256), WEIGHTS)
        return network.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, rgb: Tensor, last: str = "stride32") -> dict[str, Tensor]:
        """rgb (B,3,H,W) in [0,1] -> {name: map (B,C,H/stride,W/stride)}, the maps of `TAPPED` up to `last`.

        H and W must be multiples of the last map's stride.
        """
        x = (rgb * 255 - 127) / 128
        x = F.relu6(self.stem(x.to(self.stem.weight.dtype, memory_format=torch.channels_last)))
        found: dict[str, Tensor] = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in TAPPED:
                found[TAPPED[i]] = x
                if TAPPED[i] == last:
                    break
        return found
