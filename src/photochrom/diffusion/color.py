"""Converts between RGB and the network's luma `y` and chroma `c`.

Source: ITU-R BT.601-7, section 2.5.1, as used by JPEG (ITU-T T.871) and by Pillow's mode "L". Everything is
linear in gamma-encoded RGB. So luma stays exact, and the gamut's edge has a closed form.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
CB_RANGE = 2 * (1 - LUMA_WEIGHTS[2])  # B - Y spans [-0.886, 0.886], Cb = (B - Y) / 1.772 spans [-0.5, 0.5]
CR_RANGE = 2 * (1 - LUMA_WEIGHTS[0])
CHROMA_UNIT = 0.144
"""The divisor of (Cb, Cr): twice their root mean square (0.072) over 3,000 photos of Tiny ImageNet."""
LARGEST_CHROMA = 0.5 / CHROMA_UNIT


def luma(rgb: Tensor) -> Tensor:
    """Rec. 601 luma of gamma-encoded RGB: (B,3,H,W) in [0,1] -> (B,1,H,W) in [0,1]."""
    red, green, blue = rgb.split(1, dim=1)
    return LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue


def in_levels(Y: Tensor) -> Tensor:
    """Round luma Y in [0,1] to the 256 levels of a gray photo, in [-1,1]."""
    return (Y * 255).round() / 127.5 - 1


def from_rgb(rgb: Tensor, scale: int = 1) -> tuple[Tensor, Tensor]:
    """Split RGB into luma, which is given, and chroma, which the network predicts.

    rgb: (B,3,H,W) in [0,1]; H and W divisible by `scale`. Returns luma y (B,1,H,W) in [-1,1] and chroma c
    (B,2,H/scale,W/scale): (Cb,Cr) / CHROMA_UNIT averaged over scale x scale pixels, with a spread of about
    0.5.
    """
    y = luma(rgb)
    c = torch.cat([(rgb[:, 2:] - y) / CB_RANGE, (rgb[:, :1] - y) / CR_RANGE], dim=1) / CHROMA_UNIT
    if scale > 1:
        c = F.avg_pool2d(c, scale)  # (B, 2, H/s, W/s)
    return 2 * y - 1, c


def to_rgb(y: Tensor, c: Tensor) -> Tensor:
    """RGB (B,3,H,W) of luma y (B,1,H,W) in [-1,1] and chroma c (B,2,h,w), which is enlarged to H x W.

    The result is not clamped, so that it has a gradient at black and white too; losses compare it. For
    display, apply `into_gamut` to it.
    """
    if c.shape[-2:] != y.shape[-2:]:
        c = F.interpolate(c, size=y.shape[-2:], mode="bilinear", align_corners=False)
    Y = (y + 1) / 2
    cb, cr = (c * CHROMA_UNIT).split(1, dim=1)
    blue = Y + CB_RANGE * cb
    red = Y + CR_RANGE * cr
    green = (Y - LUMA_WEIGHTS[0] * red - LUMA_WEIGHTS[2] * blue) / LUMA_WEIGHTS[1]
    return torch.cat([red, green, blue], dim=1)


def into_gamut(rgb: Tensor, y: Tensor) -> Tensor:
    """Move each pixel towards the gray of its luma until it is legal, in closed form.

    rgb: (B,3,H,W) of any range, with luma y (B,1,H,W) in [-1,1]. Returns (B,3,H,W) in [0,1] with the same
    luma Y (in [0,1]): Y + k d, with d = rgb - Y and the largest k <= 1 that keeps every channel
    in [0,1]. So k = min over channels of (1-Y)/d if d > 0, Y/(-d) if d < 0. At black and at white, k = 0.
    """
    Y = ((y + 1) / 2).clamp(0, 1)
    d = rgb - Y
    room = torch.where(d > 0, 1 - Y, Y)
    # Dividing by at least `room` gives exactly 1 for legal channels, and avoids 0/0 with its NaN gradient.
    k = (room / torch.maximum(d.abs(), room).clamp_min(1e-12)).amin(dim=1, keepdim=True)
    return (Y + k * d).clamp(0, 1)  # removes only rounding errors


def luma_tensor(photo: Image.Image) -> Tensor:
    """A Pillow image of mode L as luma in [-1,1]: (1,1,H,W)."""
    return torch.from_numpy(np.array(photo, dtype=np.float32))[None, None] / 127.5 - 1


def rgb_tensor(photo: Image.Image) -> Tensor:
    """A Pillow image as RGB in [0,1]: (1,3,H,W)."""
    return torch.from_numpy(np.array(photo.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)[None] / 255


def to_images(y: Tensor, c: Tensor) -> list[Image.Image]:
    """Pillow RGB images of luma y (B,1,H,W) in [-1,1] and chroma c (B,2,h,w), compressed into the gamut.

    Pillow's `convert("L")` of the result gives y's level, within one, at every pixel.
    """
    rgb = into_gamut(to_rgb(y, c), y)
    pixels = (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    return [Image.fromarray(each) for each in pixels]
