"""The photos of a data set as the network sees them: luma, chroma, and the encoder's features of the luma."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.encoder import Encoder
from photochrom.precision import Arithmetic
from photochrom.randomness import Indices
from photochrom.training.aging import aged_luma
from photochrom.training.features import KeptFeatures, feature_key, keep
from photochrom.training.photos_on_gpu import PhotosOnGpu
from photochrom.training.workers import Workers


class Photos(NamedTuple):
    """Photos, possibly mirrored and aged."""

    y: Tensor  # (B,1,S,S) luma in [-1,1]
    x0: Tensor  # (B,2,S/s,S/s) true chroma
    features: Sequence[Tensor]  # of the encoder, for y: (B,C,h,w) each


class Inputs:
    """Reads photos and encodes them.

    After `prepare` it reads the encoder's features from disk, or the photos from the GPU's memory.
    """

    def __init__(
        self,
        config: Config,
        pack: DataSet,
        arithmetic: Arithmetic,
        workers: Workers,
        trained_encoder: Encoder | None,
    ) -> None:
        """trained_encoder: the averaged encoder of a network that trains its own."""
        self.config, self.pack, self.arithmetic, self.workers = config, pack, arithmetic, workers
        self.device = arithmetic.device
        self.trained_encoder = trained_encoder
        encoder = trained_encoder or Encoder.of(config.model)
        self.encoder = encoder.to(self.device) if encoder else None
        self.kept: KeptFeatures | None = None
        self.on_gpu: PhotosOnGpu | None = None

    def of(
        self,
        photos: Indices,
        flip: Tensor | None = None,
        aged: float = 0.0,
        encode: bool = True,
        side: int | None = None,
    ) -> Photos:
        """B photos, by their numbers.

        flip: (B,) bool, which of them to mirror. aged: the share of them to age; what `prepare` keeps is aged
        already. encode: whether to add features. side: in pixels, to shrink them to, if not their own.
        """
        if self.on_gpu:
            rgb, luma = (shrunk(each, side) for each in self.on_gpu(photos))
            luma = mirrored(color.in_levels((luma + 1) / 2) if side else luma, flip)
            _, chroma = color.from_rgb(rgb, self.config.model.chroma_scale)
            return Photos(luma, mirrored(chroma, flip), self.encode(luma) if encode else ())
        rgb = self.pack.rgb(photos)  # (B, 3, S, S)

        def part_of(part: slice) -> Photos:
            return self._part(
                rgb[part], photos[part], None if flip is None else flip[part], aged, encode, side
            )

        y, x0, features = zip(*self.workers.map(part_of, self.workers.slices(len(photos))), strict=True)
        return Photos(torch.cat(y), torch.cat(x0), [torch.cat(maps) for maps in zip(*features, strict=True)])

    def _part(
        self,
        rgb: Tensor,
        photos: Indices,
        flip: Tensor | None,
        aged: float,
        encode: bool,
        side: int | None,
    ) -> Photos:
        """What one worker does of `of`; rgb (B,3,S,S) are the photos."""
        y, x0 = color.from_rgb(shrunk(rgb, side).to(self.device), self.config.model.chroma_scale)
        x0 = mirrored(x0, flip)
        if self.kept:
            rows = photos if flip is None else photos + self.kept.count // 2 * flip.numpy()
            y, features = self.kept(rows)
            return Photos(y, x0, features)
        if aged:
            y = shrunk(aged_luma(rgb, 2 * color.luma(rgb) - 1, photos, aged), side).to(self.device)
        y = mirrored(y, flip)
        if self.config.model.encoded:
            y = color.in_levels((y + 1) / 2)  # kept features round luma too: both ways train alike
        return Photos(y, x0, self.encode(y) if encode else ())

    @torch.no_grad()
    def encode(self, y: Tensor) -> Sequence[Tensor]:
        """The encoder's features of luma y (B,1,S,S); none without an encoder."""
        if not self.encoder:
            return ()
        with self.arithmetic.autocast():
            features: list[Tensor] = self.encoder(y)
        return features

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Keep what every step would compute again. Returns notes for the user.

        progress(done, total) counts photos. It may raise to stop; the next call goes on with features, and
        begins with photos anew.
        """
        notes = self.keep_features(progress)
        # In bytes, luma is rounded, as it is for an encoder anyway.
        read_in_steps = self.encoder and not (self.kept or self.on_gpu)
        if read_in_steps and isinstance(self.pack, Pack) and PhotosOnGpu.fit(self.pack, self.device):
            self.on_gpu = PhotosOnGpu(self.pack, self.config.data.aged, self.device, progress)
        return notes

    def keep_features(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Store the features of all photos on disk, then of all photos mirrored. Returns notes for the user.

        Does nothing if the configuration forbids it, the encoder trains or is as fast as the disk, the photos
        lie in shards, or the network sees them at several sides. progress(done, total) counts photos. It may
        raise to stop; the next call goes on there.
        """
        pack, aged = self.pack, self.config.data.aged
        fixed = self.encoder if not (self.trained_encoder or self.config.data.sides) else None
        if not (fixed and fixed.worth_keeping and self.config.data.keep_features) or self.kept:
            return []
        if not isinstance(pack, Pack):
            return []  # shards hold more photos than a disk holds features
        count, in_training = len(pack.split), pack.split == "train"

        def compute(rows: Indices) -> tuple[Tensor, Sequence[Tensor]]:
            photos = rows % count
            rgb = pack.rgb(photos)
            y, _ = color.from_rgb(rgb)
            if aged:
                may_age = torch.from_numpy(in_training[photos])[:, None, None, None]
                y = torch.where(may_age, aged_luma(rgb, y, photos, aged), y)
            y = mirrored(y, torch.from_numpy(rows >= count))
            y = color.in_levels((y + 1) / 2).to(self.device)  # the file stores luma in bytes
            return y, self.encode(y)

        y, features = compute(np.arange(1))
        shapes = [tuple(each.shape[1:]) for each in (y, *features)]
        path = pack.folder / f"features-{feature_key(self.config, pack.checksum)}.bytes"
        try:
            with processes.first_before_others():
                rows = (1 + self.config.data.flip) * count
                self.kept = keep(path, shapes, rows, compute, progress, self.device)
        except OSError as error:
            return [
                f"cannot keep the encoder's features in {path.parent} ({error.strerror}): every step "
                "computes them again, which takes longer; free some space, or give --no-keep-features"
            ]
        return []

    def free_memory(self) -> None:
        """Read kept features and photos from disk from now on, so that the GPU has their memory."""
        self.on_gpu = None
        if self.kept:
            self.kept.free_gpu_memory()


def shrunk(photos: Tensor, side: int | None) -> Tensor:
    """Photos (B,C,S,S) as (B,C,side,side), each pixel a mean of those it covers; None keeps their size."""
    if side in (None, photos.shape[-1]):
        return photos
    return F.interpolate(photos, (side, side), mode="bilinear", antialias=True, align_corners=False)


def mirrored(photos: Tensor, which: Tensor | None) -> Tensor:
    """Photos (B,C,H,W); those that `which` (B,) bool marks have left and right exchanged."""
    if which is None:
        return photos
    return torch.where(which.to(photos.device)[:, None, None, None], photos.flip(-1), photos)
