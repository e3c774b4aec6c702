"""A new network that begins with what another has learnt, though it sees the photo in another way.

The body of a network knows what noise, edges and colours are, whatever encoder tells it what a photo shows and however
large the photo is. So another encoder and finer luma are no reason to learn all of it once more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from photochrom.config import ModelConfig
from photochrom.diffusion.unet import CHROMA_CHANNELS, UNet
from photochrom.errors import UsageError

CHANGEABLE = ("chroma_scale", "encoder", "train_encoder")
"""The settings of a network that may differ from those of the model that it goes on from."""


def refuse_coarser(name: str, old: ModelConfig, new: ModelConfig) -> None:
    """Raise UsageError if luma of the new network is coarser beside its chroma: weights can be spread, not gathered."""
    if new.chroma_scale < old.chroma_scale:
        raise UsageError(
            f"{name} has chroma_scale = {old.chroma_scale}, and {new.chroma_scale} cannot be made of it: take as much or more"
        )


def fitted(weights: dict[str, Tensor], old: ModelConfig, network: UNet) -> dict[str, Tensor]:
    """The weights of a network of the configuration `old`, made to fit the new one; the two differ in CHANGEABLE alone.

    The first convolution's weights for luma are spread evenly over the finer pixels, so that it says of a photo what it said
    of the same photo made smaller. Projections of another encoder's maps begin at 0, and what those of the old one added where
    its maps are 0 moves into the convolution before: so the network begins as the old one blind. An encoder that is to learn
    along begins as it was learnt, or as it comes.
    """
    new, found = network.config, dict[str, Tensor]()
    for key, value in network.state_dict().items():
        if key == "stem.weight":
            found[key] = spread(weights[key], old.chroma_scale, new.chroma_scale)
        elif key.startswith("meaning.") and new.encoder != old.encoder:
            found[key] = torch.zeros_like(value)
        elif key.startswith("encoder.") and not (old.train_encoder and new.encoder == old.encoder):
            found[key] = value.clone()
        else:
            found[key] = weights[key]
    if new.encoder != old.encoder:
        for level in old.encoded:
            before = f"shrink.{level - 1}.bias" if level else "stem.bias"
            found[before] = found[before] + weights[f"meaning.{level}.bias"]
    return found


def spread(weight: Tensor, old: int, new: int) -> Tensor:
    """The weight (C,2+old*old,3,3) of a first convolution, for luma whose pixels are new / old times finer.

    Luma's channels are the old * old pixels of a pixel of chroma, row by row (`pixel_unshuffle`); each becomes the mean of
    (new / old) squared.
    """
    chroma, luma = weight[:, :CHROMA_CHANNELS], weight[:, CHROMA_CHANNELS:]
    finer = new // old
    pixels = luma.unflatten(1, (old, old))  # (C, old, old, 3, 3)
    pixels = pixels.repeat_interleave(finer, dim=1).repeat_interleave(finer, dim=2) / finer**2
    return torch.cat([chroma, pixels.flatten(1, 2)], dim=1)


def told(name: str, old: ModelConfig, new: ModelConfig) -> str:
    """A sentence for the person who waits: what was taken over, and what begins anew."""
    changes = []
    if new.chroma_scale != old.chroma_scale:
        changes.append(f"its luma is {new.chroma_scale // old.chroma_scale} times finer")
    if new.encoder != old.encoder:
        begins = "begins unheard" if new.encoded else "is left out"
        changes.append(f"the encoder {new.encoder if new.encoded else old.encoder} {begins}")
    if new.train_encoder and not (old.train_encoder and new.encoder == old.encoder):
        changes.append("the encoder learns along")
    return f"all of {name} is taken over but this: {', '.join(changes)}"
