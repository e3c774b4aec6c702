"""From an uploaded file to finished pictures: read it safely, colour, measure, encode."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, field_validator, model_validator
from torch import Tensor

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Hint, Options, PlainOptions, at_most
from photochrom.coloring.photo import GrayPhoto, open_gray, save
from photochrom.data.reading import (
    MAX_PIXELS,
    Pixels,
    develop,
    on_white,
    opened,
    reason_of,
    undecoded,
)
from photochrom.diffusion.color import to_images
from photochrom.diffusion.diffusion import KnownChroma
from photochrom.errors import UsageError
from photochrom.evaluation import metrics
from photochrom.server.problems import Problem
from photochrom.server.settings import MOST, MOST_HINTS

Format = Literal["png", "jpeg"]
MEDIA_TYPES: dict[str, str] = {"png": "image/png", "jpeg": "image/jpeg"}
MEASURED_SIDE = 512  # of a larger photo, measures use every n-th pixel
StepDone = Callable[[int, int], None]


@at_most(**MOST)
class Choices(PlainOptions):
    """How to colour a photo: the options of `Colorizer`, by the same names, within the server's limits."""

    hint: tuple[str, ...] = Field(
        (),
        max_length=MOST_HINTS,
        description="known colours, each as x,y,#rrggbb, in pixels of the upright photo",
        examples=[["120,80,#c03020"]],
    )

    @field_validator("hint")
    @classmethod
    def _hints_parse(cls, hints: tuple[str, ...]) -> tuple[str, ...]:
        for hint in hints:
            try:
                Hint.parse(hint)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return hints

    @model_validator(mode="after")
    def _uncertainty_needs_several(self) -> Self:
        if self.uncertainty and self.samples == self.average == 1:
            raise ValueError("uncertainty compares several samples: set samples or average to 2 or more")
        return self

    def options(self) -> Options:
        """The options as `Colorizer` takes them."""
        values = {name: getattr(self, name) for name in PlainOptions.model_fields}
        return Options(**values, hints=self.hint or None)


@dataclass(frozen=True)
class Guides:
    """Pictures that guide the colouring, as the files that were sent; None if not sent."""

    like: bytes | None = None
    keep_gray: bytes | None = None

    def opened(self) -> dict[str, Image.Image]:
        """The pictures, by the names of their options. Raises Problem 422 for a broken one."""
        sent = {"like": self.like, "keep_gray": self.keep_gray}
        return {name: read_upright(file, MAX_PIXELS) for name, file in sent.items() if file is not None}


class PreviewColorizer(Colorizer):
    """A colorizer that remembers the result of its last step."""

    latest: tuple[Tensor, Tensor] | None = None  # luma (B,1,H,W), and x0 (B,2,H/s,W/s)

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
        """See `Colorizer`."""

        def step_done(step: int, x0: Tensor) -> None:
            self.latest = y, x0.cpu()
            if callback:
                callback(step, x0)

        return super().chroma(y, seeds, options, held=held, callback=step_done, **changes)

    def previews(self) -> list[Image.Image]:
        """The batch's pictures so far, at the size that the network works at."""
        return to_images(*self.latest) if self.latest else []


def read_header(photo: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of an uploaded photo, without decoding it. Raises Problem 415 or 413."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about 89 megapixels, or broken EXIF; we report what matters
            with undecoded(BytesIO(photo), max_pixels) as image:
                return image.size
    except Image.DecompressionBombError:
        text = f"the photo has more than {max_pixels / 1e6:g} megapixels: send a smaller one"
        raise Problem(413, text) from None
    except Exception:  # broken bytes make Pillow raise a dozen types
        text = "this is not a photo that can be read, or it is cut short: send JPEG, PNG, WebP or TIFF"
        raise Problem(415, text) from None


def read_gray(photo: bytes, max_pixels: int) -> GrayPhoto:
    """An uploaded photo as colouring needs it. Raises Problem 422 if it cannot be decoded."""
    with _refusing_what_breaks():
        return open_gray(photo, max_pixels / 1e6)


def read_upright(photo: bytes, max_pixels: int) -> Image.Image:
    """An uploaded photo as people see it (mode L, LA, RGB or RGBA).

    Raises Problem 422 if it cannot be decoded.
    """
    with _refusing_what_breaks(), opened(photo, max_pixels) as image:
        return develop(image).image


@contextmanager
def _refusing_what_breaks() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # as above; also a decoder's own error
        reason = reason_of(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise Problem(422, f"the photo is broken inside, or cut short ({reason})") from None


def paint(
    colorizer: PreviewColorizer,
    photos: Sequence[GrayPhoto],
    choices: Choices,
    step_done: StepDone,
    guides: Guides = Guides(),
) -> list[list[Image.Image]]:
    """The colourings of each photo, followed by the map of uncertainty if `choices` ask for it.

    With hints or a mask, give one photo only. step_done(step, steps) may raise to stop.
    """
    options = choices.options().but(**guides.opened())
    results = []
    for drawn in colorizer.samples(photos, options=options, progress=step_done):
        pictures = list(drawn) if choices.samples > 1 else [drawn.average()]
        results.append([*pictures, drawn.uncertainty()] if choices.uncertainty else pictures)
    return results


class Timings(BaseModel):
    """Seconds that a photo took."""

    waited: float = Field(description="In the queue.")
    sampled: float = Field(description="In the model; if photos were coloured together, this one's share.")
    finished: float = Field(description="Measuring and encoding.")


class Measures(BaseModel):
    """Measures of a coloured photo.

    Dark pixels are those that are almost black in the original (L* under 15).
    """

    colorfulness: float = Field(description="After Hasler and Suesstrunk.")
    dark_share: float = Field(description="Share of pixels that are dark.")
    dark_chroma: float = Field(description="Mean C* of dark pixels.")
    false_color: float = Field(
        description="Share of dark pixels with C* over 15 where the original has less than 8."
    )


@dataclass
class Painted:
    """One photo's colourings and what is known of them. `finish` makes the files."""

    original: bytes  # the file
    pictures: list[Image.Image]  # a map of uncertainty comes last
    choices: Choices
    waited: float  # seconds in the queue
    sampled: float  # seconds in the model; in a batch, this photo's share
    finished: float = 0.0  # seconds for measuring and encoding
    files: list[bytes] = field(default_factory=list)  # one for each picture
    measures: list[Measures] = field(default_factory=list)  # one for each sample

    def finish(self, format: Format, max_pixels: int) -> None:
        """Measure and encode the pictures, then free their pixels."""
        begun = time.monotonic()
        original = thinned(read_upright(self.original, max_pixels))
        samples = self.pictures[: self.choices.samples]
        self.measures = [measure(thinned(picture), original) for picture in samples]
        self.files = [encode(picture, format) for picture in self.pictures]
        self.original, self.pictures = b"", []
        self.finished = time.monotonic() - begun

    @property
    def timings(self) -> Timings:
        """Seconds by part."""
        return Timings(
            waited=round(self.waited, 3), sampled=round(self.sampled, 3), finished=round(self.finished, 3)
        )


def thinned(photo: Image.Image) -> Pixels:
    """Every n-th pixel of a photo, on white, as (h,w,3) with no side longer than MEASURED_SIDE."""
    step = max(1, -(-max(photo.size) // MEASURED_SIDE))
    return np.asarray(on_white(photo).convert("RGB"))[::step, ::step]


def measure(picture: Pixels, original: Pixels) -> Measures:
    """Measures of a coloured photo beside its original, both (h,w,3).

    A gray original has no C* of 8 anywhere.
    """
    found, true = (pixels[None].astype(np.float32) / 255 for pixels in (picture, original))
    lab, true_lab = metrics.lab(found), metrics.lab(true)
    dark = {name: float(value[0]) for name, value in metrics.dark_sums(lab, true_lab, metrics.DARK).items()}
    pixels = dark["pixels"]
    return Measures(
        colorfulness=round(float(metrics.colorfulness(found)[0]), 2),
        dark_share=round(pixels / lab[0, ..., 0].size, 4),
        dark_chroma=round(dark["chroma"] / pixels, 2) if pixels else 0.0,
        false_color=round(dark["false_color"] / pixels, 4) if pixels else 0.0,
    )


def encode(picture: Image.Image, format: Format) -> bytes:
    """A picture as a file. Compresses PNG fast rather than well: 12 megapixels take one second, not four."""
    buffer = BytesIO()
    if format == "jpeg":
        save(picture, buffer, "JPEG")
    else:
        save(picture, buffer, "PNG", compress_level=2)
    return buffer.getvalue()
