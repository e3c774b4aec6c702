"""The network: a U-Net that sees luma and noisy chroma, and predicts v or eps of the chroma.

After Ho et al. 2020 (appendix B) and Dhariwal & Nichol 2021 (scale and shift by time), slimmed for processors: chroma is
smaller than luma by `chroma_scale`, so luma enters as `scale * scale` channels and everything runs at chroma's size.
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
from photochrom.model_folder import check_tensors

CHROMA_CHANNELS = 2
SMALL_MAP = 256  # places


def time_features(t: Tensor, length: int) -> Tensor:
    """Sines and cosines of the time step: (B,) in [0, T) -> (B, length). Source: Vaswani et al. 2017, section 3.5."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(length // 2, device=t.device) / (length // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GroupNorm(nn.GroupNorm):
    """norm(x) * (1 + scale) + shift in groups of at least 8 channels, at most 32 groups. Source: Wu & He 2018.

    scale, shift: (B,C), or (1,C) for all photos.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 8), channels)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        weight, bias = self.weight, self.bias
        if scale is None or shift is None:
            return self._normalized(x, weight, bias)
        if len(scale) == 1:  # one step for all photos, as in sampling: spares a pass over x
            return self._normalized(x, weight * (1 + scale[0]), torch.addcmul(shift[0], bias, 1 + scale[0]))
        normalized = self._normalized(x, weight, bias)
        scale, shift = (each[:, :, None, None].to(normalized.dtype) for each in (scale, shift))
        return torch.addcmul(shift, normalized, 1 + scale)

    def _normalized(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # Torch's bfloat16 kernel for maps smaller than this takes five times as long as going through float32.
        if x.dtype == torch.bfloat16 and x.is_cpu and x.shape[2] * x.shape[3] < 1024:
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x)))) * (1 + scale) + shift))), scale and shift from the time."""

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
    """Self-attention over all places of a (small) map. Source: Vaswani et al. 2017, section 3.2.

    Heads of 64 channels; one head where 64 does not divide them.
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
        # Over a small map, torch's bfloat16 kernel takes twice as long as the formula on a processor.
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
    """v or eps of the chroma, from noisy chroma, time step and luma. Source: Ronneberger et al. 2015, and above.

    An encoder that learns along is part of it (`encoder`), so that it is averaged, saved and shared with all else; who calls
    the network asks it first for what it sees, once for all steps of a colouring.
    """

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
        self.encoder = Encoder(config).requires_grad_(True) if config.train_encoder else None
        self.head = nn.Sequential(
            GroupNorm(features[0]), nn.SiLU(), nn.Conv2d(features[0], CHROMA_CHANNELS, 3, padding=1)
        )
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, config: ModelConfig, weights: dict[str, Tensor], origin: Path) -> UNet:
        """A network to colour with; raises PhotochromError, naming `origin`, if the weights belong to another."""
        with torch.device("meta"):  # takes no memory, however large a network a stranger's file describes
            network = cls(config)
        check_tensors(network, weights, origin)
        network.load_state_dict(weights, assign=True)
        return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which losses are balanced against each other (VQGAN, Esser et al. 2021, equation 7)."""
        weight = self.head[-1].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """xt: (B,2,h,w) noisy chroma; t: (B,) steps, or (1,) for all photos; y: (B,1,h*s,w*s) luma in [-1,1]. Returns (B,2,h,w).

        h and w must be multiples of 2 ** (levels - 1). features: what the encoder sees in y (see `Encoder`), one map for
        each level of `config.encoded`.
        """
        return self.head(self.trunk(xt, t, y, features)).float()

    def trunk(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """All but the head, (B,features[0],h,w): see `forward`."""
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
        skips.pop()  # of the coarsest level, which is x itself
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = F.interpolate(grow(x), scale_factor=2.0, mode="nearest")  # (B, previous, 2H, 2W)
            x = level(torch.cat([x, skips.pop()], dim=1), time)
        return x
