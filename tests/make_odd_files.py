"""Odd files that people have: each with the luma to expect, known from how it was made, or why it is refused.

`python tests/make_odd_files.py FOLDER` writes them all, to look at or to give to another program.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

Levels = npt.NDArray[np.float64]  # (H, W) from 0 to 255
HEIGHT, WIDTH = 18, 24
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
GRAY = (ROWS * 10 + COLUMNS * 3).astype(np.uint8)  # all corners differ, and so do neighbours
GRAY[-1, -1] = 255
RGB = np.stack([COLUMNS * 10, ROWS * 14, 255 - COLUMNS * 5 - ROWS * 7], axis=-1).astype(np.uint8)
ALPHA = (60 + COLUMNS * 8).astype(np.uint8)

# What the stored pixels' first row and column are in the photo: EXIF 2.32, 4.6.4 (A) Orientation.
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.T,  # left, top
    6: lambda stored: stored.T[:, ::-1],  # right, top
    7: lambda stored: stored.T[::-1, ::-1],  # right, bottom
    8: lambda stored: stored.T[::-1],  # left, bottom
}


@dataclass(frozen=True)
class Odd:
    """One odd file."""

    name: str
    content: bytes
    luma: Levels | None = None  # what it must come to
    within: float = 1.0  # levels by which it may differ
    alpha: Levels | None = None
    refused: str | None = None  # a regular expression of the reason, where it cannot be read


def luma(rgb: npt.NDArray[Any]) -> Levels:
    """Luma of (H,W,3) as ITU-R BT.601 has it."""
    return np.asarray(rgb.astype(np.float64) @ (0.299, 0.587, 0.114))


def odd_files() -> list[Odd]:
    """All of them."""
    made = [*pngs(), *jpegs(), *tiffs(), *other_formats(), *profiled(), *refused()]
    names = [odd.name for odd in made]
    assert len(set(names)) == len(names)
    return made


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


# --- PNG (W3C, third edition) -------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: npt.NDArray[Any], bits: int, kind: int, adam7: bool, *chunks: bytes) -> bytes:
    """A PNG of samples (H,W,S), each of so many bits; kind: its colour type."""
    height, width, _ = samples.shape
    passes = [(slice(None), slice(None))]
    if adam7:
        starts = (
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        )
        passes = [(slice(y, None, down), slice(x, None, right)) for y, x, down, right in starts]
    rows = b""
    for part in passes:
        for row in samples[part]:
            if row.size:
                bytes_ = row.astype(">u2").tobytes() if bits == 16 else packed(row.reshape(-1), bits)
                rows += b"\0" + bytes_
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(adam7))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def header_only(width: int, height: int) -> bytes:
    """A PNG with a header of this size and no pixels: decoding it fails in another way than its size does."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def packed(values: npt.NDArray[Any], bits: int) -> bytes:
    """Values of fewer than 16 bits, the first in the highest bits, to the end of the last byte."""
    unpacked = (values[:, None].astype(np.uint16) >> np.arange(bits - 1, -1, -1, dtype=np.uint16)) & 1
    return np.packbits(unpacked.astype(np.uint8)).tobytes()


def pngs() -> Iterator[Odd]:
    for bits, adam7 in product((1, 2, 4, 8, 16), (False, True)):
        top = 2**bits - 1
        values = np.round(GRAY / 255 * top).astype(int)
        seen, name = values / top * 255, f"png-gray-{bits}{'-adam7' * adam7}"
        yield Odd(f"{name}.png", png(values[..., None], bits, 0, adam7), seen)
        clear = int(values[5, 5])
        trns = chunk(b"tRNS", struct.pack(">H", clear))
        alpha = np.where(values == clear, 0.0, 255.0)
        yield Odd(f"{name}-clear.png", png(values[..., None], bits, 0, adam7, trns), seen, alpha=alpha)
        if bits < 16:
            palette = chunk(b"PLTE", bytes(RGB.reshape(-1, 3)[: 2**bits].tobytes()))
            indices = (ROWS * WIDTH + COLUMNS) % 2**bits
            colours = RGB.reshape(-1, 3)[indices]
            name = f"png-palette-{bits}{'-adam7' * adam7}"
            yield Odd(f"{name}.png", png(indices[..., None], bits, 3, adam7, palette), luma(colours))
            trns = chunk(b"tRNS", b"\x20")  # of the first colour
            alpha = np.where(indices == 0, 32.0, 255.0)
            yield Odd(
                f"{name}-clear.png",
                png(indices[..., None], bits, 3, adam7, palette, trns),
                luma(colours),
                alpha=alpha,
            )
        if bits >= 8:
            wide = top // 255
            name = f"{bits}{'-adam7' * adam7}.png"
            gray, rgb, alpha8 = (each.astype(int) * wide for each in (GRAY, RGB, ALPHA))
            yield Odd(f"png-rgb-{name}", png(rgb, bits, 2, adam7), luma(RGB))
            clear_rgb = rgb[3, 4]
            trns = chunk(b"tRNS", struct.pack(">3H", *clear_rgb))
            alpha = np.where((rgb == clear_rgb).all(axis=-1), 0.0, 255.0)
            yield Odd(f"png-rgb-clear-{name}", png(rgb, bits, 2, adam7, trns), luma(RGB), alpha=alpha)
            both = np.stack([gray, alpha8], axis=-1)
            yield Odd(
                f"png-gray-alpha-{name}",
                png(both, bits, 4, adam7),
                GRAY.astype(float),
                alpha=ALPHA.astype(float),
            )
            four = np.concatenate([rgb, alpha8[..., None]], axis=-1)
            yield Odd(
                f"png-rgb-alpha-{name}", png(four, bits, 6, adam7), luma(RGB), alpha=ALPHA.astype(float)
            )
    gray = Image.fromarray(GRAY)
    for orientation, turned in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Odd(f"png-turned-{orientation}.png", saved(gray, "PNG", exif=exif), turned(GRAY.astype(float)))
    plain = saved(gray, "PNG")
    yield Odd("png-and-more.png", plain + b"something that a program wrote behind it", GRAY.astype(float))
    yield Odd("png-named.jpg", plain, GRAY.astype(float))
    yield Odd(
        "png-animated.apng",
        saved(gray, "PNG", save_all=True, append_images=[gray.point(lambda v: 255 - v)]),
        GRAY.astype(float),
    )


# --- JPEG ---------------------------------------------------------------------------------------------------


def jpegs() -> Iterator[Odd]:
    gray, rgb = Image.fromarray(GRAY), Image.fromarray(RGB)
    fine: dict[str, Any] = {"quality": 100, "subsampling": 0}
    variants: dict[str, dict[str, Any]] = {
        "plain": {}, "progressive": {"progressive": True}, "optimized": {"optimize": True},
        "restarts": {"restart_marker_rows": 1},
        "420": {"subsampling": 2}, "422": {"subsampling": 1}, "comment": {"comment": "for grandmother"},
    }  # fmt: skip
    for name, options in variants.items():
        yield Odd(f"jpeg-{name}.jpg", saved(rgb, "JPEG", **fine | options), luma(RGB), within=6)
        yield Odd(
            f"jpeg-gray-{name}.jpeg", saved(gray, "JPEG", **fine | options), GRAY.astype(float), within=2
        )
    cmyk = Image.merge(
        "CMYK", [Image.fromarray(255 - RGB[..., k]) for k in range(3)] + [Image.new("L", (WIDTH, HEIGHT))]
    )
    yield Odd("jpeg-cmyk.jpe", saved(cmyk, "JPEG", **fine), luma(RGB), within=4)
    for orientation, turned in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(gray, "JPEG", exif=exif, **fine)
        yield Odd(f"jpeg-turned-{orientation}.jfif", content, turned(GRAY.astype(float)), within=2)
    plain = saved(gray, "JPEG", **fine)
    for name, exif_bytes in {
        "torn": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "empty": b"Exif\0\0",
        "nonsense": b"Exif\0\0" + bytes(range(200)),
        "loop": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
    }.items():
        yield Odd(
            f"jpeg-exif-{name}.jpg",
            saved(gray, "JPEG", exif=exif_bytes, **fine),
            GRAY.astype(float),
            within=2,
        )
    yield Odd("jpeg-and-more.jpg", plain + bytes(1000), GRAY.astype(float), within=2)
    yield Odd("jpeg-named.png", plain, GRAY.astype(float), within=2)
    yield Odd(
        "jpeg-mpo.mpo",
        saved(gray, "MPO", save_all=True, append_images=[gray.resize((8, 6))], **fine),
        GRAY.astype(float),
        within=2,
    )
    density = b"\xff\xe0\x00\x10JFIF\0\1\2\1" + b"\0\0\0\0" + b"\0\0"  # of 0 pixels an inch
    yield Odd("jpeg-no-density.jpg", plain[:2] + density + plain[20:], GRAY.astype(float), within=2)


# --- TIFF ---------------------------------------------------------------------------------------------------


def tiff(data: npt.NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, data, metadata=None, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def in_type(levels: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """Levels from 0 to 255 as numbers of a type, whose largest (1, if it is a float) is white."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return (levels / 255).astype(dtype)
    return np.round(levels / 255 * float(np.iinfo(dtype).max) * (1 - 1e-9)).astype(dtype)


def tiffs() -> Iterator[Odd]:
    gray, rgb, alpha = GRAY.astype(float), RGB.astype(float), ALPHA.astype(float)
    for kind, order in product(("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"), "<>"):
        name, end = f"tiff-gray-{kind}", f"{'be' if order == '>' else 'le'}.tif"
        data = in_type(gray, kind).astype(np.dtype(kind).newbyteorder(">" if order == ">" else "<"))
        within = 1.5 if kind == "i1" else 1.0  # of which 128 levels are left
        yield Odd(f"{name}-{end}", tiff(data, byteorder=order), gray, within=within)
        if kind[0] == "u":
            options: dict[str, Any] = {"photometric": "miniswhite", "byteorder": order}
            yield Odd(f"{name}-white-is-zero-{end}", tiff(data, **options), 255 - gray)
            yield Odd(
                f"{name}-deflated-{end}",
                tiff(data, byteorder=order, compression="zlib", predictor=kind != "u4"),
                gray,
            )
        if kind in ("u1", "u2", "f4"):
            for planar in ("contig", "separate"):
                data = in_type(rgb, kind)
                data = np.moveaxis(data, -1, 0) if planar == "separate" else data
                options = {"photometric": "rgb", "planarconfig": planar, "byteorder": order}
                yield Odd(f"tiff-rgb-{kind}-{planar}-{end}", tiff(data, **options), luma(RGB))
                if kind != "f4":
                    data = in_type(np.concatenate([255 - rgb, 0 * rgb[..., :1]], axis=-1), kind)
                    data = np.moveaxis(data, -1, 0) if planar == "separate" else data
                    options["photometric"] = "separated"
                    yield Odd(f"tiff-cmyk-{kind}-{planar}-{end}", tiff(data, **options), luma(RGB))
    for kind, associated in product(("u1", "u2"), (False, True)):
        part = (alpha / 255)[..., None] if associated else 1
        options = {"extrasamples": ["assocalpha" if associated else "unassalpha"]}
        name = f"{kind}-{'multiplied' if associated else 'alpha'}.tiff"
        within = 4.0 if associated and kind == "u1" else 1.0  # multiplied, 8 bits lose some
        data = in_type(np.concatenate([gray[..., None] * part, alpha[..., None]], axis=-1), kind)
        yield Odd(f"tiff-gray-{name}", tiff(data, planarconfig="contig", **options), gray, within, alpha)
        data = in_type(np.concatenate([rgb * part, alpha[..., None]], axis=-1), kind)
        yield Odd(f"tiff-rgb-{name}", tiff(data, photometric="rgb", **options), luma(RGB), within, alpha)
        options = {"extrasamples": ["unspecified"]}
        data = in_type(np.concatenate([gray[..., None], alpha[..., None]], axis=-1), kind)
        if not associated:
            yield Odd(f"tiff-gray-{kind}-more.tiff", tiff(data, planarconfig="contig", **options), gray)
    for orientation, turned in UPRIGHT.items():
        ways: dict[str, dict[str, Any]] = {
            "": {}, "-deflated": {"compression": "zlib"}, "-tiled": {"tile": (16, 16)},
        }  # fmt: skip
        for name, options in ways.items():
            content = tiff(GRAY, extratags=[(274, 3, 1, orientation, True)], **options)
            yield Odd(f"tiff-turned-{orientation}{name}.tif", content, turned(gray))
        content = tiff(
            in_type(gray, "u2"), photometric="miniswhite", extratags=[(274, 3, 1, orientation, True)]
        )
        yield Odd(f"tiff-turned-{orientation}-white-is-zero.tif", content, turned(255 - gray))
    yield Odd("tiff-big.tif", tiff(GRAY, bigtiff=True), gray)
    yield Odd(
        "tiff-big-u2-white-is-zero.tif",
        tiff(in_type(gray, "u2"), bigtiff=True, photometric="miniswhite"),
        255 - gray,
    )
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma"):
        for mode, values in (("u1", GRAY), ("u2", in_type(gray, "u2"))):
            content = saved(Image.fromarray(values), "TIFF", compression=compression)
            yield Odd(f"tiff-{compression}-{mode}.tif", content, gray)
    bilevel = GRAY > 100
    yield Odd("tiff-bilevel.tif", tiff(bilevel), bilevel * 255.0)
    yield Odd(
        "tiff-bilevel-white-is-zero.tif", tiff(bilevel, photometric="miniswhite"), 255 - bilevel * 255.0
    )
    yield Odd(
        "tiff-group4.tif", saved(Image.fromarray(bilevel), "TIFF", compression="group4"), bilevel * 255.0
    )
    table = np.moveaxis(RGB.reshape(-1, 3)[:256].astype(np.uint16) * 257, -1, 0)
    indices = ((ROWS * WIDTH + COLUMNS) % 256).astype(np.uint8)
    colours = RGB.reshape(-1, 3)[indices]
    yield Odd("tiff-palette.tif", tiff(indices, photometric="palette", colormap=table), luma(colours))
    for kind in ("u1", "u2"):
        lightness = in_type(gray, kind)
        lab = np.stack([lightness, 0 * lightness, 0 * lightness], axis=-1)
        yield Odd(
            f"tiff-lab-{kind}.tif", tiff(lab, photometric="cielab"), of_lightness(gray / 255 * 100), within=2
        )
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        writer.write(GRAY, photometric="minisblack", metadata=None)
        writer.write(255 - GRAY, photometric="minisblack", metadata=None)
    yield Odd("tiff-pages.tif", pages.getvalue(), gray)
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        writer.write(GRAY[::3, ::3], photometric="minisblack", metadata=None, subfiletype=1)
        writer.write(255 - GRAY, photometric="minisblack", metadata=None)
    yield Odd("tiff-small-copy-first.tif", pages.getvalue(), 255 - gray)
    plain = tiff(GRAY, resolution=((7919, 1), (7919, 1)), resolutionunit=2)
    for name, x in {
        "none": (0, 0),
        "endless": (1, 0),
        "huge": (2**32 - 1, 1),
        "tiny": (1, 2**32 - 1),
    }.items():
        content = plain.replace(struct.pack("<II", 7919, 1), struct.pack("<II", *x))
        yield Odd(f"tiff-resolution-{name}.tif", content, gray)
    yield Odd(
        "tiff-software.tif",
        tiff(GRAY, software="a scanner's", description="Müller, 1931".encode("latin-1")),
        gray,
    )
    yield Odd(
        "tiff-wide-range.tif",
        tiff((gray * 10 - 700).astype(np.int16)),
        (gray * 10 - 700 + 32768) / 65535 * 255,
    )
    yield Odd("tiff-u4-of-16-bits.tif", tiff(in_type(gray, "u2").astype(np.uint32)), gray)
    for white in (255.0, 65535.0):
        yield Odd(f"tiff-f4-{white:.0f}.tif", tiff((gray / 255 * white).astype(np.float32)), gray)
    holes = (gray / 255).astype(np.float32)
    holes[4, 4], holes[5, 5], holes[6, 6] = np.nan, np.inf, -np.inf
    seen = gray.copy()
    seen[[4, 5, 6], [4, 5, 6]] = 0
    yield Odd("tiff-f4-holes.tif", tiff(holes), seen)


def of_lightness(lightness: Levels) -> Levels:
    """The sRGB level of gray of CIE L*. Sources: CIE 15:2004, equation 8.5; IEC 61966-2-1."""
    f = (lightness + 16) / 116
    return encoded(np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2))


def encoded(light: Levels) -> Levels:
    """The sRGB level of light from 0 to 1. Source: IEC 61966-2-1."""
    return np.asarray(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


# --- Other formats ------------------------------------------------------------------------------------------


def other_formats() -> Iterator[Odd]:
    gray, rgb, alpha = GRAY.astype(float), luma(RGB), ALPHA.astype(float)
    images = {"gray": (Image.fromarray(GRAY), gray), "rgb": (Image.fromarray(RGB), rgb)}
    rgba = Image.fromarray(np.concatenate([RGB, ALPHA[..., None]], axis=-1))
    for name, (image, seen) in images.items():
        yield Odd(f"bmp-{name}.bmp", saved(image, "BMP"), seen)
        yield Odd(f"dib-{name}.dib", saved(image, "DIB"), seen)
        yield Odd(f"jp2-{name}.jp2", saved(image, "JPEG2000"), seen)
        for suffix in ("j2k", "j2c", "jpc"):
            yield Odd(f"j2k-{name}.{suffix}", saved(image, "JPEG2000", no_jp2=True), seen)
        for suffix in ("jpf", "jpx"):
            yield Odd(f"jp2-{name}.{suffix}", saved(image, "JPEG2000", num_resolutions=3), seen)
        yield Odd(f"webp-{name}.webp", saved(image.convert("RGB"), "WEBP", lossless=True), seen)
        yield Odd(f"avif-{name}.avif", saved(image, "AVIF", quality=100, subsampling="4:4:4"), seen, within=4)
        yield Odd(f"pnm-{name}.pnm", saved(image, "PPM"), seen)
        yield Odd(
            f"gif-{name}.gif", saved(image.quantize(256), "GIF"), seen, within=6 if name == "rgb" else 1
        )
    yield Odd("bmp-32.bmp", saved(rgba, "BMP"), rgb)  # of which the fourth byte says nothing
    yield Odd("jp2-alpha.jp2", saved(rgba, "JPEG2000"), rgb, alpha=alpha)
    yield Odd("jp2-16.jp2", saved(Image.fromarray(GRAY.astype(np.uint16) * 257), "JPEG2000"), gray)
    yield Odd("jp2-resolution.jp2", with_resolution(saved(images["gray"][0], "JPEG2000")), gray)
    yield Odd("webp-alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True), rgb, alpha=alpha)
    negative = Image.fromarray(255 - RGB)
    for name, format in (("gif", "GIF"), ("webp", "WEBP")):
        options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
        content = saved(images["rgb"][0], format, save_all=True, append_images=[negative], **options)
        yield Odd(f"{name}-animated.{name}", content, rgb, within=6 if format == "GIF" else 1)
    black = Image.fromarray(GRAY > 100)
    yield Odd("pbm-raw.pbm", saved(black, "PPM"), (GRAY > 100) * 255.0)
    bits = "\n".join(" ".join(str(int(bit)) for bit in row) for row in GRAY <= 100)
    yield Odd("pbm-plain.pbm", f"P1\n# a comment\n{WIDTH} {HEIGHT}\n{bits}\n".encode(), (GRAY > 100) * 255.0)
    numbers = "\n".join(" ".join(map(str, row)) for row in GRAY)
    yield Odd("pgm-plain.pgm", f"P2 {WIDTH} {HEIGHT} 255\n{numbers}\n".encode(), gray)
    numbers = "\n".join(" ".join(map(str, row.reshape(-1))) for row in RGB)
    yield Odd("ppm-plain.ppm", f"P3 {WIDTH} {HEIGHT} 255\n{numbers}\n".encode(), rgb)
    for top in (100, 1023, 65535):
        values = np.round(GRAY / 255 * top).astype(">u2" if top > 255 else "u1")
        yield Odd(
            f"pgm-{top}.pgm", f"P5\n{WIDTH} {HEIGHT}\n{top}\n".encode() + values.tobytes(), values / top * 255
        )
    floats = (GRAY[::-1] / 255).astype("<f4")  # from the bottom to the top
    yield Odd("pfm.pfm", f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + floats.tobytes(), gray)
    yield Odd("one-pixel.png", saved(Image.new("L", (1, 1), 77), "PNG"), np.full((1, 1), 77.0))
    yield Odd(
        "strip.png", saved(Image.fromarray(np.tile(GRAY[:1], (1, 100))), "PNG"), np.tile(gray[:1], (1, 100))
    )
    plain = saved(images["gray"][0], "PNG")
    for name in (
        "写真 一.png",
        "it's; $(odd) & `quoted`.png",
        "-dash.png",
        "UPPER.PNG",
        "two.dots.tar.png",
        "%s %d.png",
    ):
        yield Odd(name, plain, gray)
    yield Odd("写" * 83 + ".png", plain, gray)
    try:
        import pillow_heif
    except ImportError:
        return
    for name, (image, seen) in images.items():
        stream = io.BytesIO()
        pillow_heif.from_pillow(image.convert("RGB").resize((64, 64))).save(stream, quality=-1, chroma=444)
        del seen
        expected = luma(np.asarray(image.convert("RGB").resize((64, 64))))
        yield Odd(f"heic-{name}.heic", stream.getvalue(), expected, within=4)


def with_resolution(jp2: bytes) -> bytes:
    """A JPEG 2000 with 65535 * 10^127 points a metre in both directions. Source: ISO/IEC 15444-1, I.5.3.7."""
    box = struct.pack(">I4sHHHHbb", 18, b"resc", 65535, 1, 65535, 1, 127, 127)
    box = struct.pack(">I4s", 8 + len(box), b"res ") + box
    place = jp2.index(b"jp2h") - 4
    length = struct.unpack_from(">I", jp2, place)[0]
    header = struct.pack(">I", length + len(box)) + jp2[place + 4 : place + length] + box
    return jp2[:place] + header + jp2[place + length :]


# --- Colour profiles (ICC.1:2022) ---------------------------------------------------------------------------


def profile(space: bytes, tags: dict[bytes, bytes], name: str) -> bytes:
    """A profile of version 2 for a display, of "GRAY" or "RGB "."""
    text = name.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {
        b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1.0, 0.8249), **tags,
    }  # fmt: skip
    table, content = b"", b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(content), len(value))
        content += value + b"\0" * (-len(value) % 4)
    body = struct.pack(">I", len(tags)) + table + content
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(0.9642, 1.0, 0.8249)[8:]
    return header + bytes(128 - len(header)) + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def gray_profile(value: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(value)}, f"Gray gamma {value}")


def adobe_rgb() -> bytes:
    """Primaries and curve of Adobe RGB (1998), adapted to D50 as its specification lists them."""
    return profile(
        b"RGB ",
        {
            b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
            b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
            **{tag: gamma(563 / 256) for tag in (b"rTRC", b"gTRC", b"bTRC")},
        },
        "Adobe RGB (1998)",
    )  # fmt: skip


def profiled() -> Iterator[Odd]:
    gray = Image.fromarray(GRAY)
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    both = Image.merge("LA", [gray, Image.fromarray(ALPHA)])
    for value in (1.0, 1.8, 2.6):
        icc, seen = gray_profile(value), encoded((GRAY / 255.0) ** value)
        yield Odd(f"icc-gray-{value}.png", saved(gray, "PNG", icc_profile=icc), seen)
        yield Odd(f"icc-gray-{value}.jpg", saved(gray, "JPEG", quality=100, icc_profile=icc), seen, within=12)
        yield Odd(f"icc-gray-{value}.tif", saved(gray, "TIFF", icc_profile=icc), seen)
        yield Odd(f"icc-gray-{value}-16.png", saved(deep, "PNG", icc_profile=icc), seen)
        yield Odd(f"icc-gray-{value}-16.tif", saved(deep, "TIFF", icc_profile=icc), seen)
        yield Odd(
            f"icc-gray-{value}-alpha.png",
            saved(both, "PNG", icc_profile=icc),
            seen,
            alpha=ALPHA.astype(float),
        )
        content = tiff(GRAY.astype(np.uint16) * 257, photometric="miniswhite", iccprofile=icc)
        yield Odd(f"icc-gray-{value}-white-is-zero.tif", content, encoded((1 - GRAY / 255.0) ** value))
    seen = encoded((GRAY / 255.0) ** (563 / 256))
    rgb = gray.convert("RGB")
    for name, format in (("png", "PNG"), ("tif", "TIFF")):
        yield Odd(f"icc-adobe-rgb.{name}", saved(rgb, format, icc_profile=adobe_rgb()), seen, within=1.5)
    rgb.putalpha(Image.fromarray(ALPHA))
    content = saved(rgb, "PNG", icc_profile=adobe_rgb())
    yield Odd("icc-adobe-rgb-alpha.png", content, seen, within=1.5, alpha=ALPHA.astype(float))
    yield Odd(
        "icc-of-colours.png", saved(gray, "PNG", icc_profile=adobe_rgb()), GRAY.astype(float)
    )  # but gray
    for name, icc in {"torn": adobe_rgb()[:150], "nonsense": b"no profile", "empty": bytes(128)}.items():
        yield Odd(f"icc-{name}.png", saved(gray.convert("RGB"), "PNG", icc_profile=icc), GRAY.astype(float))


# --- What cannot be read ------------------------------------------------------------------------------------


def refused() -> Iterator[Odd]:
    gray = Image.fromarray(np.asarray(Image.fromarray(GRAY).resize((200, 200))))
    unknown = "of an unknown kind"
    for name, content in {
        "empty.jpg": b"", "text.jpg": b"dear diary", "zeros.tif": bytes(2000),
        "archive.png": b"PK\3\4" + bytes(100),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "photoshop.jpg": b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes(100),
        "film.jpg": b"\0\0\0\x18ftypmp42" + bytes(100),
        "riff.webp": b"RIFF\x10\0\0\0WEBPVP8 ", "bitmap.bmp": b"BM" + bytes(60),
    }.items():  # fmt: skip
        yield Odd(f"no-{name}", content, refused=rf"{unknown}|damaged|\w+ \w+")
    for format, suffix in {"JPEG": "jpg", "PNG": "png"}.items():
        content = saved(gray, format)
        yield Odd(f"cut-{suffix}.{suffix}", content[: len(content) * 2 // 3], refused="--truncated")
    for format, suffix in {
        "WEBP": "webp",
        "AVIF": "avif",
        "JPEG2000": "jp2",
        "BMP": "bmp",
        "TIFF": "tif",
        "GIF": "gif",
    }.items():
        content = saved(gray, format)
        yield Odd(f"cut-{suffix}.{suffix}", content[: len(content) * 2 // 3], refused=r"\w+ \w+")
        yield Odd(f"cut-early-{suffix}.{suffix}", content[:20], refused=r"\w+ \w+")
    bomb = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bomb) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    yield Odd("bomb.png", content, refused="more than .* pixels: allow them with --max-megapixels")
    large = tiff(in_type(GRAY.astype(float), "u2"), photometric="miniswhite")
    with tifffile.TiffFile(io.BytesIO(large)) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]  # not a frame
        width, height = (tags[number].valueoffset for number in (256, 257))
    claims = bytearray(large)
    struct.pack_into("<H", claims, width, 60_000)
    struct.pack_into("<H", claims, height, 60_000)
    yield Odd("bomb.tif", bytes(claims), refused="more than .* pixels: allow them with --max-megapixels")
    yield Odd(
        "camera-raw.tif",
        tiff(GRAY.astype(np.uint16), photometric=32803),
        refused="camera's raw picture: develop it",
    )
    pages = io.BytesIO()
    with tifffile.TiffWriter(
        pages
    ) as writer:  # as cameras have it: a small copy first, and the picture below it
        writer.write(GRAY[::3, ::3], photometric="minisblack", metadata=None, subfiletype=1, subifds=1)
        writer.write(GRAY.astype(np.uint16), photometric=32803, metadata=None, subfiletype=0)
    yield Odd("camera-raw-with-small-copy.tif", pages.getvalue(), refused="camera's raw picture: develop it")
    yield Odd("complex.tif", tiff(GRAY.astype(np.complex64)), refused="of an unknown kind: save it again")
    twelve = tiff_of_twelve_bits()
    if find_spec("imagecodecs") is None:
        yield Odd("twelve-bits.tif", twelve, refused=r"12 bits.*pip install 'photochrom\[scans\]'")
    else:
        yield Odd("twelve-bits.tif", twelve, luma(RGB))


def tiff_of_twelve_bits() -> bytes:
    """RGB of 12 bits a sample, packed, as scanners write it."""
    rows = b"".join(packed(np.round(row.reshape(-1) / 255 * 4095), 12) for row in RGB)
    entries = [
        (256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 3, 8 + 2 + 9 * 12 + 4), (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6), (277, 3, 1, 3), (278, 3, 1, HEIGHT), (279, 4, 1, len(rows)),
    ]  # fmt: skip
    table = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        table += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0\x08\0\0\0" + table + bytes(4) + struct.pack("<3H", 12, 12, 12) + rows


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    made = odd_files()
    for odd in made:
        (folder / odd.name).write_bytes(odd.content)
    print(f"{len(made)} files in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
