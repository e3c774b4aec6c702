"""The way to use a trained model: `Colorizer.load(name)(photo)` gives the coloured photo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, cast, overload

import torch
from PIL import Image
from torch import Tensor

from photochrom import hub, model_folder
from photochrom.coloring.colorings import Colorings
from photochrom.coloring.hints import Palette, gray_mask, held_places
from photochrom.coloring.onnx import OnnxNetwork, read_onnx
from photochrom.coloring.options import ENOUGH, Options, chosen
from photochrom.coloring.photo import GrayPhoto, Photo, open_gray
from photochrom.coloring.upsampling import View, view
from photochrom.config import Config
from photochrom.data.reading import KINDS, is_photo
from photochrom.diffusion.diffusion import Diffusion, KnownChroma, sample
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.errors import UsageError
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16

BATCH = 64
ENCODED_AT_ONCE = 16
ELONGATED = 2  # longer side over shorter side; beyond it a photo gets no more pixels at the working size
Progress = Callable[[int, int], None]  # (done, total)
BATCH_PIXELS = BATCH * 64 * 384  # luma pixels of a batch at the working size; bounds memory


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or by default the first available of CUDA, Apple's MPS and CPU.

    Raises UsageError if torch cannot use the device.
    """
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

    Examples:
        >>> from photochrom import Colorizer, Hint
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
        """Load a trained model.

        model: its name under `models`, its folder, or its file `model.safetensors` or `model.onnx`. engine:
        "torch", or "onnx", which runs on the CPU. Raises PhotochromError for an unknown model, with a list of
        the known ones, and for weights that do not fit.
        """
        path = model_folder.find_weights(hub.fetched(model), Path(models), engine)
        if path.suffix == Path(model_folder.ONNX).suffix:
            if device not in (None, "cpu"):
                raise UsageError(f"device {device!r}: ONNX files run on the CPU; leave the device out")
            return cls(*read_onnx(path), "cpu")
        config, tensors = model_folder.read_weights(path)
        return cls(config, UNet.load(config.model, tensors, path), device)

    @overload
    def __call__(
        self,
        photos: Photo | GrayPhoto,
        options: Options | None = ...,
        *,
        progress: Progress | None = ...,
        **changes: Any,
    ) -> Image.Image: ...
    @overload
    def __call__(
        self,
        photos: Sequence[Photo | GrayPhoto],
        options: Options | None = ...,
        *,
        progress: Progress | None = ...,
        **changes: Any,
    ) -> list[Image.Image]: ...

    def __call__(
        self,
        photos: Photo | GrayPhoto | Sequence[Photo | GrayPhoto],
        options: Options | None = None,
        *,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Image.Image | list[Image.Image]:
        """Colour one photo or several. Each keeps its size, and its luma within one level of 255.

        photos: one or several paths, Pillow images, or arrays (H,W), (H,W,3) or (H,W,4). options: an
        `Options`, or its fields as keyword arguments, such as strength=1.2. The colours of a photo depend on
        the photo, the seed and the options, not on the photos beside it. progress(done, total) counts the
        steps of all batches; an exception in it ends the colouring.

        Returns RGB images, or RGBA for a photo that is partly transparent: one for one photo, a list for
        several. Their `info` holds the photo's EXIF, ICC profile and resolution. Raises UsageError for
        options out of range and PhotochromError for a photo that it cannot read.
        """
        options = chosen(options, changes)
        if options.samples > 1 or options.uncertainty:
            raise UsageError(
                "samples and uncertainty give more than one picture: call colorizer.samples(photo)"
            )
        drawn = self.samples(photos, options=options, progress=progress)
        return drawn.average() if isinstance(drawn, Colorings) else [each.average() for each in drawn]

    @overload
    def samples(
        self,
        photos: Photo | GrayPhoto,
        count: int | None = ...,
        options: Options | None = ...,
        *,
        progress: Progress | None = ...,
        **changes: Any,
    ) -> Colorings: ...
    @overload
    def samples(
        self,
        photos: Sequence[Photo | GrayPhoto],
        count: int | None = ...,
        options: Options | None = ...,
        *,
        progress: Progress | None = ...,
        **changes: Any,
    ) -> list[Colorings]: ...

    def samples(
        self,
        photos: Photo | GrayPhoto | Sequence[Photo | GrayPhoto],
        count: int | None = None,
        options: Options | None = None,
        *,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Colorings | list[Colorings]:
        """Draw several colourings of each photo; number k comes from `seed` + k.

        count: how many colourings (default: `options.draws`). For the other arguments and errors see
        `__call__`.
        """
        if count is not None:
            changes["samples"] = count
        options = chosen(options, changes)
        if isinstance(photos, GrayPhoto) or is_photo(photos):
            return self._draw([photos], options, progress)[0]
        if not isinstance(photos, Iterable):
            raise UsageError(f"a photo of type {type(photos).__name__}: give {KINDS}; or several of them")
        return self._draw(cast(Sequence[Photo | GrayPhoto], photos), options, progress)

    def _draw(
        self, photos: Sequence[Photo | GrayPhoto], options: Options, progress: Progress | None
    ) -> list[Colorings]:
        options.check_count(len(photos))
        limits = (options.max_megapixels, options.truncated)
        grays = [open_gray(photo, *limits) for photo in photos]
        views = [self.view(gray.luma, options.detail) for gray in grays]
        mask = held = None
        if options.keep_gray is not None:
            mask = gray_mask(options.keep_gray, grays[0].luma.size, *limits)
        if options.hints is not None or mask is not None:
            held = held_places(options.hints, mask, grays[0].luma.size, views[0], *limits)
        palette = None if options.like is None else Palette(options.like, *limits)
        jobs = [(i, k) for i in range(len(grays)) for k in range(options.draws)]
        batches, steps = _batches(jobs, views), options.steps_for(self.config)
        drawn: dict[tuple[int, int], Tensor] = {}
        for number, batch in enumerate(batches):

            def step_done(step: int, x0: Tensor, before: int = number * steps) -> None:
                if progress:
                    progress(before + step + 1, len(batches) * steps)

            y = torch.cat([views[i].y for i, _ in batch])
            seeds = [photo_seed(grays[i].luma, options.seed + k) for i, k in batch]
            c = self.chroma(y, seeds, options, held=held, callback=step_done)
            drawn |= {job: c[row : row + 1] for row, job in enumerate(batch)}

        def finish(c: Tensor, seen: View) -> Tensor:
            c = options.strength * (palette.applied(c, seen.y) if palette else c)
            return held.over(c) if held else c

        return [
            Colorings(
                gray,
                seen,
                torch.cat([drawn[i, k] for k in range(options.draws)]),
                partial(finish, seen=seen),
                mask,
            )
            for i, (gray, seen) in enumerate(zip(grays, views, strict=True))
        ]

    def view(self, luma: Image.Image, detail: int | None = None) -> View:
        """Prepare a photo's luma (mode L) for the network.

        detail: the shorter side in pixels that the network sees (default: `default_detail`).
        """
        side = default_detail(self.config, luma.size) if detail is None else detail
        return view(luma, side, self.config.model.multiple, self.config.model.chroma_scale)

    def chroma(
        self,
        y: Tensor,
        seeds: Sequence[int],
        options: Options | None = None,
        *,
        held: KnownChroma | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
        **changes: Any,
    ) -> Tensor:
        """Draw chroma (B,2,H/s,W/s), on the CPU, for a batch of luma y (B,1,H,W) in [-1,1].

        s is the model's chroma scale; H and W must be multiples of `config.model.multiple`. seeds: one per
        photo. Only the options steps, sampler, guidance and temperature count. held, callback: see
        `diffusion.sample`. Raises UsageError if the options ask for guidance that the model does not support.
        """
        options = chosen(options, changes)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        y = y.to(self.device)
        c = sample(
            self.network,
            self.diffusion,
            y,
            generators,
            options.steps_for(self.config),
            options.sampler,
            callback,
            temperature=options.temperature,
            held=held,
            features=self._features(y),
            guidance=options.guidance_for(self.config),
        )
        return c.cpu()

    def _features(self, y: Tensor) -> list[Tensor]:
        """The encoder's feature maps of luma (B,1,H,W). Several colourings of one photo share them."""
        if self.encoder is None:
            return []
        seen, places = torch.unique(y, dim=0, return_inverse=True)
        # The encoder's first layers take much memory, so it gets a few photos at a time.
        parts = [self.encoder(part) for part in seen.split(ENCODED_AT_ONCE)]
        return [torch.cat(maps)[places] for maps in zip(*parts, strict=True)]


def default_detail(config: Config, size: tuple[int, int]) -> int:
    """The shorter side, in pixels, at which a model sees a photo of `size` (width, height) by default.

    Without an encoder it is the side of training. With one it is twice that, up to ENOUGH, and no more than
    the photo has (docs/measurements/detail.md). A photo more elongated than ELONGATED is seen smaller, down
    to the side of training, so that it costs no more than others.
    """
    trained, shorter, longer = config.data.smallest_side or 64, min(size), max(size)
    if config.model.encoder == "none":
        return trained
    affordable = round(min(2 * trained, ENOUGH) * min(1.0, (ELONGATED * shorter / longer) ** 0.5))
    return max(trained, min(affordable, shorter))


def photo_seed(luma: Image.Image, seed: int) -> int:
    """The seed of one photo's noise, from the photo's pixels and `seed`.

    The noise decides among plausible tints. If all photos of an album had the same noise, they would get the
    same tints.
    """
    digest = hashlib.blake2b(luma.tobytes(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) >> 1  # a torch seed has a sign and 63 bits


def _batches(jobs: Sequence[tuple[int, int]], views: Sequence[View]) -> list[list[tuple[int, int]]]:
    """Group jobs (photo, sample) of one working size in batches of at most BATCH, and of BATCH_PIXELS."""
    by_shape: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for job in jobs:
        by_shape.setdefault(tuple(views[job[0]].y.shape), []).append(job)
    batches = []
    for shape, group in by_shape.items():
        most = max(1, min(BATCH, BATCH_PIXELS // (shape[2] * shape[3])))
        batches += [group[i : i + most] for i in range(0, len(group), most)]
    return batches
