"""Several colourings of one photo: each of them, their mean, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from PIL import Image
from torch import Tensor

from photochrom.color import CHROMA_UNIT
from photochrom.fullsize import View, lay_over
from photochrom.photo import GrayPhoto

WIDEST = 0.15  # root mean square distance of (Cb,Cr) from their mean that an uncertainty map shows as white


class Samples(Sequence[Image.Image]):
    """Colourings of one photo. Kept as chroma at working size; a full picture is made each time one is asked for."""

    def __init__(self, photo: GrayPhoto, seen: View, c: Tensor, keep_gray: Image.Image | None) -> None:
        self.photo = photo
        self.seen = seen
        self.c = c  # (N, 2, h, w)
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
        """The mean of all colourings: what they agree on; where they do not, it is pale."""
        return self._picture(self.c.mean(dim=0, keepdim=True))

    def uncertainty(self) -> Image.Image:
        """Where the colourings disagree, of the photo's size, mode L: black where all are equal, so none is a guess.

        The root mean square distance of (Cb,Cr) from their mean, on a scale that is the same for all photos: white is
        0.15 or more (the whole range is -0.5 to 0.5).
        """
        spread = CHROMA_UNIT * self.c.var(dim=0, correction=0).sum(dim=0).sqrt()  # (h, w)
        small = Image.fromarray((spread / WIDEST * 255).clamp(max=255).round().to(torch.uint8).numpy())
        height, width = self.seen.extent
        box = (0.0, 0.0, width, height)
        return small.resize(self.photo.luma.size, Image.Resampling.BILINEAR, box=box)

    def _picture(self, c: Tensor) -> Image.Image:
        picture = lay_over(self.photo.luma, self.seen, c, self._keep_gray)
        if self.photo.alpha:
            picture.putalpha(self.photo.alpha)
        picture.info = dict(self.photo.info)
        return picture
