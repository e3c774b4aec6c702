"""The one door to a trained model: `Colorizer.load(name)(photo) -> photo`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypedDict, Unpack, cast, overload

import torch
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorings import Samples
from photochrom.coloring.hints import Hint, Palette, gray_mask, held_places
from photochrom.coloring.onnx import OnnxNetwork, read_onnx
from photochrom.coloring.photo import GrayPhoto, Photo, open_gray
from photochrom.coloring.upsampling import View, view
from photochrom.config import Config
from photochrom.data.reading import KINDS, MAX_PIXELS, is_photo
from photochrom.diffusion.diffusion import Diffusion, Held, sample
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.errors import UsageError
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16

BATCH = 64
ENCODED_AT_ONCE = 16
MOST_SAMPLES = 64
MOST_GUIDANCE = 10
BATCH_PIXELS = BATCH * 64 * 96  # of luma at working size, which bounds memory
DETAIL = (8, 1024)  # smallest and largest working size


class Options(TypedDict, total=False):
    """How photos are coloured. The flags of `photochrom colorize` have the same names.

    steps: network evaluations for each colouring (default: 20, or what the model was distilled for). seed: 0; the same
    seed gives a photo the same colours, whatever photos are beside it (each photo has noise of its own). sampler: "ddim",
    "unipc", "dpm++" or "ddpm"; unipc gets as far in 8 steps as ddim in 20 (docs/measurements/samplers.md). guidance: how far
    the encoder leads colours from what they would be without it (default: as the model says; 1 is plain, in half the time).
    strength: what chroma is multiplied by, but for hints, 1; 0 is gray, above 1 is bolder. temperature: what the first noise is
    multiplied by, 1; less gives colours nearer to the average; not for "ddpm". detail: the length of the shorter side
    at which the network sees the photo (default: see `default_detail`).
    hints: places whose colour is known, as `Hint`s or as a transparent picture with strokes of colour that fits the
    photo; for a single photo. keep_gray: a picture, white where the photo stays gray; for a single photo. like: a colour
    photo whose colours, brightness by brightness, the result takes on.
    max_megapixels: larger photos are refused before they are decoded, 120. truncated: colour what there is of a file that
    was cut short. progress(done, total) counts steps over all batches; what it raises ends the colouring.
    """

    steps: int | None
    seed: int
    sampler: str
    guidance: float | None
    strength: float
    temperature: float
    detail: int | None
    hints: Sequence[Hint] | Photo | None
    keep_gray: Photo | None
    like: Photo | None
    max_megapixels: float
    truncated: bool
    progress: Callable[[int, int], None] | None


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

    >>> colorizer = Colorizer.load("my_model")  # a name under models/
    >>> colorizer("old.jpg").save("coloured.png")
    >>> one, two = colorizer(["old.jpg", "other.png"], steps=4, seed=7)
    >>> red = colorizer("old.jpg", hints=[Hint(12, 8, (200, 40, 40))], strength=1.2)
    >>> several = colorizer.samples("old.jpg", 3, steps=4)
    >>> len(several), several[0].size == several.uncertainty().size
    (3, True)
    """

    def __init__(self, config: Config, network: UNet | OnnxNetwork, device: str | None = None) -> None:
        self.config = config
        self.device = pick_device(device)
        self.network = network.to(self.device)
        self.diffusion = Diffusion(config.diffusion)
        encoder = self.network.encoder or Encoder.of(config.model)
        self.encoder = encoder.to(self.device) if encoder else None
        if self.device.type == "cpu" and bfloat16_is_faster():
            convolve_in_bfloat16(self.network)
            if self.encoder:
                convolve_in_bfloat16(self.encoder)

    @classmethod
    def load(
        cls,
        model: str | Path,
        models: str | Path = "models",
        device: str | None = None,
        engine: str | None = None,
    ) -> Self:
        """Load a model by name (under `models`), by its folder, or by a file: its `model.safetensors` or `model.onnx`.

        engine: "torch" or "onnx", which runs the network on the processor. Raises PhotochromError for an unknown model (listing
        those there are) and for weights that do not fit.
        """
        path = model_folder.find_weights(model, Path(models), engine)
        if path.suffix == Path(model_folder.ONNX).suffix:
            if device not in (None, "cpu"):
                raise UsageError(f"device {device!r}: ONNX files run on the processor; leave the device out")
            return cls(*read_onnx(path), "cpu")
        config, tensors = model_folder.read_weights(path)
        return cls(config, UNet.load(config.model, tensors, path), device)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, but means one path
        self, photos: Photo | GrayPhoto, *, average: int = ..., **options: Unpack[Options]
    ) -> Image.Image: ...
    @overload
    def __call__(
        self, photos: Sequence[Photo | GrayPhoto], *, average: int = ..., **options: Unpack[Options]
    ) -> list[Image.Image]: ...

    def __call__(
        self,
        photos: Photo | GrayPhoto | Sequence[Photo | GrayPhoto],
        *,
        average: int = 1,
        **options: Unpack[Options],
    ) -> Image.Image | list[Image.Image]:
        """Colour one photo or several; each keeps its size, and its luma within one level of 255.

        photos: paths, Pillow images, or arrays (H,W), (H,W,3) or (H,W,4). average: how many colourings, those of `seed` and
        the next ones, the result is to agree with (`samples.agreed`); 4 are calm. options: see `Options`. Returns RGB images
        (RGBA where a photo is partly transparent), one or a list as given; `info` holds what EXIF, ICC profile and
        resolution the photo had.
        """
        drawn = self.samples(photos, average, **options)
        return drawn.average() if isinstance(drawn, Samples) else [each.average() for each in drawn]

    @overload
    def samples(  # type: ignore[overload-overlap]  # as above
        self, photos: Photo | GrayPhoto, count: int, **options: Unpack[Options]
    ) -> Samples: ...
    @overload
    def samples(
        self, photos: Sequence[Photo | GrayPhoto], count: int, **options: Unpack[Options]
    ) -> list[Samples]: ...

    def samples(
        self, photos: Photo | GrayPhoto | Sequence[Photo | GrayPhoto], count: int, **options: Unpack[Options]
    ) -> Samples | list[Samples]:
        """`count` different colourings of each photo: number k is that of `seed` + k. options: see `Options`."""
        if isinstance(photos, GrayPhoto) or is_photo(photos):
            return self._draw([photos], count, **options)[0]
        if not isinstance(photos, Iterable):
            raise UsageError(f"a photo of type {type(photos).__name__}: give {KINDS}; or several of them")
        return self._draw(cast(Sequence[Photo | GrayPhoto], photos), count, **options)

    def _draw(
        self,
        photos: Sequence[Photo | GrayPhoto],
        count: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        sampler: str = "ddim",
        guidance: float | None = None,
        strength: float = 1.0,
        temperature: float = 1.0,
        detail: int | None = None,
        hints: Sequence[Hint] | Photo | None = None,
        keep_gray: Photo | None = None,
        like: Photo | None = None,
        max_megapixels: float = MAX_PIXELS / 1e6,
        truncated: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Samples]:
        """`count` colourings of each photo; the one place where the options have their defaults."""
        check(count, strength, temperature)
        steps = self.config.steps if steps is None else steps
        if len(photos) > 1 and (hints is not None or keep_gray is not None):
            raise UsageError("hints and keep_gray are places in one photo: colour the others separately")
        grays = [open_gray(photo, max_megapixels, truncated) for photo in photos]
        views = [self.view(gray.luma, detail) for gray in grays]
        limits = (max_megapixels, truncated)
        mask = None if keep_gray is None else gray_mask(keep_gray, grays[0].luma.size, *limits)
        held = None
        if hints is not None or mask is not None:
            held = held_places(hints, mask, grays[0].luma.size, views[0], *limits)
        palette = None if like is None else Palette(like, *limits)
        jobs = [(i, k) for i in range(len(grays)) for k in range(count)]
        batches = _batches(jobs, views)
        drawn: dict[tuple[int, int], Tensor] = {}
        for number, batch in enumerate(batches):

            def step_done(step: int, x0: Tensor, before: int = number * steps) -> None:
                if progress:
                    progress(before + step + 1, len(batches) * steps)

            y = torch.cat([views[i].y for i, _ in batch])
            seeds = [photo_seed(grays[i].luma, seed + k) for i, k in batch]
            c = self.chroma(
                y,
                seeds,
                steps=steps,
                sampler=sampler,
                guidance=guidance,
                temperature=temperature,
                held=held,
                callback=step_done,
            )
            drawn |= {job: c[row : row + 1] for row, job in enumerate(batch)}

        def finish(c: Tensor, seen: View) -> Tensor:
            c = strength * (palette.applied(c, seen.y) if palette else c)
            return held.over(c) if held else c

        return [
            Samples(
                gray,
                seen,
                torch.cat([drawn[i, k] for k in range(count)]),
                partial(finish, seen=seen),
                mask,
            )
            for i, (gray, seen) in enumerate(zip(grays, views, strict=True))
        ]

    def view(self, luma: Image.Image, detail: int | None = None) -> View:
        """A photo's luma, mode L, as the network sees it. detail: see `Options`; raises UsageError where that is out of range."""
        if detail is not None and not DETAIL[0] <= detail <= DETAIL[1]:
            raise UsageError(f"detail {detail}: take {DETAIL[0]} to {DETAIL[1]} pixels for the shorter side")
        side = default_detail(self.config, luma.size) if detail is None else detail
        return view(luma, side, self.config.model.multiple, self.config.model.chroma_scale)

    def chroma(
        self,
        y: Tensor,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        sampler: str = "ddim",
        guidance: float | None = None,
        temperature: float = 1.0,
        held: Held | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The chroma (B,2,H/s,W/s) of a batch of luma y (B,1,H,W) in [-1,1], on the processor.

        seeds: one per photo. steps, guidance: those of `config` if not given. H and W must be multiples of
        `config.model.multiple`. The others: see `diffusion.sample`. Raises UsageError for guidance of a model that knows none.
        """
        guidance = self.config.guidance if guidance is None else guidance
        if not 1 <= guidance <= MOST_GUIDANCE:
            raise UsageError(f"guidance {guidance:g}: take 1 (none) to {MOST_GUIDANCE}")
        if guidance != 1 and not self.config.can_be_guided:
            why = (
                "distilled"
                if self.config.stages[-1].distill
                else "trained without an encoder, or without its dropout"
            )
            raise UsageError(f"guidance {guidance:g}: this model was {why}, leave guidance out")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        y = y.to(self.device)
        c = sample(
            self.network,
            self.diffusion,
            y,
            generators,
            self.config.steps if steps is None else steps,
            sampler,
            callback,
            temperature=temperature,
            held=held,
            features=self._features(y),
            guidance=guidance,
        )
        return c.cpu()

    def _features(self, y: Tensor) -> list[Tensor]:
        """What the encoder sees in luma (B,1,H,W); several colourings of a photo are looked at once."""
        if self.encoder is None:
            return []
        seen, places = torch.unique(y, dim=0, return_inverse=True)
        # In parts, since its first layers take much memory.
        parts = [self.encoder(part) for part in seen.split(ENCODED_AT_ONCE)]
        return [torch.cat(maps)[places] for maps in zip(*parts, strict=True)]


def default_detail(config: Config, size: tuple[int, int]) -> int:
    """The shorter side at which a model sees a photo of `size` (width, height) when nothing else is asked for.

    That of its training; with an encoder twice as much, as far as the photo has it: docs/measurements/detail.md has the measurements.
    """
    trained = config.data.size or 64
    return trained if config.model.encoder == "none" else max(trained, min(2 * trained, *size))


def photo_seed(luma: Image.Image, seed: int) -> int:
    """The seed of one photo's noise, a function of the photo and of `seed`.

    Noise decides among plausible tints; the same for a whole album would give all its photos the same ones.
    """
    digest = hashlib.blake2b(luma.tobytes(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) >> 1  # a torch seed has 63 bits that are not the sign


def check(count: int = 1, strength: float = 1.0, temperature: float = 1.0) -> None:
    """Raise UsageError for an option that is out of its range; all others are checked where they are used."""
    if not 1 <= count <= MOST_SAMPLES:
        raise UsageError(f"{count} colourings: take 1 to {MOST_SAMPLES}")
    if not 0 <= strength <= 5:
        raise UsageError(f"strength {strength}: take 0 (gray) to 5; 1 is as the model made it")
    if not 0 <= temperature <= 2:
        raise UsageError(f"temperature {temperature}: take 0 (average colours) to 2; 1 is as trained")


def _batches(jobs: Sequence[tuple[int, int]], views: Sequence[View]) -> list[list[tuple[int, int]]]:
    """Jobs (photo, sample) that can be done together: of the same working size, at most BATCH and BATCH_PIXELS."""
    by_shape: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for job in jobs:
        by_shape.setdefault(tuple(views[job[0]].y.shape), []).append(job)
    batches = []
    for shape, group in by_shape.items():
        most = max(1, min(BATCH, BATCH_PIXELS // (shape[2] * shape[3])))
        batches += [group[i : i + most] for i in range(0, len(group), most)]
    return batches
