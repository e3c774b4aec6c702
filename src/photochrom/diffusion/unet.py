"""The network: a U-Net that sees luma and noisy chroma, and predicts v or eps of the chroma.

It follows Ho et al. 2020 (appendix B) and Dhariwal & Nichol 2021 (scale and shift by time), with less work
for a CPU: chroma is `chroma_scale` times smaller than luma, luma enters as `chroma_scale**2` channels, and
everything runs at chroma's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import ModelConfig
from photochrom.diffusion.encoder import Encoder
from photochrom.model_folder import with_weights

CHROMA_CHANNELS = 2
SMALL_MAP = 256  # pixels


def time_features(t: Tensor, length: int) -> Tensor:
    """Sines and cosines of steps (B,) in [0, T) -> (B, length). Source: Vaswani et al. 2017, section 3.5."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(length // 2, device=t.device) / (length // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GroupNorm(nn.GroupNorm):
    """norm(x) * (1 + scale) + shift, with at most 32 groups of at least 8 channels. Source: Wu & He 2018.

    scale, shift: (B,C), or (1,C) for all photos, or None.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 8), channels)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        weight, bias = self.weight, self.bias
        if scale is None or shift is None:
            return self._normalized(x, weight, bias)
        if len(scale) == 1:  # one step for all photos, as in sampling; this saves a pass over x
            return self._normalized(x, weight * (1 + scale[0]), torch.addcmul(shift[0], bias, 1 + scale[0]))
        normalized = self._normalized(x, weight, bias)
        scale, shift = (each[:, :, None, None].to(normalized.dtype) for each in (scale, shift))
        return torch.addcmul(shift, normalized, 1 + scale)

    def _normalized(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # On smaller maps, torch's bfloat16 kernel takes five times as long as the way through float32.
        if x.dtype == torch.bfloat16 and x.is_cpu and x.shape[2] * x.shape[3] < 1024:
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x)))) * (1 + scale) + shift))); time gives scale, shift."""

    def __init__(self, channels_in: int, channels: int, time_length: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(time_length, 2 * channels)
        self.norm2 = GroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        nn.init.zeros_(self.conv2.weight)  # each block begins as the identity (Goyal et al. 2017)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h, *self.time(time).chunk(2, dim=1)))
        return self.skip(x) + self.conv2(self.dropout(h))


class Attention(nn.Module):
    """Self-attention over all pixels of a small map. Source: Vaswani et al. 2017, section 3.2.

    Each head has 64 channels. If 64 does not divide the channels, there is one head.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 64 if channels % 64 == 0 else 1
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(B, H * W, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, H*W, C/heads), without a copy
        # On a CPU, torch's bfloat16 kernel takes twice as long as the formula for a small map.
        if q.dtype == torch.bfloat16 and x.is_cpu and H * W <= SMALL_MAP:
            h = ((q * (C // self.heads) ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1) @ v
        else:
            h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(1, 2).reshape(B, H, W, C).permute(0, 3, 1, 2))


class Level(nn.Module):
    """The blocks of one level of the U, in one direction."""

    def __init__(self, config: ModelConfig, level: int, channels_in: int) -> None:
        super().__init__()
        channels = config.features[level]
        self.blocks = nn.ModuleList(
            ResidualBlock(
                channels_in if i == 0 else channels, channels, config.time_embedding, config.dropout
            )
            for i in range(config.blocks_at(level))
        )
        attends = level >= len(config.features) - config.attention
        self.attention = Attention(channels) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, time)
        return self.attention(x)


class UNet(nn.Module):
    """Predicts v or eps of the chroma from noisy chroma, step and luma. Source: Ronneberger et al. 2015.

    A trainable encoder is a part of it (`encoder`), so that it is averaged, saved and shared with the other
    weights. The caller runs the encoder once and passes its features to every step.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = True) -> None:
        """pretrained: see `Encoder`; matters only where the encoder is a part of the network."""
        super().__init__()
        self.config = config
        features, length = config.features, config.time_embedding
        coarser = list(pairwise(features))
        self.time = nn.Sequential(nn.Linear(length, length), nn.SiLU(), nn.Linear(length, length), nn.SiLU())
        self.stem = nn.Conv2d(CHROMA_CHANNELS + config.chroma_scale**2, features[0], 3, padding=1)
        self.down = nn.ModuleList(Level(config, i, f) for i, f in enumerate(features))
        self.shrink = nn.ModuleList(nn.Conv2d(f, g, 3, stride=2, padding=1) for f, g in coarser)
        self.grow = nn.ModuleList(nn.Conv2d(g, f, 1) for f, g in coarser)
        self.up = nn.ModuleList(Level(config, i, 2 * f) for i, f in enumerate(features[:-1]))
        self.meaning = nn.ModuleDict(  # 1x1 convolutions of the encoder's maps
            {str(i): nn.Conv2d(channels, features[i], 1) for i, (_, channels) in config.encoded.items()}
        )
        self.encoder = Encoder(config, pretrained).requires_grad_(True) if config.train_encoder else None
        self.head = nn.Sequential(
            GroupNorm(features[0]), nn.SiLU(), nn.Conv2d(features[0], CHROMA_CHANNELS, 3, padding=1)
        )
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, config: ModelConfig, weights: dict[str, Tensor], origin: Path) -> UNet:
        """Build a network for colouring. Raises PhotochromError, naming `origin`, if weights do not fit."""
        network = with_weights(lambda: cls(config, pretrained=False), weights, origin)
        return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which the gradients of losses are balanced (VQGAN, Esser et al. 2021, equation 7)."""
        weight = self.head[-1].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Predict v or eps (B,2,h,w).

        xt: noisy chroma (B,2,h,w), with h and w multiples of 2 ** (levels - 1). t: steps (B,), or (1,) for
        all photos. y: luma (B,1,h*s,w*s) in [-1,1], with s the chroma scale. features: the encoder's maps of
        y (see `Encoder`), one for each level of `config.encoded`.
        """
        return self.head(self.trunk(xt, t, y, features)).float()

    def trunk(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """`forward` without the head: (B,features[0],h,w)."""
        time = self.time(time_features(t, self.config.time_embedding))  # (B, L)
        x = torch.cat([xt, F.pixel_unshuffle(y, self.config.chroma_scale)], dim=1)  # (B, 2+s*s, h, w)
        dtype = self.stem.weight.dtype
        x = self.stem(x.to(dtype, memory_format=torch.channels_last))
        meaning = {i: conv(f.to(dtype)) for (i, conv), f in zip(self.meaning.items(), features, strict=True)}
        skips: list[Tensor] = []
        for i, level in enumerate(self.down):
            if i > 0:
                x = self.shrink[i - 1](x)  # (B, next, H/2, W/2)
            x = level(x + meaning[str(i)] if str(i) in meaning else x, time)
            skips.append(x)
        skips.pop()  # the coarsest level's, which is x itself
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = F.interpolate(grow(x), scale_factor=2.0, mode="nearest")  # (B, previous, 2H, 2W)
            x = level(torch.cat([x, skips.pop()], dim=1), time)
        return x
