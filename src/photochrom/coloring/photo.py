"""A photo as it comes and as it goes: reading every format down to its luma, and writing the colours beside what it had.

Sources: EXIF 2.32 (JEITA CP-3451E), tables 4 to 8, for the tags; ICC.1:2010, section 7.2.6, for a profile's colour space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from photochrom.data.sources import MAX_PIXELS, is_gray, opened
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import write_atomically

Photo = Image.Image | npt.NDArray[Any] | str | Path
Info = dict[str | tuple[int, int], Any]  # as Pillow types it

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
)  # what is written; all others become .png
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # colour is what was paid for
    "PNG": {"compress_level": 3},  # the default (6) takes 2.5 times as long and saves a tenth
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
WITHOUT_ALPHA = ("JPEG",)

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What tells of the photo; the other tags of a TIFF tell how its pixels are stored, which changes. Description, make,
# model, resolution (3), software, date, artist, host, rating (2), copyright, title to subject as Windows writes them.
KEPT_TAGS = (
    *(0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C),
    *(0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),
)
SIZE_TAGS = (0xA002, 0xA003)  # width and height before the photo was turned
EXIF_BYTES = 65_000


@dataclass(frozen=True)
class GrayPhoto:
    """What colouring needs of a photo: luma as Pillow's `convert("L")` gives it (mode L, upright), and what it keeps."""

    luma: Image.Image
    alpha: Image.Image | None = None  # mode L, where the photo is partly transparent
    info: Info = field(default_factory=dict)  # exif, icc_profile and dpi, as Pillow names them
    notes: tuple[str, ...] = ()  # what a person should know of how it was read


def open_gray(
    photo: Photo | GrayPhoto, max_megapixels: float = MAX_PIXELS / 1e6, truncated: bool = False
) -> GrayPhoto:
    """A photo's luma at full size, turned as EXIF says; 16 bits are rescaled, of several frames the first is taken.

    photo: a path; a Pillow image; or an array (H,W), (H,W,3) or (H,W,4), uint8, uint16 or floats from 0 to 1. truncated:
    take what there is of a file that was cut short. Raises PhotochromError for a file that is missing, no photo or larger
    than max_megapixels (which is known before it is decoded), UsageError for an array of another kind.
    """
    if isinstance(photo, GrayPhoto):
        return photo
    if not 0 < max_megapixels <= 1e6:
        raise UsageError(f"max_megapixels {max_megapixels}: take a number above 0, such as 120")
    if isinstance(photo, np.ndarray):
        photo = from_array(photo)
    with opened(photo, int(max_megapixels * 1e6), truncated) as image:
        notes = []
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # an MPO's others are previews
        if frames > 1:
            notes.append(f"only the first of its {frames} frames is coloured")
        if _has_colours(image):
            notes.append("it has colours of its own, or a tint: only its brightness is used")
        image.load()  # after which a TIFF has turned itself
        info, turn = _carried(image, notes)
        luma, alpha = _split(image)
    if turn is not None:
        luma, alpha = luma.transpose(turn), alpha and alpha.transpose(turn)
    luma.info = {}
    return GrayPhoto(luma, alpha, info, tuple(notes))


def from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    """A Pillow image of (H,W), (H,W,3) or (H,W,4), uint8, uint16 or floats from 0 to 1; else UsageError."""
    if not pixels.size or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise UsageError(f"an array of shape {pixels.shape} is no photo: give (H,W), (H,W,3) or (H,W,4)")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN as well
            raise UsageError("an array of floats that are not all from 0 to 1: scale it, or give uint8")
        pixels = (pixels * 255).round().astype(np.uint8)
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"an array of {pixels.dtype}: give uint8, uint16, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Luma and, where not all is opaque, alpha; both of mode L."""
    if image.mode.startswith("I"):  # Pillow would clip what is above 255
        levels = np.asarray(image)
        tags = getattr(image, "tag_v2", {})
        bits = int(tags.get(0x0102, (16,))[0])  # 12 bits of a TIFF lie in the lower part of 16
        top = (1 << min(bits, 16)) - 1
        return Image.fromarray((levels.clip(0, top) >> (top.bit_length() - 8)).astype(np.uint8)), None
    if image.mode == "F":  # no standard says what is white: the first of these that nothing exceeds
        values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0).clip(min=0)
        white = next((white for white in (1, 255) if values.max() <= white), 65535)
        return Image.fromarray((values.clip(max=white) * (255 / white)).round().astype(np.uint8)), None
    if not image.has_transparency_data:
        return image.convert("L"), None
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    return image.convert("L"), None if alpha.getextrema()[0] == 255 else alpha


def _has_colours(image: Image.Image) -> bool:
    if image.mode.startswith(("1", "L", "I", "F")) and image.mode != "LAB":
        return False
    size = (min(256, image.width), min(256, image.height))
    small = image.resize(size, Image.Resampling.NEAREST)
    return not is_gray(np.asarray(small.convert("RGBA").convert("RGB")))


def _carried(image: Image.Image, notes: list[str]) -> tuple[Info, Image.Transpose | None]:
    """What the coloured photo takes over from the file, and how the pixels are to be turned."""
    info: Info = {}
    profile = image.info.get("icc_profile") or b""
    if profile[16:20] == b"RGB ":  # those of gray and CMYK photos are wrong for what we write
        info["icc_profile"] = profile
    if "dpi" in image.info:
        info["dpi"] = tuple(float(value) for value in image.info["dpi"])
    turn = None
    try:
        exif = image.getexif()
        turn = TURNS.get(exif.get(ORIENTATION, 1))
        kept = Image.Exif()
        for tag in KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for ifd in (EXIF_IFD, GPS_IFD):
            if tags := {tag: value for tag, value in exif.get_ifd(ifd).items() if tag not in SIZE_TAGS}:
                kept[ifd] = tags
        if len(kept) and len(content := kept.tobytes()) < EXIF_BYTES:
            info["exif"] = content
        elif len(kept):
            notes.append(f"its EXIF is left out: more than {EXIF_BYTES:,} bytes do not fit into a JPEG")
    except (
        Exception
    ) as error:  # broken EXIF makes Pillow raise a dozen types, and is no reason to refuse a photo
        notes.append(f"its EXIF cannot be read and is left out ({type(error).__name__})")
    return info, turn


def opaque(picture: Image.Image) -> Image.Image:
    """The same in RGB, on white where it is transparent."""
    if picture.mode != "RGBA":
        return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy it
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def written_info(picture: Image.Image) -> dict[str, Any]:
    """What of a picture's `info` goes into its file, as Pillow's `save` takes it."""
    return {key: picture.info[key] for key in ("exif", "icc_profile", "dpi") if key in picture.info}


def write(photo: Image.Image, path: Path) -> None:
    """Write a coloured photo in the format that its suffix says, with what is in its `info`, atomically.

    Transparency goes on white where the format has none. Raises PhotochromError when it cannot be written.
    """
    format = Image.registered_extensions()[path.suffix.lower()]
    kept = written_info(photo)
    if format in WITHOUT_ALPHA:
        photo = opaque(photo)
    options = SAVE_OPTIONS.get(format, {})
    if format == "TIFF" and "exif" in kept:
        options = {}  # libtiff, which compresses, fails on the inner tables of EXIF

    def save(file: IO[bytes]) -> None:
        photo.save(file, format=format, **options, **kept)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save)
    except OSError as error:  # of the folder
        raise PhotochromError(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:  # such as sides that the format cannot hold
        raise PhotochromError(
            f"cannot write {path} ({error}): choose another format, such as .png"
        ) from error
