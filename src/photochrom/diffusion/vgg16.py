"""VGG16 with weights from the package: losses and measures compare its features, and it can be an encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from photochrom.errors import PhotochromError
from photochrom.model_folder import read_pretrained, with_weights

WEIGHTS = Path(__file__).parents[1] / "weights" / "vgg16-imagenet-conv.safetensors"
SHA256 = "7b9ca95c246c6a584b08b39d71817ee575243b239bbe24153883b85af8384fae"
LAYERS = {3: "relu1_2", 8: "relu2_2", 15: "relu3_3", 22: "relu4_3", 29: "relu5_3"}
_WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class VGG16(nn.Module):
    """The convolutions of VGG16 (Simonyan & Zisserman 2015, configuration D), frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # Pre-processing of the weights of the package, as their README says; torchvision's weights have
        # another.
        mean, scale = (
            torch.tensor([123.68, 116.779, 103.939], device="cpu"),
            torch.tensor(255.0, device="cpu"),
        )
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.mean: Tensor
        self.scale: Tensor
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, weights: str | Path | None = None) -> VGG16:
        """Load VGG16.

        weights: None for the weights of the package, the path of a safetensors file with the same keys and
        pre-processing, or "torchvision", which downloads its weights. Raises PhotochromError for a file that
        is missing, damaged or of another network, and without torchvision.
        """
        if weights == "torchvision":
            return cls._from_torchvision()
        path = Path(weights or WEIGHTS)
        tensors = read_pretrained(path, SHA256 if weights is None else None)
        return with_weights(cls, tensors, path).to(memory_format=torch.channels_last)

    @classmethod
    def _from_torchvision(cls) -> VGG16:
        try:
            from torchvision.models import VGG16_Weights, vgg16
        except ImportError:
            raise PhotochromError(
                "--vgg-weights torchvision needs torchvision: pip install torchvision"
            ) from None
        vgg = cls()
        vgg.features.load_state_dict(vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features.state_dict())
        vgg.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None] / 0.226
        vgg.scale = torch.tensor(1 / 0.226)  # the three standard deviations are 0.229, 0.224, 0.225
        return vgg

    def forward(self, rgb: Tensor, last: str = "relu5_3") -> dict[str, Tensor]:
        """rgb (B,3,H,W) in [0,1] -> {relu1_2: (B,64,H,W), relu2_2: (B,128,H/2,W/2), ...}, up to `last`."""
        dtype = next(self.features.parameters()).dtype
        x = (rgb * self.scale - self.mean).to(dtype, memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in LAYERS:
                found[LAYERS[number]] = x
                if LAYERS[number] == last:
                    break
        return found
