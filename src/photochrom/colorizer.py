"""The one door to a trained model: `Colorizer.load(name)(photo) -> photo`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom import store
from photochrom.config import Config
from photochrom.data.sources import open_photo
from photochrom.diffusion import Diffusion, sample
from photochrom.errors import UsageError
from photochrom.pictures import to_images
from photochrom.unet import UNet

Photo = Image.Image | str | Path
BATCH = 32
LONGEST = 8


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is: CUDA, then Apple's MPS, then the processor."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


class Colorizer:
    """A trained model that colours photos.

    >>> colorizer = Colorizer.load("my_model")          # doctest: +SKIP
    >>> colorizer("old.jpg").save("coloured.png")       # doctest: +SKIP
    """

    def __init__(
        self, config: Config, weights: dict[str, Tensor], origin: Path, device: str | None = None
    ) -> None:
        self.config = config
        self.device = pick_device(device)
        self.network = UNet(config.model)
        store.load_tensors(self.network, weights, origin)
        self.network.eval().requires_grad_(False).to(self.device)
        self.diffusion = Diffusion(config.diffusion)

    @classmethod
    def load(cls, model: str | Path, models: str | Path = "models", device: str | None = None) -> Colorizer:
        """Load a model by name (under `models`), by its folder, or by its `model.safetensors`.

        Raises PhotochromError for an unknown model (listing those there are) and for weights that do not fit.
        """
        path = Path(model)
        weights = (
            path if path.suffix == ".safetensors" else store.find_model(model, Path(models)) / store.WEIGHTS
        )
        config, tensors = store.read_weights(weights)
        return cls(config, tensors, weights, device)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, but means one path
        self,
        photos: Photo,
        *,
        steps: int = ...,
        seed: int = ...,
        sampler: str = ...,
        progress: Callable[[int, int], None] | None = ...,
    ) -> Image.Image: ...
    @overload
    def __call__(
        self,
        photos: Sequence[Photo],
        *,
        steps: int = ...,
        seed: int = ...,
        sampler: str = ...,
        progress: Callable[[int, int], None] | None = ...,
    ) -> list[Image.Image]: ...

    def __call__(
        self,
        photos: Photo | Sequence[Photo],
        *,
        steps: int = 20,
        seed: int = 0,
        sampler: str = "ddim",
        progress: Callable[[int, int], None] | None = None,
    ) -> Image.Image | list[Image.Image]:
        """Colour one photo or several; each keeps its size and its luma, within one level of 255.

        photos: Pillow images (any mode) or paths. steps: network evaluations, 20 by default. seed: the same seed
        gives a photo the same colours, whatever photos are beside it (each photo has noise of its own). sampler: "ddim", "dpm++" or "ddpm".
        progress(done, total) counts steps over all batches. Returns RGB images, one or a list as given.
        """
        if isinstance(photos, (str, Path, Image.Image)):
            return self([photos], steps=steps, seed=seed, sampler=sampler, progress=progress)[0]
        lumas = [open_photo(photo).convert("L") for photo in photos]
        small = [self._working_luma(luma) for luma in lumas]  # each (1, 1, h, w)
        batches = _batches(small)
        total = len(batches) * steps
        coloured: dict[int, Image.Image] = {}
        for number, batch in enumerate(batches):

            def step_done(step: int, x0: Tensor, before: int = number * steps) -> None:
                if progress:
                    progress(before + step + 1, total)

            y = torch.cat([small[i] for i in batch])
            seeds = [photo_seed(lumas[i], seed) for i in batch]
            c = self.chroma(y, seeds, steps=steps, sampler=sampler, callback=step_done)
            for row, i in enumerate(batch):
                coloured[i] = enlarge(lumas[i], c[row : row + 1], self._working_size(lumas[i]), self.config)
        return [coloured[i] for i in range(len(lumas))]

    def chroma(
        self,
        y: Tensor,
        seeds: Sequence[int],
        *,
        steps: int = 20,
        sampler: str = "ddim",
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The chroma (B,2,H/s,W/s) of a batch of luma y (B,1,H,W) in [-1,1], on the processor.

        seeds: one per photo. H and W must be multiples of `config.model.multiple`. callback: see `diffusion.sample`.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return sample(
            self.network, self.diffusion, y.to(self.device), generators, steps, sampler, callback
        ).cpu()

    def _working_size(self, photo: Image.Image) -> tuple[int, int]:
        """(height, width) at which the network sees a photo: its shorter side as long as in training.

        What is longer than LONGEST times that is squeezed, so that a thin strip costs no more than a panorama.
        """
        size = self.config.data.size or 64
        scale = size / min(photo.size)
        longest = LONGEST * size
        return min(longest, round(photo.height * scale)), min(longest, round(photo.width * scale))

    def _working_luma(self, photo: Image.Image) -> Tensor:
        """Luma in [-1,1] at working size, padded by reflection to what the network needs: (1,1,h,w)."""
        height, width = self._working_size(photo)
        if photo.size != (width, height):
            photo = photo.resize((width, height), Image.Resampling.LANCZOS)
        y = luma_tensor(photo)
        multiple = self.config.model.multiple
        down, right = -height % multiple, -width % multiple
        mode = "reflect" if down < height and right < width else "replicate"
        return F.pad(y, (0, right, 0, down), mode=mode)


def photo_seed(luma: Image.Image, seed: int) -> int:
    """The seed of one photo's noise, a function of the photo and of `seed`.

    Noise decides among plausible tints; the same for a whole album would give all its photos the same ones.
    """
    digest = hashlib.blake2b(luma.tobytes(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) >> 1  # a torch seed has 63 bits that are not the sign


def luma_tensor(photo: Image.Image) -> Tensor:
    """A Pillow image of mode L as luma in [-1,1]: (1,1,H,W)."""
    return torch.from_numpy(np.array(photo, dtype=np.float32))[None, None] / 127.5 - 1


def enlarge(photo: Image.Image, c: Tensor, working: tuple[int, int], config: Config) -> Image.Image:
    """Lay chroma of the padded working size over the photo's own luma, at the photo's own size."""
    y = luma_tensor(photo)
    scale = config.model.chroma_scale
    if working == y.shape[-2:] and working[0] % scale == 0 and working[1] % scale == 0:
        return to_images(y, c[..., : working[0] // scale, : working[1] // scale])[0]
    c = F.interpolate(c, scale_factor=float(scale), mode="bilinear", align_corners=False)
    return to_images(y, c[..., : working[0], : working[1]])[0]


def _batches(photos: Sequence[Tensor]) -> list[list[int]]:
    """Indices of photos that can be coloured together: of the same working size, at most BATCH."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, photo in enumerate(photos):
        by_shape.setdefault(tuple(photo.shape), []).append(index)
    return [group[i : i + BATCH] for group in by_shape.values() for i in range(0, len(group), BATCH)]
