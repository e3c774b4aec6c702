"""Reading a photo: whatever a file holds, what comes out is how people see it, upright, in sRGB, 8 bits a sample.

`opened` finds out what a file is and refuses what is too large before anything is decoded; `develop` makes the picture.
Kinds of samples that Pillow opens but does not interpret are in `scans`, colour profiles in `profiles`.
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
KINDS = "a path, a Pillow image, a NumPy array, the bytes of a file, or a file that is open for reading bytes"

# Pillow reads more than these; the rest are documents, icons and formats that call other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
MAX_PIXELS = MAX_MEGAPIXELS * 1_000_000
GRAY_BELOW = 8  # levels between the highest and lowest channel; JPEG noise in a gray photo stays under it

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
# Of errors: they carry a number or a key, where others have a reason.
SILENT = (LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, struct.error, zlib.error)
_PILLOW = threading.Lock()


class Developed(NamedTuple):
    """A photo as people see it."""

    image: Image.Image  # upright, sRGB, of mode L, LA, RGB or RGBA
    profile: bytes | None  # an ICC profile of sRGB, where the photo had a profile
    notes: tuple[str, ...]  # what a person should know of how it was read


def is_photo(value: object) -> TypeGuard[Given]:
    """Whether a value is one photo, of KINDS, and not several."""
    return isinstance(value, (str, Path, Image.Image, np.ndarray, bytes, bytearray, memoryview)) or hasattr(
        value, "read"
    )


def open_photo(photo: Given, max_pixels: int = MAX_PIXELS, truncated: bool = False) -> Image.Image:
    """A photo as people see it, on white where it is transparent: mode "L" or "RGB". Raises as `opened`."""
    with opened(photo, max_pixels, truncated) as image:
        return on_white(develop(image).image)


@contextmanager
def opened(photo: Given, max_pixels: int = MAX_PIXELS, truncated: bool = False) -> Iterator[Image.Image]:
    """A photo, to be decoded inside (by `develop`), so that whatever goes wrong there is told in one line.

    truncated: take what there is of a file that was cut short. Raises PhotochromError when the photo is missing, broken, no
    photo, or of more than max_pixels, which its header tells before anything is decoded; UsageError for what is none of KINDS.
    """
    try:
        with _source(photo) as source, _pillow_allows(truncated), undecoded(source, max_pixels) as image:
            yield image
    except PhotochromError:
        raise
    except Exception as error:  # broken bytes make decoders raise a dozen types
        reason = reason_of(error)
        if isinstance(error, Image.DecompressionBombError):
            reason += ": allow them with --max-megapixels"
        elif not truncated and _helps_to_take_what_there_is(photo, max_pixels, error):
            reason += ": colour what there is with --truncated"
        elif _is_heic(photo) and "HEIF" not in formats():
            reason = "HEIC needs another package: pip install 'photochrom[heic]'"
        elif not any(mend in reason for mend in scans.MENDS):
            reason += ": save it anew as PNG or JPEG, with a program that opens it"
        raise PhotochromError(f"{name_of(photo)} cannot be read as a photo ({reason})") from error


def name_of(photo: object) -> str:
    """What an error calls a photo."""
    return str(photo) if isinstance(photo, (str, Path)) else "the given photo"


@contextmanager
def _source(photo: Given) -> Iterator[IO[bytes] | Image.Image]:
    """What a photo is read from. A file is always read as a stream: Pillow shears turned TIFFs that it maps into memory."""
    if isinstance(photo, np.ndarray):
        yield from_array(photo)
    elif isinstance(photo, Image.Image):
        # Not decoded yet, so that it can still be read as a TIFF has to be; if only of the frame that was chosen.
        stream = getattr(photo, "fp", None) if photo.format == "TIFF" and not photo.tell() else None
        yield stream if stream is not None and getattr(photo, "tile", None) else photo
    elif isinstance(photo, (str, Path)):
        path = Path(photo)
        if not path.exists():
            raise PhotochromError(f"there is no photo {photo}")
        if not path.is_file():  # opening a named pipe would wait for ever
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
    """As `opened`, with the errors of the decoders, and within Pillow's own limits."""
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
    """Pillow's own limits, which are the whole process's, set for a moment: one thread at a time."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of 89 megapixels, of broken EXIF: what matters is told by us
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = None  # our own limit is checked from the header
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@cache
def formats() -> tuple[str, ...]:
    """What may be opened: HEIC as well, where the optional package for it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


def check_extent(size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise DecompressionBombError for more pixels than are allowed; the header knows, before anything is decoded."""
    width, height = size
    if width * height > max_pixels:
        raise Image.DecompressionBombError(f"{width}x{height}, more than {max_pixels:,} pixels")


def _is_heic(photo: Given) -> bool:
    return isinstance(photo, (str, Path)) and str(photo).lower().endswith(HEIC_SUFFIXES)


def _helps_to_take_what_there_is(photo: Given, max_pixels: int, error: Exception) -> bool:
    """Whether a file that cannot be decoded gives a picture if it is taken as far as it goes: tried, not guessed."""
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
    if isinstance(error, UnidentifiedImageError):  # its text tells of a file object in memory
        return "not an image of a kind that is known, or cut short"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if isinstance(error, SILENT) or " " not in text or text.startswith("decoder error"):
        return "its data are damaged, or of a kind that is not known"
    return text[:200]


# --- What is in the file, as people see it -----------------------------------------------------------------------------


def develop(image: Image.Image) -> Developed:
    """Decode an image, as `opened` or a person gives it, to how people see it."""
    notes: list[str] = []
    if scans.PAGE in image.info:
        notes.append(image.info[scans.PAGE])
    elif (frames := _frames(image)) > 1:
        notes.append(f"only the first of its {frames} frames is coloured")
    if (level := _clear_level(image)) is not None:
        image.info["transparency"] = level
    image.load()  # after which Pillow's TIFFs have turned themselves
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
    """Of a PNG of 2 or 4 bits the level that is transparent, in 8 bits as its pixels, where Pillow leaves it as it is."""
    clear = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    if image.format != "PNG" or not tiles or not isinstance(clear, int):
        return None
    return {"L;2": 85, "L;4": 17}.get(tiles[0].args, 1) * clear


def _frames(image: Image.Image) -> int:
    try:
        # An MPO's others are previews, and which pages of a TIFF are, `scans` has found out.
        return 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
    except Exception:  # the others are broken, which is no reason to refuse the first
        return 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF makes Pillow raise a dozen types, and is no reason to refuse a photo
        return None


def _known_mode(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The same pixels in a mode that `profiles` knows: L, LA, I;16, RGB, RGBA or CMYK; and alpha (mode L) of I;16."""
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
    """An image whose transparency is in its palette, or is a level or a colour that stands for it."""
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of a PNG of 16 bits, of which 8 are left
        image = image.copy()
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    return image.convert("LA" if image.mode in ("1", "L") else "RGBA")


def _sixteen_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Gray of more than 8 bits in the whole range of 16, and alpha where one level stands for what is transparent."""
    levels = (
        np.asarray(image).clip(0, 65535).astype(np.uint16, copy=False)
    )  # Pillow would clip what is above 255
    clear = image.info.get("transparency")
    hidden = levels == clear if isinstance(clear, int) else None
    if getattr(image, "tag_v2", {}).get(scans.BITS) == (12,):  # they lie in the lower part
        levels = scans.in_sixteen_bits(levels, 12)
    alpha = None if hidden is None else Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
    return Image.fromarray(levels), alpha


def on_white(image: Image.Image) -> Image.Image:
    """The same in mode "L" or "RGB", on white where it is transparent."""
    if image.mode in ("L", "RGB"):
        return image
    white = Image.new(image.mode[:-1], image.size, "white")
    white.paste(image.convert(white.mode), mask=image.getchannel("A"))
    return white


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


def is_gray(pixels: Pixels) -> bool:
    """Whether the three channels are less than 8 levels apart at every pixel of (H, W, 3)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return bool((highest - lowest).max() < GRAY_BELOW)
