"""Between a photo's full size and the size at which the network works: luma goes down, chroma comes up.

On its way up, chroma is guided by luma, so that it does not run over edges. Source: the fast guided filter, He & Sun 2015
(arXiv:1505.00996), algorithm 2, after He, Sun & Tang 2013, equations 5 to 8. Near a pixel each chroma channel is taken to
be a linear function of luma, c = a y + b. The coefficients are found at the small size, where they cost nothing, and
applied to luma at full size, in strips, so that memory does not grow with the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.pictures import to_images

LONGEST = 8  # times the shorter side; what is longer is squeezed, so that a thin strip costs no more than a panorama
RADIUS = 1  # of the window, in chroma pixels of the working size
EPSILON = 1e-3  # of luma's variance in [-1,1]: what varies less is taken for flat
STRIP_PIXELS = 1 << 18  # small enough for a processor's cache


def coefficients(y: Tensor, c: Tensor) -> Tensor:
    """a and b of c = a y + b, averaged over all windows that a pixel is in: (1,1,h,w), (1,2,h,w) -> (1,4,h,w)."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)

    mean_y, mean_c = mean(y), mean(c)
    a = (mean(y * c) - mean_y * mean_c) / (mean(y * y) - mean_y**2 + EPSILON)
    return mean(torch.cat([a, mean_c - a * mean_y], dim=1))  # (1, 4, h, w)


def places(count: int, size: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Between which two of `size` small pixels each of `count` large ones lies, and how near to the second.

    scale: small pixels per large one; pixel centres are at halves.
    """
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) * scale - 0.5).clamp(0, size - 1)
    first = at.floor().long()
    return first, (first + 1).clamp(max=size - 1), (at - first).float()


@dataclass(frozen=True)
class View:
    """A photo as the network sees it: luma y (1,1,h,w) in [-1,1], of which height x width are the photo's own pixels.

    The rest, below and to the right, is padding. scale: how much smaller chroma is.
    """

    y: Tensor
    height: int
    width: int
    scale: int

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the photo in chroma pixels."""
        return self.height / self.scale, self.width / self.scale


def view(luma: Image.Image, side: int, multiple: int, scale: int) -> View:
    """A photo's luma (mode L) with its shorter side `side` pixels long, padded by reflection to multiples of `multiple`."""
    shrink = side / min(luma.size)
    width, height = (max(1, min(LONGEST * side, round(length * shrink))) for length in luma.size)
    if luma.size != (width, height):
        luma = luma.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=4.0)
    down, right = -height % multiple, -width % multiple
    mode = "reflect" if down < height and right < width else "replicate"
    return View(F.pad(luma_tensor(luma), (0, right, 0, down), mode=mode), height, width, scale)


def lay_over(luma: Image.Image, seen: View, c: Tensor, keep_gray: Image.Image | None = None) -> Image.Image:
    """The RGB image of a photo's own luma (mode L, full size) and of chroma (1,2,h,w) at the working size.

    keep_gray: mode L, of the photo's size; what is white in it stays gray.
    """
    width, height = luma.size
    left, right, near = places(width, c.shape[3], seen.extent[1] / width)
    upper, lower, weight = places(height, c.shape[2], seen.extent[0] / height)
    small = coefficients(F.avg_pool2d(seen.y, seen.scale), c)
    wide = torch.lerp(small[..., left], small[..., right], near)[0]  # (4, h, W)
    image = Image.new("RGB", luma.size)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        box = (0, strip.start, width, strip.stop)
        guide = luma_tensor(luma.crop(box))  # (1, 1, rows, W)
        ab = torch.lerp(wide[:, upper[strip]], wide[:, lower[strip]], weight[strip, None])[None]
        chroma = torch.addcmul(ab[:, 2:], ab[:, :2], guide)  # (1, 2, rows, W)
        if keep_gray is not None:
            chroma *= (1 - luma_tensor(keep_gray.crop(box))) / 2
        image.paste(to_images(guide, chroma)[0], box)
    return image


def luma_tensor(photo: Image.Image) -> Tensor:
    """A Pillow image of mode L as luma in [-1,1]: (1,1,H,W)."""
    return torch.from_numpy(np.array(photo, dtype=np.float32))[None, None] / 127.5 - 1
