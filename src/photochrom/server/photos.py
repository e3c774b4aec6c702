"""From an uploaded file to finished pictures: reading it safely, colouring, measuring, encoding."""

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
MEASURED_SIDE = 512  # measures are taken on every n-th pixel of what is larger
StepDone = Callable[[int, int], None]


@at_most(**MOST)
class Choices(PlainOptions):
    """How a photo is to be coloured: the options of `Colorizer`, by the same names, within the server's limits."""

    hint: tuple[str, ...] = Field(
        (), max_length=MOST_HINTS, description="known colours, x,y,#rrggbb each, in pixels of the upright photo",
        examples=[["120,80,#c03020"]],
    )  # fmt: skip

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
    def _disagree_in_something(self) -> Self:
        if self.uncertainty and self.samples == self.average == 1:
            raise ValueError("uncertainty is where samples disagree: set samples to 2 or more, or average")
        return self

    def options(self) -> Options:
        """What `Colorizer` takes."""
        values = {name: getattr(self, name) for name in PlainOptions.model_fields}
        return Options(**values, hints=self.hint or None)


@dataclass(frozen=True)
class Guides:
    """Pictures that say how to colour, as the files that were sent; None: not sent."""

    like: bytes | None = None
    keep_gray: bytes | None = None

    def opened(self) -> dict[str, Image.Image]:
        """The pictures by the names of their options. Raises Problem 422 for one that is broken inside."""
        sent = {"like": self.like, "keep_gray": self.keep_gray}
        return {name: read_seen(file, MAX_PIXELS) for name, file in sent.items() if file is not None}


class PreviewColorizer(Colorizer):
    """A colorizer that remembers what its last step came to."""

    seen: tuple[Tensor, Tensor] | None = None  # luma (B,1,H,W), and x0 (B,2,H/s,W/s)

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
            self.seen = y, x0.cpu()
            if callback:
                callback(step, x0)

        return super().chroma(y, seeds, options, held=held, callback=step_done, **changes)

    def previews(self) -> list[Image.Image]:
        """What the photos of the batch look like so far, at the size of the network's work."""
        return to_images(*self.seen) if self.seen else []


def read_header(photo: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of an uploaded photo, without decoding it; raises Problem 415 or 413."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of 89 megapixels, of broken EXIF: what matters is told by us
            with undecoded(BytesIO(photo), max_pixels) as image:
                return image.size
    except Image.DecompressionBombError:
        text = f"the photo has more than {max_pixels / 1e6:g} megapixels: send a smaller one"
        raise Problem(413, text) from None
    except Exception:  # broken bytes make Pillow raise a dozen types
        text = "this is not a photo that can be read, or it is cut short: send JPEG, PNG, WebP or TIFF"
        raise Problem(415, text) from None


def read_gray(photo: bytes, max_pixels: int) -> GrayPhoto:
    """What colouring needs of an uploaded photo; raises Problem 422 where it cannot be decoded."""
    with _refusing_what_breaks():
        return open_gray(photo, max_pixels / 1e6)


def read_seen(photo: bytes, max_pixels: int) -> Image.Image:
    """An uploaded photo as people see it (mode L, LA, RGB or RGBA); raises Problem 422 where it cannot be decoded."""
    with _refusing_what_breaks(), opened(photo, max_pixels) as image:
        return develop(image).image


@contextmanager
def _refusing_what_breaks() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # as above, also where a decoder's error slipped through ours
        reason = reason_of(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise Problem(422, f"the photo is broken inside, or cut short ({reason})") from None


def paint(
    colorizer: PreviewColorizer,
    photos: Sequence[GrayPhoto],
    choices: Choices,
    step_done: StepDone,
    guides: Guides = Guides(),
) -> list[list[Image.Image]]:
    """The colourings of each photo, and after them the map of uncertainty if it is wanted.

    Several photos only without hints and a mask. step_done(step, steps) may raise, to end it.
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
    sampled: float = Field(description="In the model; of photos coloured together, this one's share.")
    finished: float = Field(description="For measuring and encoding.")


class Measures(BaseModel):
    """What came of a photo, of which pixels are dark that are almost black in the original (L* under 15)."""

    colorfulness: float = Field(description="Hasler and Suesstrunk's.")
    dark_share: float = Field(description="Dark pixels' share of the photo.")
    dark_chroma: float = Field(description="Their mean C*.")
    false_color: float = Field(
        description="Share of them with C* over 15, where the original has less than 8."
    )


@dataclass
class Painted:
    """One photo's colourings, and what is known of them; `finish` makes the files."""

    original: bytes  # the file
    pictures: list[Image.Image]  # a map of uncertainty comes last
    choices: Choices
    waited: float  # seconds in the queue
    sampled: float  # seconds in the model; of a batch, this photo's share
    finished: float = 0.0  # seconds for measuring and encoding
    files: list[bytes] = field(default_factory=list)  # one for each picture
    measures: list[Measures] = field(default_factory=list)  # one for each sample

    def finish(self, format: Format, max_pixels: int) -> None:
        """Measure and encode the pictures, and let go of their pixels."""
        begun = time.monotonic()
        original = thinned(read_seen(self.original, max_pixels))
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
    """Every n-th pixel of a photo, on white, as (h,w,3), so that no side is longer than MEASURED_SIDE."""
    step = max(1, -(-max(photo.size) // MEASURED_SIDE))
    return np.asarray(on_white(photo).convert("RGB"))[::step, ::step]


def measure(picture: Pixels, original: Pixels) -> Measures:
    """What happened to a photo; both are (h,w,3). An original that is gray has no C* of 8 anywhere."""
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
    """The bytes of a file. PNG is compressed fast rather than well: of 12 megapixels that is one second for four."""
    buffer = BytesIO()
    if format == "jpeg":
        save(picture, buffer, "JPEG")
    else:
        save(picture, buffer, "PNG", compress_level=2)
    return buffer.getvalue()
