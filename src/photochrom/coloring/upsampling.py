"""Shrinks luma to the network's working size, and enlarges chroma from there to the photo's full size.

Luma guides the enlarging, so that colours stop at edges. Near a pixel, each chroma channel is modelled as a
linear function of luma with slope a, as in the guided filter (He, Sun & Tang 2013, equation 5). The guided
filter itself would smooth the network's chroma. So chroma is enlarged unchanged, and the detail of luma that
the small size has lost is added with slope a, as in pansharpening with a regression gain (Vivone et al.
2015):

    c = up(c) + up(a) (y - up(y)),   a = cov(y, c) / (var(y) + EPSILON)

The result is clamped between the lowest and the highest chroma nearby. docs/measurements/bleeding.md has the
measurements. The work goes in strips, so its memory does not grow with the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.diffusion.color import luma_tensor, to_images

Kernel = Callable[[Tensor], Tensor]

LONGEST = 8  # longer side over shorter side; longer photos are squeezed, so that a thin strip stays cheap
EPSILON = 0.01  # variance of luma in [-1,1] below which chroma hardly follows luma
STRIP_PIXELS = 1 << 17  # small enough for a CPU's cache


@dataclass(frozen=True)
class View:
    """A photo as the network sees it.

    y: luma (1,1,h,w) in [-1,1]. height, width: the photo's own pixels; the rest, below and to the right, is
    padding. scale: how many times smaller chroma is than luma.
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
    """Resize luma (mode L) to the shorter side `side`; reflection pads it to multiples of `multiple`."""
    shrink = side / min(luma.size)
    width, height = (max(1, min(LONGEST * side, round(length * shrink))) for length in luma.size)
    if luma.size != (width, height):
        luma = luma.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=4.0)
    down, right = -height % multiple, -width % multiple
    mode = "reflect" if down < height and right < width else "replicate"
    return View(F.pad(luma_tensor(luma), (0, right, 0, down), mode=mode), height, width, scale)


def lay_over(luma: Image.Image, seen: View, c: Tensor, keep_gray: Image.Image | None = None) -> Image.Image:
    """Combine luma (mode L, full size) with chroma (1,2,h,w) at the working size into an RGB image.

    keep_gray: mode L, full size, white where the photo stays gray.
    """
    image = Image.new("RGB", luma.size, None)  # every strip is pasted: no need to fill it
    small_y = F.avg_pool2d(seen.y, seen.scale)
    for top, y, chroma in guided(luma, small_y, c, seen.extent):
        box = (0, top, luma.width, top + y.shape[2])
        if keep_gray is not None:
            chroma.mul_((1 - luma_tensor(keep_gray.crop(box))) / 2)
        image.paste(to_images(y, chroma)[0], box)
    return image


def guided(
    luma: Image.Image, small_y: Tensor, c: Tensor, extent: tuple[float, float]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Enlarge chroma, in strips from top to bottom: first row, luma (1,1,rows,W), chroma (1,2,rows,W).

    small_y (1,1,h,w), c (1,2,h,w): luma and chroma at the small size. extent: the part of h and w without
    padding.
    """
    width, height = luma.size
    h, w = c.shape[-2:]
    smooth = torch.cat([c, small_y], dim=1)[0]  # (3, h, w)
    lowest, highest = -F.max_pool2d(-c, 3, 1, 1), F.max_pool2d(c, 3, 1, 1)
    sharp = torch.cat([slope(small_y, c), lowest, highest], dim=1)[0]  # (6, h, w)
    smooth = smooth @ interpolation(width, w, extent[1] / width, cubic, 2).T  # (3, h, W)
    sharp = sharp @ interpolation(width, w, extent[1] / width, linear, 1).T  # (6, h, W)
    down_smooth = interpolation(height, h, extent[0] / height, cubic, 2)  # (H, h)
    down_sharp = interpolation(height, h, extent[0] / height, linear, 1)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        y = luma_tensor(luma.crop((0, top, width, bottom)))
        used = down_smooth[top:bottom].any(dim=0).nonzero()  # a strip needs only a few small rows
        near = slice(int(used[0]), int(used[-1]) + 1)
        up = down_smooth[top:bottom, near] @ smooth[:, near]  # (3, rows, W)
        a, low, high = (down_sharp[top:bottom, near] @ sharp[:, near]).split(2)
        chroma = up[:2].addcmul(a, y[0] - up[2:])
        yield top, y, torch.minimum(torch.maximum(chroma, low), high)[None]


def slope(y: Tensor, c: Tensor) -> Tensor:
    """The slope a of c = a y + b around each pixel, by least squares: (1,1,h,w), (1,2,h,w) -> (1,2,h,w)."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    covariance, variance = mean(y * c) - mean(y) * mean(c), mean(y * y) - mean(y) ** 2
    return mean(covariance / (variance + EPSILON))


@lru_cache(maxsize=8)  # without it, many small photos of one size spend half their time here
def interpolation(count: int, size: int, scale: float, kernel: Kernel, reach: int) -> Tensor:
    """The matrix (count,size) that enlarges `size` pixels to `count`; `scale` small pixels make a large one.

    Pixel centres lie at halves. Outside, the outermost pixel repeats.
    """
    at = (torch.arange(count, dtype=torch.float64) + 0.5) * scale - 0.5
    matrix = torch.zeros(count, size, dtype=torch.float64)
    for tap in range(1 - reach, reach + 1):
        place = at.floor() + tap
        column = place.long().clamp(0, size - 1)[:, None]
        matrix.scatter_add_(1, column, kernel((at - place).abs())[:, None])
    return matrix.float()


def linear(d: Tensor) -> Tensor:
    """The kernel of bilinear interpolation at distance d in [0,1]."""
    return 1 - d


def cubic(d: Tensor) -> Tensor:
    """The kernel of bicubic interpolation at distance d in [0,2]. Source: Keys 1981, equation 15."""
    return torch.where(d <= 1, (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2)
