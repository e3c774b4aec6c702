"""Several colourings of one photo: each of them, what they agree on, and where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
from PIL import Image
from torch import Tensor

from photochrom.coloring.photo import GrayPhoto
from photochrom.coloring.upsampling import View, lay_over
from photochrom.diffusion.color import CHROMA_UNIT

WIDEST = 0.15  # root mean square distance of (Cb,Cr) from their mean that an uncertainty map shows as white
CHANCE = 0.1  # agreement (1: equal, 0: nothing in common) at which about half of the colour stays
BOLDER = 1.5  # largest factor that gives a mean, which is paler than its parts, their colourfulness back


def agreed(c: Tensor) -> Tensor:
    """What N colourings c (N,B,2,h,w) of B photos agree on, as colourful as they are themselves: (B,2,h,w).

    Agreement at a place is the mean product of two different colourings over their mean square: 1 where all are equal, 0 where
    they have nothing in common. Their mean fades where agreement is near CHANCE or below, so that chance makes gray, not
    brown. Then a factor of BOLDER at most gives each photo the mean chroma length of its colourings back.
    docs/measurements/agreement.md has the measurements.
    """
    count = len(c)
    if count == 1:
        return c[0]
    mean, square = c.mean(dim=0), c.square().sum(dim=2, keepdim=True).mean(dim=0)
    # Over all pairs j != k: sum of c_j c_k = |sum of c_k|^2 - sum of |c_k|^2.
    product = (count * mean.square().sum(dim=1, keepdim=True) - square) / (count - 1)
    alike = product.clamp(min=0) / square.clamp(min=1e-9)
    kept = mean * (1 + CHANCE) * alike / (alike + CHANCE)
    wanted, found = (each.norm(dim=-3, keepdim=True).mean(dim=(-2, -1), keepdim=True) for each in (c, kept))
    return kept * (wanted.mean(dim=0) / found.clamp(min=1e-9)).clamp(max=BOLDER)


class Colorings(Sequence[Image.Image]):
    """Colourings of one photo. They take little memory: chroma at working size, of which a picture is made when it is read.

    c: what the model drew (N,2,h,w). finish: applies strength, palette and hints to such chroma (1,2,h,w).
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
        """What all colourings agree on, gray where they do not. See `agreed`."""
        return self._picture(agreed(self.c[:, None]))

    def uncertainty(self) -> Image.Image:
        """Where the colourings disagree: mode L, of the photo's size, black where all are equal.

        The root mean square distance of (Cb,Cr) from their mean, on a scale that is the same for all photos: white is
        0.15 or more (the whole range is -0.5 to 0.5).
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
