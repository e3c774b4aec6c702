"""A batch as the network sees it while it learns: photos with noise, and what the noise is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class WholeBatch(NamedTuple):
    """What a part of a step's photos has to know of the whole, so that the losses of all parts add up to the whole's."""

    compared: Tensor  # (B,) bool: which of the part's photos have their colours compared
    photos: int  # in the whole step
    photos_compared: int


class Noisy(NamedTuple):
    """A batch as the network sees it, and what it is made of."""

    y: Tensor  # (B,1,H,W) luma in [-1,1]
    x0: Tensor  # (B,2,h,w) true chroma
    eps: Tensor  # (B,2,h,w) noise
    t: Tensor  # (B,) time steps
    xt: Tensor  # (B,2,h,w) noisy chroma
    features: Sequence[Tensor] = ()  # what the encoder sees in y, (B,C,h,w) each
    whole: WholeBatch | None = None  # that this batch is a part of, if it is one
    target: Tensor | None = None  # (B,2,h,w) what the network should say, if a teacher says it
    sighted: Tensor | None = (
        None  # (B,) 1, or 0 for photos that are learnt from without the encoder that learns along
    )

    def only(self, where: Tensor | slice) -> Noisy:
        """The photos at these places."""
        y, x0, eps, t, xt = (tensor[where] for tensor in self[:5])
        whole = self.whole and self.whole._replace(compared=self.whole.compared[where])
        target = None if self.target is None else self.target[where]
        sighted = None if self.sighted is None else self.sighted[where]
        return Noisy(y, x0, eps, t, xt, [each[where] for each in self.features], whole, target, sighted)
