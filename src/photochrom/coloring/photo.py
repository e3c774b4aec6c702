"""Reads the luma of a photo in any format, and writes coloured photos with the metadata of their source."""

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

# A coloured photo keeps these suffixes. Others become .png, unless the user names a file of ASKED_SUFFIXES.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff")
ASKED_SUFFIXES = (*SUFFIXES, ".avif", ".jp2", ".bmp", ".ppm")
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # subsampling would throw away colour
    "PNG": {"compress_level": 3},  # the default (6) takes 2.5 times as long and saves a tenth
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class GrayPhoto:
    """The parts of a photo that its coloured version keeps. The luma is that of Pillow's `convert("L")`."""

    luma: Image.Image  # mode L, upright
    alpha: Image.Image | None = None  # mode L; None if the photo is opaque
    info: Info = field(default_factory=dict)  # metadata; keys of `metadata.NAMES`
    notes: tuple[str, ...] = ()  # tell the user about losses in reading


def open_gray(
    photo: Photo | GrayPhoto, max_megapixels: float = MAX_PIXELS / 1e6, truncated: bool = False
) -> GrayPhoto:
    """Read the luma of a photo at full size, upright, in sRGB. Of several pages or frames it takes the first.

    photo: a path; a Pillow image; an array (H,W), (H,W,3) or (H,W,4), uint8, uint16 or floats from 0 to 1;
    the bytes of a file; or a file open for reading bytes. truncated: accept a file that was cut short. Raises
    PhotochromError for a file that is missing or no photo, and, before decoding it, for a photo of more than
    max_megapixels. Raises UsageError for any other type.
    """
    if isinstance(photo, GrayPhoto):
        return photo
    if not 0 < max_megapixels <= 1e6:
        raise UsageError(f"max_megapixels {max_megapixels}: take a number above 0, such as 120")
    with reading.opened(photo, int(max_megapixels * 1e6), truncated) as image:
        seen = reading.develop(image)
        notes = list(seen.notes)
        if _has_colours(seen.image):
            notes.append("it has colours or a tint: only its brightness is used")
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
    """Save a coloured photo with the metadata in its `info`, on white if the format has no transparency.

    options: for Pillow's `save`, on top of SAVE_OPTIONS. Returns notes for the user, such as that the format
    has no place for EXIF. Raises what Pillow raises.
    """
    if format not in WITH_ALPHA:
        info, picture = picture.info, reading.on_white(picture)
        picture.info = info
    return metadata.save(picture, file, format, SAVE_OPTIONS.get(format, {}) | options)


def make_folder(path: Path) -> None:
    """Make a folder for results, unless it exists. Raises PhotochromError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotochromError(f"cannot make the folder {path}: {error.strerror or error}") from error


def write(photo: Image.Image, path: Path) -> tuple[str, ...]:
    """Write a coloured photo atomically, in the format of the suffix of `path`. Returns notes for the user.

    Raises PhotochromError if writing fails.
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
    except Exception as error:  # encoders raise a dozen types, such as for sides too long for the format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotochromError(
            f"cannot write {path} ({reason}): choose another format, such as .png"
        ) from error
    return notes
