"""A training batch: photos with noise, and the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class WholeBatch(NamedTuple):
    """What a part of a batch has to know about the whole, so that the parts' losses add up to the whole's."""

    compared: Tensor  # (B,) bool: whose colours the perceptual and adversarial terms compare; of this part
    photos: int  # in the whole batch
    photos_compared: int  # in the whole batch


class Noisy(NamedTuple):
    """What the network gets, and what it has to predict."""

    y: Tensor  # (B,1,H,W) luma in [-1,1]
    x0: Tensor  # (B,2,h,w) true chroma
    eps: Tensor  # (B,2,h,w) noise
    t: Tensor  # (B,) time steps
    xt: Tensor  # (B,2,h,w) noisy chroma
    features: Sequence[Tensor] = ()  # of the encoder, for y: (B,C,h,w) each
    whole: WholeBatch | None = None  # if this is a part of a batch
    target: Tensor | None = None  # (B,2,h,w) what a teacher predicts
    feature_mask: Tensor | None = None  # (B,) 1, or 0 to hide features; only where the encoder trains

    def only(self, where: Tensor | slice) -> Noisy:
        """The photos at these places."""
        y, x0, eps, t, xt = (tensor[where] for tensor in self[:5])
        whole = self.whole and self.whole._replace(compared=self.whole.compared[where])
        target = None if self.target is None else self.target[where]
        mask = None if self.feature_mask is None else self.feature_mask[where]
        return Noisy(y, x0, eps, t, xt, [each[where] for each in self.features], whole, target, mask)
