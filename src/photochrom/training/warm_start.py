"""A new network that starts with the weights of another, though its input of the photo differs.

The body of a network knows noise, edges and colours, whatever encoder describes the photo and however large
the photo is. So it need not learn all that again for another encoder or for finer luma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from photochrom.config import ModelConfig
from photochrom.diffusion.unet import CHROMA_CHANNELS, UNet
from photochrom.errors import UsageError

CHANGEABLE = ("chroma_scale", "encoder", "train_encoder")
"""Settings in which a network may differ from the model that it goes on from."""


def refuse_coarser(name: str, old: ModelConfig, new: ModelConfig) -> None:
    """Raise UsageError if the new network's luma is coarser: `fitted` can spread weights, not merge them."""
    if new.chroma_scale < old.chroma_scale:
        raise UsageError(
            f"{name} has chroma_scale = {old.chroma_scale}, which cannot shrink to {new.chroma_scale}: "
            f"take {old.chroma_scale} or more"
        )


def fitted(weights: dict[str, Tensor], old: ModelConfig, network: UNet) -> dict[str, Tensor]:
    """The weights of a network of configuration `old`, fitted to `network`. The two may differ in CHANGEABLE.

    The first convolution spreads its luma weights evenly over the finer pixels: it answers to a photo as it
    did to the same photo at the smaller size. A new encoder's projections start at 0. What the old
    projections added where features are 0 moves into the convolution before. So the network starts as the old
    one did without features. A trained encoder keeps its weights, unless the old network's was another or not
    trained.
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
    """The weight (C,2+old*old,3,3) of a first convolution, for luma with new / old times the pixels a side.

    The channels of luma are the old * old luma pixels under one chroma pixel, row by row (`pixel_unshuffle`).
    Each of them becomes the mean of (new / old) squared finer pixels.
    """
    chroma, luma = weight[:, :CHROMA_CHANNELS], weight[:, CHROMA_CHANNELS:]
    finer = new // old
    pixels = luma.unflatten(1, (old, old))  # (C, old, old, 3, 3)
    pixels = pixels.repeat_interleave(finer, dim=1).repeat_interleave(finer, dim=2) / finer**2
    return torch.cat([chroma, pixels.flatten(1, 2)], dim=1)


def described(name: str, old: ModelConfig, new: ModelConfig) -> str:
    """A sentence for the user: what the new network takes over, and what starts fresh."""
    changes = []
    if new.chroma_scale != old.chroma_scale:
        changes.append(f"its luma is {new.chroma_scale // old.chroma_scale} times finer")
    if new.encoder != old.encoder:
        lost = f"the encoder {old.encoder} is left out"
        changes.append(f"the encoder {new.encoder} is new" if new.encoded else lost)
    if new.train_encoder and not (old.train_encoder and new.encoder == old.encoder):
        changes.append("the encoder is trained too")
    return f"took over all of {name}, with these changes: {', '.join(changes)}"
