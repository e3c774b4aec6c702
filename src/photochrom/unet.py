"""The network: a U-Net that sees luma and noisy chroma, and predicts v or eps of the chroma.

After Ho et al. 2020 (appendix B) and Dhariwal & Nichol 2021 (scale and shift by time), slimmed for processors: chroma is
smaller than luma by `chroma_scale`, so luma enters as `scale * scale` channels and everything runs at chroma's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import ModelConfig

CHROMA_CHANNELS = 2


def time_features(t: Tensor, length: int) -> Tensor:
    """Sines and cosines of the time step: (B,) in [0, T) -> (B, length). Source: Vaswani et al. 2017, section 3.5."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(length // 2, device=t.device) / (length // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of at least 8 channels, at most 32 groups."""
    return nn.GroupNorm(math.gcd(32, channels // 8), channels)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x)))) * (1 + scale) + shift))), scale and shift from the time."""

    def __init__(self, channels_in: int, channels: int, time_length: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(time_length, 2 * channels)
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        nn.init.zeros_(self.conv2.weight)  # each block begins as the identity (Goyal et al. 2017)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention over all places of a (small) map. Source: Vaswani et al. 2017, section 3.2.

    Heads of 64 channels; one head where 64 does not divide them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 64 if channels % 64 == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(dim=1)  # (B, heads, H*W, C/heads)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(B, C, H, W))


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
    """v or eps of the chroma, from noisy chroma, time step and luma. Source: Ronneberger et al. 2015, and above."""

    def __init__(self, config: ModelConfig) -> None:
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
        self.meaning = nn.ModuleDict(
            {str(i): nn.Conv2d(channels, features[i], 1) for i, (_, channels) in config.encoded.items()}
        )
        self.head = nn.Sequential(
            group_norm(features[0]), nn.SiLU(), nn.Conv2d(features[0], CHROMA_CHANNELS, 3, padding=1)
        )
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which losses are balanced against each other (VQGAN, Esser et al. 2021, equation 7)."""
        weight = self.head[-1].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """xt: (B,2,h,w) noisy chroma; t: (B,) steps; y: (B,1,h*s,w*s) luma in [-1,1]. Returns (B,2,h,w).

        h and w must be multiples of 2 ** (levels - 1). features: what the encoder sees in y (see `Encoder`), one map for
        each level of `config.encoded`.
        """
        time = self.time(time_features(t, self.config.time_embedding))  # (B, L)
        x = torch.cat([xt, F.pixel_unshuffle(y, self.config.chroma_scale)], dim=1)  # (B, 2+s*s, h, w)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        meaning = {i: conv(f) for (i, conv), f in zip(self.meaning.items(), features, strict=True)}
        skips: list[Tensor] = []
        for i, level in enumerate(self.down):
            if i > 0:
                x = self.shrink[i - 1](x)  # (B, next, H/2, W/2)
            x = level(x + meaning[str(i)] if str(i) in meaning else x, time)
            skips.append(x)
        skips.pop()
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = F.interpolate(grow(x), scale_factor=2.0, mode="nearest")  # (B, previous, 2H, 2W)
            x = level(torch.cat([x, skips.pop()], dim=1), time)
        return self.head(x)
