"""Reads TIFF, the format of scanners: finds the photo's page, and interprets samples that Pillow does not.

Pillow reads the kinds that `_pillow_is_right` lists. tifffile reads the others, and this module interprets
them. Source: TIFF 6.0 (Adobe, 1992), section 8 for PhotometricInterpretation, 18 for ExtraSamples, 19 for
SampleFormat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PAGE = "photochrom_page"  # key in an image's info; a note about which of several pages it is
SUBFILE, COMPRESSION, PHOTOMETRIC, BITS, PLANAR, SUB_IFDS = 254, 259, 262, 258, 284, 330
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, EXTRA_SAMPLES, SAMPLE_FORMAT = 282, 283, 296, 338, 339
XMP, ICC_PROFILE = 700, 34675
SMALLER, MASK = 1, 4  # bits of SUBFILE
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
CAMERA_RAW = (32803, 34892)
MOST_SAMPLES = 32  # samples of a pixel; a page with more is no photo
REMEDIES = ("save it", "pip install")  # the remedies in errors of this module
RAW = "it is a camera's raw picture: develop it, and save it as TIFF or JPEG"
UNKNOWN = "it is a TIFF of an unknown kind: save it again as plain TIFF, PNG or JPEG"
FULL = 65535
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs odd tags; we report what matters
EIGHT = (np.arange(FULL + 1) / 257).round().astype(np.uint8)

Levels = npt.NDArray[np.uint16]


def is_tiff(begin: bytes) -> bool:
    """Whether a file with this beginning is a TIFF."""
    return begin in BEGINNINGS


@contextmanager
def opened(source: IO[bytes], check_extent: Callable[[tuple[int, int]], None]) -> Iterator[Image.Image]:
    """Open the photo in a TIFF: its first page that is neither a smaller copy nor a mask.

    check_extent gets the size (width, height) before decoding, and raises if it is too large.
    """
    image = _by_pillow(source)
    if image is None:
        yield _by_tifffile(source, check_extent)
        return
    with image:
        check_extent(image.size)
        yield image


def _by_pillow(source: IO[bytes]) -> Image.Image | None:
    """The photo, not decoded yet, or None if Pillow would not read it correctly."""
    try:
        image = Image.open(source, formats=("TIFF",))
        kinds = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            kinds.append(_tags(image).get(SUBFILE, 0))
        number, page = _photo_among(kinds)
        image.seek(number)
    except (UnidentifiedImageError, SyntaxError, EOFError):  # tifffile may know it
        return None
    if kinds[number] & SMALLER and SUB_IFDS in _tags(image):
        raise ValueError(RAW)
    if page:
        image.info[PAGE] = page
    return image if _pillow_is_right(_tags(image)) else None


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _photo_among(kinds: list[int]) -> tuple[int, str | None]:
    """The number of the photo's page, by the SUBFILE tags of all pages, and a note if there are others."""
    pages = [number for number, kind in enumerate(kinds) if not kind & (SMALLER | MASK)] or [0]
    if len(pages) == 1:
        return pages[0], None
    return pages[0], f"only page {pages[0] + 1} of its {len(kinds)} pages is coloured"


def _pillow_is_right(tags: Any) -> bool:
    """Whether Pillow interprets samples of this kind correctly. It opens more kinds, but misreads them."""
    photometric, bits = tags.get(PHOTOMETRIC), tags.get(BITS, (1,))
    forms = set(tags.get(SAMPLE_FORMAT, (1,)))
    if forms == {3}:
        return bits == (32,) and photometric == BLACK_IS_ZERO
    if forms != {1}:
        return False
    if bits == (12,):
        return photometric == BLACK_IS_ZERO and tags.get(COMPRESSION, 1) == 1
    if bits == (16,):
        return photometric == BLACK_IS_ZERO
    if max(bits) > 8:
        multiplied = 1 in tags.get(EXTRA_SAMPLES, ())  # by alpha; Pillow divides again with only 8 bits
        return (
            photometric in (RGB, CMYK) and set(bits) == {16} and tags.get(PLANAR, 1) == 1 and not multiplied
        )
    return photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR)


def _by_tifffile(source: IO[bytes], check_extent: Callable[[tuple[int, int]], None]) -> Image.Image:
    """The photo, decoded, of mode I;16, LA, RGB, RGBA, CMYK or LAB."""
    import tifffile  # slow to import, and seldom needed

    source.seek(0)
    with tifffile.TiffFile(source) as file:
        pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
        number, note = _photo_among([int(page.subfiletype) for page in pages])
        page = pages[number]
        check_extent((page.imagewidth, page.imagelength))
        if page.photometric in CAMERA_RAW or (page.is_reduced and SUB_IFDS in page.tags):
            raise ValueError(RAW)
        if page.samplesperpixel > MOST_SAMPLES or page.imagedepth != 1 or page.is_subsampled:
            raise ValueError(UNKNOWN)
        try:
            samples = page.asarray(maxworkers=1)
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            kind = f"{page.bitspersample} bits, compressed as {tifffile.COMPRESSION(page.compression).name}"
            raise ValueError(f"{kind}, needs another package: pip install 'photochrom[scans]'") from error
        planes, _, height, width, together = page.shaped
        samples = np.moveaxis(samples.reshape(planes, height, width, together), 0, 2)
        image = _interpreted(samples.reshape(height, width, -1), page)
        if note:
            image.info[PAGE] = note
        _add_metadata(image, page, source, file.byteorder, file.is_bigtiff)
    return image


def _interpreted(samples: npt.NDArray[Any], page: Any) -> Image.Image:
    """Turn the samples (H,W,S) of a page into a picture."""
    photometric, extra = page.photometric, [int(kind) for kind in page.extrasamples]
    colours = samples.shape[2] - len(extra)
    if photometric in (CIE_LAB, ICC_LAB) and colours == 3:
        return _lab(samples[..., :3], signed=photometric == CIE_LAB)
    if photometric == PALETTE and colours == 1:
        table = np.moveaxis(np.asarray(page.colormap, np.uint16), 0, -1)  # (levels, 3)
        return _merged("RGB", table[samples[..., 0]], None)
    levels = in_sixteen_bits(samples, page.bitspersample)
    alpha = levels[..., colours] if extra and extra[0] in (1, 2) else None
    levels = levels[..., :colours]
    if alpha is not None and extra[0] == 1:  # the colours are multiplied by alpha
        whole = levels.astype(np.uint32) * FULL // np.maximum(alpha, 1)[..., None]
        levels = whole.clip(max=FULL).astype(np.uint16)
    if photometric == WHITE_IS_ZERO:
        levels = FULL - levels
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and colours == 1:
        return _merged("L", levels, alpha)
    if photometric == RGB and colours == 3:
        return _merged("RGB", levels, alpha)
    if photometric == CMYK and colours == 4:
        return _merged("CMYK", levels, None)
    raise ValueError(UNKNOWN)


def _merged(mode: str, levels: Levels, alpha: Levels | None) -> Image.Image:
    """Make an image of levels (H,W,S) of 16 bits. Only gray without alpha keeps 16 bits, for its profile."""
    if mode == "L" and alpha is None:
        return Image.fromarray(np.ascontiguousarray(levels[..., 0]))
    bands = [*np.moveaxis(levels, -1, 0), *([] if alpha is None else [alpha])]
    return Image.merge(
        mode if alpha is None else mode + "A",
        [Image.fromarray(in_eight_bits(band)) for band in bands],
    )


def _lab(samples: npt.NDArray[Any], signed: bool) -> Image.Image:
    """Convert CIE L*a*b* of 8 or 16 bits to Pillow's mode LAB, in which 128 is 0 for a and b.

    Source: TIFF 6.0, section 23.
    """
    if samples.dtype.kind not in "ui" or samples.dtype.itemsize > 2:
        raise ValueError(UNKNOWN)
    wide = samples.dtype.itemsize == 2
    raw = samples.view(np.uint16 if wide else np.uint8).astype(np.uint32)
    lightness, a, b = np.moveaxis(raw, -1, 0)
    if wide:  # ICC's encoding has white at 0xFF00
        lightness = (lightness * 255 // (FULL if signed else 0xFF00)).clip(max=255)
        a, b = a >> 8, b >> 8
    if signed:
        a, b = a ^ 128, b ^ 128
    return Image.merge("LAB", [Image.fromarray(band.astype(np.uint8)) for band in (lightness, a, b)])


def in_sixteen_bits(samples: npt.NDArray[Any], bits: int) -> Levels:
    """Convert samples of any type to levels of 16 bits.

    Integers fill the range of their type: black is 0, or the lowest number if some are negative. For floats,
    no standard defines white: it is the first of 1, 255 and 65535 that no sample exceeds. Integers of 32 bits
    count as 16 bits if none is above 65535.
    """
    if samples.dtype.kind == "f":
        return from_floats(samples)
    if samples.dtype.kind == "b":
        return samples.astype(np.uint16) * np.uint16(FULL)
    if samples.dtype.kind not in "ui":
        raise ValueError(UNKNOWN)
    if samples.dtype.kind == "i":
        if samples.min() < 0:  # flipping the sign bit maps the lowest number to 0
            unsigned = samples.view(f"u{samples.dtype.itemsize}")
            samples = unsigned ^ unsigned.dtype.type(1 << (8 * samples.dtype.itemsize - 1))
        else:
            samples, bits = samples.view(f"u{samples.dtype.itemsize}"), bits - 1
    if bits > 16:
        return (samples >> (0 if samples.max() <= FULL else bits - 16)).clip(max=FULL).astype(np.uint16)
    top = (1 << bits) - 1
    return (samples.astype(np.uint32).clip(max=top) * FULL // top).astype(np.uint16)


def in_eight_bits(levels: Levels) -> npt.NDArray[np.uint8]:
    """Round levels of 16 bits to the nearest of 256."""
    return EIGHT[levels]


def from_floats(samples: npt.NDArray[Any]) -> Levels:
    """Convert floats to levels of 16 bits: see `in_sixteen_bits`."""
    values = np.nan_to_num(samples.astype(np.float32, copy=False), posinf=0, neginf=0).clip(min=0)
    white = next((white for white in (1, 255) if values.max() <= white), FULL)
    return (values.clip(max=white) * (FULL / white)).round().astype(np.uint16)


def _add_metadata(image: Image.Image, page: Any, source: IO[bytes], byteorder: str, bigtiff: bool) -> None:
    """Put the metadata of a page where Pillow would have put them in the image."""
    exif = image.getexif()
    exif.endian, exif.bigtiff = byteorder, bigtiff
    try:
        exif.load_from_fp(source, page.offset)
        x, y, unit = float(exif[X_RESOLUTION]), float(exif[Y_RESOLUTION]), exif.get(RESOLUTION_UNIT, 2)
        image.info["dpi"] = (x, y) if unit == 2 else (x * 2.54, y * 2.54)
    except Exception:  # Pillow raises a dozen types for broken tags, which are no reason to refuse a photo
        pass
    for key, tag in (("icc_profile", ICC_PROFILE), ("xmp", XMP)):
        if isinstance(content := exif.get(tag), bytes):
            image.info[key] = content
