"""Converts photos with a colour profile to sRGB, with LittleCMS.

The intent is relative colorimetric with black point compensation, as in image editors. Source: ICC.1:2022,
section 7.2.6, for a profile's colour space.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

# The modes of an image that a profile of each colour space fits.
MODES = {"GRAY": ("L", "LA", "I;16"), "RGB ": ("RGB", "RGBA"), "CMYK": ("CMYK",)}
SAME = 1  # a profile that changes no level by more than this counts as sRGB
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE  # threads can share it without a cache
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


class Broken(Exception):
    """LittleCMS refuses a profile; the text says why."""


class Conversion(NamedTuple):
    """How to convert an image to sRGB: a table for gray, a transform for colours, neither if it is sRGB."""

    name: str
    table: npt.NDArray[np.uint8] | None = None  # for 256 or 65536 levels of gray
    transform: ImageCms.ImageCmsTransform | None = None


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None, str | None]:
    """Convert an image (mode L, LA, I;16, RGB, RGBA or CMYK) to sRGB. Also returns its profile and a note.

    The returned profile is the given one if that is sRGB. Without a profile, or with one for another kind of
    image, the image stays as it is. Raises Broken.
    """
    if profile is None:
        return image, None, None
    if image.mode not in MODES.get(profile[16:20].decode("latin-1"), ()):
        return image, None, None
    conversion = _conversion(profile, image.mode)
    if conversion.table is not None:
        image = _looked_up(image, conversion.table)
    elif conversion.transform is not None:
        converted = ImageCms.applyTransform(image, conversion.transform)
        assert converted is not None  # it is None only if done in place
        image = converted
    else:
        return image, profile if image.mode.startswith("RGB") else None, None
    return image, SRGB.tobytes(), f"its colour profile ({conversion.name}) was applied: the result is sRGB"


@lru_cache(maxsize=32)  # the photos of an album have few profiles
def _conversion(profile: bytes, mode: str) -> Conversion:
    """The conversion of images of `mode` to sRGB; an empty one if it changes no level by more than SAME."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = " ".join((ImageCms.getProfileDescription(opened) or "").split())[:60] or "without a name"
        goal = "RGBA" if mode == "RGBA" else "RGB"
        source = {"LA": "L"}.get(mode, mode)
        gray = profile[16:20] == b"GRAY"
        flags = FLAGS | ImageCms.Flags.NOOPTIMIZE if gray else FLAGS  # optimising makes dark gray coarse
        transform = ImageCms.buildTransform(
            opened, SRGB, source, goal, ImageCms.Intent.RELATIVE_COLORIMETRIC, flags
        )
        if gray:
            count = 65536 if mode == "I;16" else 256
            ramp = np.arange(count, dtype=np.uint16 if mode == "I;16" else np.uint8)[None]
            table = _applied(Image.fromarray(ramp), transform)[0, :, 1]
            plain = ramp[0] >> 8 if mode == "I;16" else ramp[0]
            same = np.abs(table.astype(int) - plain).max() <= SAME
            return Conversion(name) if same else Conversion(name, table=table)
        if mode in ("RGB", "RGBA"):
            levels = np.arange(0, 256, 15, dtype=np.uint8)
            cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
            probe = Image.fromarray(cube).convert(mode)
            if np.abs(_applied(probe, transform)[..., :3].astype(int) - cube).max() <= SAME:
                return Conversion(name)
        return Conversion(name, transform=transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise Broken(" ".join(str(error).split()) or type(error).__name__) from error


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> npt.NDArray[np.uint8]:
    return np.asarray(ImageCms.applyTransform(image, transform))


def _looked_up(image: Image.Image, table: npt.NDArray[np.uint8]) -> Image.Image:
    if image.mode == "I;16":
        return Image.fromarray(table[np.asarray(image)])
    if image.mode == "L":
        return image.point(table.tolist())
    gray, alpha = image.split()
    return Image.merge("LA", (gray.point(table.tolist()), alpha))


def from_lab(image: Image.Image) -> Image.Image:
    """Convert an image of mode LAB (CIE L*a*b*, D50) to sRGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    transform = ImageCms.buildTransform(lab, SRGB, "LAB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, FLAGS)
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted
