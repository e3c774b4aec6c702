"""A photo as it comes and as it goes: every format read down to its luma, and the colours written beside what it had."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from photochrom.coloring import metadata
from photochrom.coloring.metadata import Info
from photochrom.data import reading
from photochrom.data.reading import MAX_PIXELS, Given, is_gray
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import write_atomically

Photo = Given

# That a coloured photo keeps; all others become .png, unless a person names a file.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff")
ASKED_SUFFIXES = (*SUFFIXES, ".avif", ".jp2", ".bmp", ".ppm")
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # colour is what was paid for
    "PNG": {"compress_level": 3},  # the default (6) takes 2.5 times as long and saves a tenth
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class GrayPhoto:
    """What colouring needs of a photo: luma as Pillow's `convert("L")` gives it (mode L, upright), and what it keeps."""

    luma: Image.Image
    alpha: Image.Image | None = None  # mode L, where the photo is partly transparent
    info: Info = field(default_factory=dict)  # what is in `metadata.NAMES`
    notes: tuple[str, ...] = ()  # what a person should know of how it was read


def open_gray(
    photo: Photo | GrayPhoto, max_megapixels: float = MAX_PIXELS / 1e6, truncated: bool = False
) -> GrayPhoto:
    """A photo's luma at full size, as people see it: upright, in sRGB; of several pages or frames the first.

    photo: a path; a Pillow image; an array (H,W), (H,W,3) or (H,W,4), uint8, uint16 or floats from 0 to 1; the bytes of
    a file; or a file open for reading bytes. truncated: take what there is of a file that was cut short. Raises PhotochromError
    for a file that is missing, no photo or larger than max_megapixels (which is known before it is decoded), UsageError
    for something else.
    """
    if isinstance(photo, GrayPhoto):
        return photo
    if not 0 < max_megapixels <= 1e6:
        raise UsageError(f"max_megapixels {max_megapixels}: take a number above 0, such as 120")
    with reading.opened(photo, int(max_megapixels * 1e6), truncated) as image:
        seen = reading.develop(image)
        notes = list(seen.notes)
        if _has_colours(seen.image):
            notes.append("it has colours of its own, or a tint: only its brightness is used")
        info = metadata.carried(image, seen.profile, notes)
        luma, alpha = seen.image.convert("L"), None
        if "A" in seen.image.getbands() and seen.image.getchannel("A").getextrema()[0] != 255:
            alpha = seen.image.getchannel("A")
    luma.info = {}
    return GrayPhoto(luma, alpha, info, tuple(notes))


def _has_colours(image: Image.Image) -> bool:
    if image.mode.startswith("L"):
        return False
    size = (min(256, image.width), min(256, image.height))
    small = image.resize(size, Image.Resampling.NEAREST)
    return not is_gray(np.asarray(small.convert("RGB")))


def save(picture: Image.Image, file: IO[bytes], format: str, **options: Any) -> tuple[str, ...]:
    """Save a coloured photo, with what is in its `info`, on white where the format has no transparency.

    options: as Pillow's `save` takes them (default: SAVE_OPTIONS). Returns what a person should know, such as that the format has no
    place for EXIF; raises what Pillow does.
    """
    if format not in WITH_ALPHA:
        info, picture = picture.info, reading.on_white(picture)
        picture.info = info
    return metadata.save(picture, file, format, SAVE_OPTIONS.get(format, {}) | options)


def make_folder(path: Path) -> None:
    """Make a folder for results, if there is none; raises PhotochromError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotochromError(f"cannot make the folder {path}: {error.strerror or error}") from error


def write(photo: Image.Image, path: Path) -> tuple[str, ...]:
    """Write a coloured photo, atomically, in the format that its suffix says; returns what a person should know.

    Raises PhotochromError when it cannot be written.
    """
    format = Image.registered_extensions()[path.suffix.lower()]
    notes: tuple[str, ...] = ()

    def fill(file: IO[bytes]) -> None:
        nonlocal notes
        notes = save(photo, file, format)

    make_folder(path.parent)
    try:
        write_atomically(path, fill)
    except PhotochromError:
        raise
    except Exception as error:  # such as sides that the format cannot hold: encoders raise a dozen types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotochromError(
            f"cannot write {path} ({reason}): choose another format, such as .png"
        ) from error
    return notes
