"""Several colourings of one photo: each one, their agreement, and a map of where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.coloring.photo import GrayPhoto
from photochrom.coloring.upsampling import View, lay_over
from photochrom.diffusion.color import CHROMA_UNIT

WIDEST = 0.15  # RMS distance of (Cb,Cr) from their mean that an uncertainty map shows as white
CHANCE = 0.5  # agreement (1: equal, 0: nothing in common) at which 3/4 of the colour stay; half of it: 1/2
DARK = 0.25  # luma, from 0 to 1, below which colourings must agree more
CAUTION = 2.0  # how much more: at black CHANCE is 1 + CAUTION times what it is above DARK
CONTRAST = 0.5  # a colour twice as strong as another becomes 2 ** 1.5 times as strong
BOLDER = 1.5  # largest factor that restores the colourfulness that a mean loses
STRONGEST = 1.1  # times the length that the colourings have at a pixel; a face must not glow in a gray photo


def agreed(c: Tensor, y: Tensor) -> Tensor:
    """Merge N colourings c (N,B,2,h,w) of B photos into one (B,2,h,w) that is about as colourful as they are.

    y: the photos' luma (B,1,s*h,s*w) in [-1,1].

    Agreement at a pixel is the mean product of two different colourings over their mean square: 1 if all are
    equal, 0 if they have nothing in common. Where it is low, the mean fades: disagreement gives gray, not
    brown. It fades more in the dark, where a wrong tint shows most. The mean has also lost contrast between
    gray and coloured things, and a power of the chroma's length gives it back. A factor of at most BOLDER
    then restores the mean chroma length of each photo's colourings, but no pixel gets more than STRONGEST
    times theirs. docs/measurements/agreement.md has the measurements.
    """
    count = len(c)
    if count == 1:
        return c[0]
    mean, square = c.mean(dim=0), c.square().sum(dim=2, keepdim=True).mean(dim=0)
    # Over all pairs j != k: sum of c_j c_k = |sum of c_k|^2 - sum of |c_k|^2.
    product = (count * mean.square().sum(dim=1, keepdim=True) - square) / (count - 1)
    alike = product.clamp(min=0) / square.clamp(min=1e-9)
    Y = (F.avg_pool2d(y, y.shape[-1] // c.shape[-1]) + 1) / 2
    chance = CHANCE * (1 + CAUTION * (1 - Y / DARK).clamp(0, 1))
    kept = mean * (1 + CHANCE) * alike / (alike + chance)
    length = _length(kept)
    kept = kept * (length / _mean(length)) ** CONTRAST
    wanted = _mean(_length(c)).mean(dim=0)
    kept = kept * (wanted / _mean(_length(kept))).clamp(max=BOLDER)
    return kept * (STRONGEST * square.sqrt() / _length(kept).clamp(min=1e-9)).clamp(max=1)


def _length(c: Tensor) -> Tensor:
    """The chroma's length at each pixel: (...,2,h,w) -> (...,1,h,w)."""
    return c.square().sum(dim=-3, keepdim=True).sqrt()  # torch's norm takes five times as long


def _mean(length: Tensor) -> Tensor:
    """The mean over each photo's pixels, above 0: (...,1,h,w) -> (...,1,1,1)."""
    return length.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-9)


class Colorings(Sequence[Image.Image]):
    """The colourings of one photo, as a sequence of images.

    It stores only chroma at the working size and makes an image when one is read, so it takes little memory.
    c: the chroma that the model drew (N,2,h,w). finish: applies strength, palette and hints to chroma
    (1,2,h,w).
    """

    def __init__(
        self,
        photo: GrayPhoto,
        seen: View,
        c: Tensor,
        finish: Callable[[Tensor], Tensor] = lambda c: c,
        keep_gray: Image.Image | None = None,
    ) -> None:
        self.photo = photo
        self.seen = seen
        self.c = c
        self._finish = finish
        self._keep_gray = keep_gray

    def __len__(self) -> int:
        return len(self.c)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> list[Image.Image]: ...

    def __getitem__(self, place: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        return self._picture(self.c[place][None])

    def average(self) -> Image.Image:
        """Merge all colourings into one image, gray where they disagree. See `agreed`."""
        return self._picture(agreed(self.c[:, None], self.seen.y))

    def uncertainty(self) -> Image.Image:
        """A map of where the colourings disagree: mode L, of the photo's size, black where all are equal.

        It shows the root mean square distance of (Cb,Cr), which range from -0.5 to 0.5, from their mean.
        White means 0.15 or more, for every photo.
        """
        spread = CHROMA_UNIT * self.c.var(dim=0, correction=0).sum(dim=0).sqrt()  # (h, w)
        small = Image.fromarray((spread / WIDEST * 255).clamp(max=255).round().to(torch.uint8).numpy())
        height, width = self.seen.extent
        box = (0.0, 0.0, width, height)
        return small.resize(self.photo.luma.size, Image.Resampling.BILINEAR, box=box)

    def _picture(self, c: Tensor) -> Image.Image:
        picture = lay_over(self.photo.luma, self.seen, self._finish(c), self._keep_gray)
        if self.photo.alpha:
            picture.putalpha(self.photo.alpha)
        picture.info = dict(self.photo.info)
        return picture
