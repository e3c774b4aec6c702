"""Reads a photo of any format as people see it: upright, in sRGB, with 8 bits per sample.

`opened` identifies a file and refuses it if it is too large, before decoding; `develop` makes the picture.
`scans` handles samples that Pillow opens but does not interpret, `profiles` handles colour profiles.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from photochrom.config import MAX_MEGAPIXELS
from photochrom.data import profiles, scans
from photochrom.errors import PhotochromError, UsageError

Given = Image.Image | npt.NDArray[Any] | str | Path | bytes | IO[bytes]
Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
KINDS = "a path, a Pillow image, a NumPy array, the bytes of a file, or a file open for reading bytes"

# Pillow reads more formats: documents, icons, and formats that run other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
MAX_PIXELS = MAX_MEGAPIXELS * 1_000_000
GRAY_BELOW = 8  # levels between the highest and lowest channel; JPEG noise in a gray photo stays below

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The text of these errors is a number or a key, not a reason.
SILENT = (LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, struct.error, zlib.error)
_PILLOW = threading.Lock()


class Developed(NamedTuple):
    """A photo as people see it."""

    image: Image.Image  # upright, sRGB, of mode L, LA, RGB or RGBA
    profile: bytes | None  # an ICC profile of sRGB, if the photo had a profile
    notes: tuple[str, ...]  # for the user, about losses in reading


def is_photo(value: object) -> TypeGuard[Given]:
    """Whether a value is one photo of KINDS, not several."""
    return isinstance(value, (str, Path, Image.Image, np.ndarray, bytes, bytearray, memoryview)) or hasattr(
        value, "read"
    )


def open_photo(photo: Given, max_pixels: int = MAX_PIXELS, truncated: bool = False) -> Image.Image:
    """Read a photo as people see it, on white if it is transparent: mode "L" or "RGB". Raises as `opened`."""
    with opened(photo, max_pixels, truncated) as image:
        return on_white(develop(image).image)


@contextmanager
def opened(photo: Given, max_pixels: int = MAX_PIXELS, truncated: bool = False) -> Iterator[Image.Image]:
    """Open a photo for the body to decode (with `develop`). Errors in the body become one line too.

    truncated: accept a file that was cut short. Raises PhotochromError if the photo is missing, broken, no
    photo, or, by its header, larger than max_pixels. Raises UsageError for anything but KINDS.
    """
    try:
        with _source(photo) as source, _pillow_allows(truncated), undecoded(source, max_pixels) as image:
            yield image
    except PhotochromError:
        raise
    except Exception as error:  # decoders raise a dozen types for broken files
        reason = reason_of(error)
        if isinstance(error, Image.DecompressionBombError):
            reason += ": allow them with --max-megapixels"
        elif not truncated and _truncated_helps(photo, max_pixels, error):
            reason += ": colour what is left with --truncated"
        elif _is_heic(photo) and "HEIF" not in formats():
            reason = "HEIC needs another package: pip install 'photochrom[heic]'"
        elif not any(remedy in reason for remedy in scans.REMEDIES):
            reason += ": save it again as PNG or JPEG, with a program that opens it"
        raise PhotochromError(f"{name_of(photo)} cannot be read as a photo ({reason})") from error


def name_of(photo: object) -> str:
    """The name of a photo in an error."""
    return str(photo) if isinstance(photo, (str, Path)) else "the given photo"


@contextmanager
def _source(photo: Given) -> Iterator[IO[bytes] | Image.Image]:
    """The stream or image to read a photo from.

    A path becomes a stream: with a path, Pillow would memory-map a TIFF, and then distort it if it is turned.
    """
    if isinstance(photo, np.ndarray):
        yield from_array(photo)
    elif isinstance(photo, Image.Image):
        # A TIFF must be read by `scans`. That is possible if it is not decoded yet and at its first frame.
        stream = getattr(photo, "fp", None) if photo.format == "TIFF" and not photo.tell() else None
        yield stream if stream is not None and getattr(photo, "tile", None) else photo
    elif isinstance(photo, (str, Path)):
        path = Path(photo)
        if not path.exists():
            raise PhotochromError(f"there is no photo {photo}")
        if not path.is_file():  # opening a named pipe would wait forever
            raise PhotochromError(f"{photo} is no file: name a photo")
        with path.open("rb") as file:
            yield file
    elif isinstance(photo, (bytes, bytearray, memoryview)):
        yield io.BytesIO(photo)
    elif hasattr(photo, "read"):
        if isinstance(photo, io.TextIOBase):
            raise UsageError('the photo is a file opened as text: open it with mode "rb"')
        seekable = getattr(photo, "seekable", bool)()
        yield photo if seekable else io.BytesIO(photo.read())
    else:
        raise UsageError(f"a photo of type {type(photo).__name__}: give {KINDS}")


@contextmanager
def undecoded(source: IO[bytes] | Image.Image, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Like `opened`, but with the decoders' own errors and Pillow's own limits."""
    if isinstance(source, Image.Image):
        yield source
        return
    source.seek(0)
    begin = source.read(4)
    source.seek(0)
    if scans.is_tiff(begin):
        with scans.opened(source, partial(check_extent, max_pixels=max_pixels)) as image:
            yield image
    else:
        with Image.open(source, formats=formats()) as image:
            check_extent(image.size, max_pixels)
            yield image


@contextmanager
def _pillow_allows(truncated: bool) -> Iterator[None]:
    """Change Pillow's limits, which are global to the process, for one thread at a time."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about 89 megapixels or broken EXIF; we report what matters
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = None  # we check our own limit from the header
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@cache
def formats() -> tuple[str, ...]:
    """The formats that may be opened, with HEIC if its optional package is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


def check_extent(size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise DecompressionBombError if a size, as the header gives it before decoding, has too many pixels."""
    width, height = size
    if width * height > max_pixels:
        raise Image.DecompressionBombError(f"{width}x{height}, more than {max_pixels:,} pixels")


def _is_heic(photo: Given) -> bool:
    return isinstance(photo, (str, Path)) and str(photo).lower().endswith(HEIC_SUFFIXES)


def _truncated_helps(photo: Given, max_pixels: int, error: Exception) -> bool:
    """Try whether a file that cannot be decoded gives a picture with `truncated`."""
    if isinstance(error, UnidentifiedImageError):
        return False
    try:
        with opened(photo, max_pixels, truncated=True) as image:
            image.load()
    except PhotochromError:
        return False
    return True


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in words."""
    if isinstance(error, UnidentifiedImageError):  # its text is about a file object in memory
        return "it is of an unknown kind, or cut short"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if isinstance(error, SILENT) or " " not in text or text.startswith("decoder error"):
        return "its data are damaged, or of an unknown kind"
    return text[:200]


# --- From the file's samples to a picture as people see it
# ----------------------------------------------------------------


def develop(image: Image.Image) -> Developed:
    """Decode an image from `opened` or from the user into a picture as people see it."""
    notes: list[str] = []
    if scans.PAGE in image.info:
        notes.append(image.info[scans.PAGE])
    elif (frames := _frames(image)) > 1:
        notes.append(f"only the first of its {frames} frames is coloured")
    if (level := _clear_level(image)) is not None:
        image.info["transparency"] = level
    image.load()  # this also turns Pillow's TIFFs
    turn = _turn(image)
    profile: bytes | None = image.info.get("icc_profile") or None
    image, alpha = _known_mode(image)
    try:
        image, profile, note = profiles.to_srgb(image, profile)
        notes += [note] if note else []
    except profiles.Broken as error:
        profile = None
        notes.append(f"its colour profile cannot be used and is left out ({error})")
    if image.mode == "I;16":
        image = Image.fromarray(scans.in_eight_bits(np.asarray(image)))
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return Developed(image if turn is None else image.transpose(turn), profile, tuple(notes))


def _clear_level(image: Image.Image) -> int | None:
    """The transparent level of a PNG of 2 or 4 bits, in 8 bits like its pixels; Pillow leaves it unscaled."""
    clear = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    if image.format != "PNG" or not tiles or not isinstance(clear, int):
        return None
    return {"L;2": 85, "L;4": 17}.get(tiles[0].args, 1) * clear


def _frames(image: Image.Image) -> int:
    try:
        # The further frames of an MPO are previews; `scans` has already looked at the pages of a TIFF.
        return 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
    except Exception:  # broken further frames are no reason to refuse the first
        return 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises a dozen types for broken EXIF, which is no reason to refuse a photo
        return None


def _known_mode(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert to a mode for `profiles`: L, LA, I;16, RGB, RGBA or CMYK. Also returns the alpha of I;16."""
    mode = image.mode
    if mode.startswith("I"):
        return _sixteen_bits(image)
    if mode == "F":
        return Image.fromarray(scans.from_floats(np.asarray(image))), None
    if mode == "LAB":
        return profiles.from_lab(image), None
    if mode in ("La", "RGBa"):  # multiplied by alpha
        return image.convert(mode[:-1] + "A"), None
    if mode in ("LA", "RGBA", "CMYK"):
        return image, None
    if image.has_transparency_data:
        return _with_alpha(image), None
    return (image if mode in ("L", "RGB") else image.convert("L" if mode == "1" else "RGB")), None


def _with_alpha(image: Image.Image) -> Image.Image:
    """Give an alpha channel to an image whose palette, or one level or colour, is transparent."""
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # a PNG of 16 bits, of which Pillow keeps 8
        image = image.copy()
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    return image.convert("LA" if image.mode in ("1", "L") else "RGBA")


def _sixteen_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Spread gray of more than 8 bits over 16 bits. Also returns alpha, if one level is transparent."""
    levels = np.asarray(image).clip(0, 65535).astype(np.uint16, copy=False)  # Pillow would clip above 255
    clear = image.info.get("transparency")
    hidden = levels == clear if isinstance(clear, int) else None
    if getattr(image, "tag_v2", {}).get(scans.BITS) == (12,):  # Pillow leaves them in the lower 12 bits
        levels = scans.in_sixteen_bits(levels, 12)
    alpha = None if hidden is None else Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
    return Image.fromarray(levels), alpha


def on_white(image: Image.Image) -> Image.Image:
    """Convert to mode "L" or "RGB", on white where the image is transparent."""
    if image.mode in ("L", "RGB"):
        return image
    white = Image.new(image.mode[:-1], image.size, "white")
    white.paste(image.convert(white.mode), mask=image.getchannel("A"))
    return white


def from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    """Make a Pillow image of an array (H,W), (H,W,3) or (H,W,4), uint8, uint16 or floats from 0 to 1.

    Raises UsageError for any other array.
    """
    if not pixels.size or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise UsageError(f"an array of shape {pixels.shape} is no photo: give (H,W), (H,W,3) or (H,W,4)")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN as well
            raise UsageError("an array of floats has values outside 0 to 1: scale it, or give uint8")
        pixels = (pixels * 255).round().astype(np.uint8)
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"an array of {pixels.dtype}: give uint8, uint16, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def is_gray(pixels: Pixels) -> bool:
    """Whether the three channels are less than 8 levels apart at every pixel of (H, W, 3)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return bool((highest - lowest).max() < GRAY_BELOW)
