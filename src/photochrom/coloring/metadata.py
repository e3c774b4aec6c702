"""Carries metadata from a photo to its coloured version: EXIF, XMP, IPTC, resolution, colour profile.

Broken metadata never stop a photo: they are left out, and a note says so.

Sources: EXIF 2.32 (JEITA CP-3451E), tables 4 to 8, for the tags; XMP Specification Part 3 (Adobe, 2020) for
the places of XMP and IPTC in JPEG and TIFF; ImageMagick's "Raw profile type iptc" for IPTC in PNG.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

Info = dict[str | tuple[int, int], Any]  # as Pillow types it
Place = tuple[int, int]  # of a tag: its table (0 is the outer one) and its number
Tags = dict[Place, Any]

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# The tags that describe the photo; other tags of a TIFF describe how its pixels are stored, which changes. In
# order: description, make, model, resolution (3), software, date, artist, host, rating (2), copyright,
# Windows' title to subject.
KEPT_TAGS = (
    *(0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C),
    *(0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),
)
LEFT_TAGS = (0xA002, 0xA003, 0xA005)  # width and height before the turn, and the interoperability table
COLOR_SPACE, SRGB = 0xA001, 1
MAKER_NOTE = 0x927C
EXIF_BYTES = 65_000
TIFF_IPTC = 0x83BB
PHOTOSHOP_IPTC = 0x0404
MOST_DPI = 60_000

NAMES = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "icc_profile": "colour profile", "dpi": "resolution"}
PLACES = {  # the metadata that Pillow, or `write_tiff`, can write into each format
    "JPEG": ("exif", "xmp", "iptc", "icc_profile", "dpi"),
    "PNG": ("exif", "xmp", "iptc", "icc_profile", "dpi"),
    "TIFF": ("exif", "xmp", "iptc", "icc_profile", "dpi"),
    "WEBP": ("exif", "xmp", "icc_profile"),
    "AVIF": ("exif", "xmp", "icc_profile"),
    "BMP": ("dpi",),
}
STRIP_BYTES = 2**18


def carried(image: Image.Image, profile: bytes | None, notes: list[str]) -> Info:
    """Collect the metadata of an opened image that its coloured version keeps. Adds a note for each loss."""
    info: Info = {}
    if profile:
        info["icc_profile"] = profile
    if dpi := _dpi(image.info.get("dpi")):
        info["dpi"] = dpi
    for key, read in (("exif", _exif), ("xmp", _xmp), ("iptc", _iptc)):
        try:
            content = read(image, notes)
        except Exception as error:  # broken metadata make Pillow raise a dozen types
            notes.append(f"its {NAMES[key]} cannot be read and is left out ({type(error).__name__})")
        else:
            if content:
                info[key] = content
    return info


def _dpi(given: Any) -> tuple[float, float] | None:
    """A resolution in pixels per inch that every format can hold, or None."""
    try:
        x, y = (float(value) for value in given)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (x, y) if 0 < x < MOST_DPI and 0 < y < MOST_DPI else None


def _exif(image: Image.Image, notes: list[str]) -> bytes | None:
    """The EXIF to keep. Leaves out each tag that cannot be written."""
    exif = image.getexif()
    tables: dict[int, Mapping[int, Any]] = {
        0: exif,
        EXIF_IFD: exif.get_ifd(EXIF_IFD),
        GPS_IFD: exif.get_ifd(GPS_IFD),
    }
    tags: Tags = {}
    bad: list[Place] = []
    for ifd, table in tables.items():
        for tag in KEPT_TAGS if ifd == 0 else set(table) - set(LEFT_TAGS):
            try:
                if tag in table:
                    tags[ifd, tag] = _storable(table[tag])
            except Exception:  # Pillow raises a dozen types
                bad.append((ifd, tag))
    if (EXIF_IFD, COLOR_SPACE) in tags:
        tags[EXIF_IFD, COLOR_SPACE] = SRGB
    try:
        content = _exif_bytes(tags)
    except Exception:  # some value has a type that its tag does not allow
        bad += [place for place in tags if not _can_be_written(place, tags[place])]
        tags = {place: value for place, value in tags.items() if place not in bad}
        content = _exif_bytes(tags)
    if bad:
        names = ", ".join(f"{tag:#06x}" for _, tag in bad[:5])
        notes.append(f"the tags {names} of its EXIF are broken and left out")
    if len(content) > EXIF_BYTES and (EXIF_IFD, MAKER_NOTE) in tags:
        del tags[EXIF_IFD, MAKER_NOTE]
        notes.append("the camera maker's notes in its EXIF are left out: they do not fit into a JPEG")
        content = _exif_bytes(tags)
    if len(content) > EXIF_BYTES:
        notes.append(f"its EXIF is left out: more than {EXIF_BYTES:,} bytes do not fit into a JPEG")
        return None
    return content if tags else None


def _storable(value: Any) -> Any:
    """Return the value. Raises ValueError for 0/0, which Pillow reads but not every format can hold."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, (float, IFDRational)) and not math.isfinite(float(part)):
            raise ValueError("not a number")
    return value


def _exif_bytes(tags: Tags) -> bytes:
    exif = Image.Exif()
    for ifd in {ifd for ifd, _ in tags}:
        table = {tag: value for (place, tag), value in tags.items() if place == ifd}
        exif.update({ifd: table} if ifd else table)
    return exif.tobytes()


def _can_be_written(place: Place, value: Any) -> bool:
    try:
        _exif_bytes({place: value})
    except Exception:  # Pillow raises a dozen types
        return False
    return True


def _xmp(image: Image.Image, notes: list[str]) -> bytes | None:
    """The XMP packet, with orientation 1, since the pixels are already turned."""
    xmp = image.info.get("xmp")
    if not xmp:
        return None
    content = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))\s*[0-9]", rb"\g<1>1", content.rstrip(b"\0"))


def _iptc(image: Image.Image, notes: list[str]) -> bytes | None:
    """The captions and keywords of news agencies (IPTC-IIM)."""
    if image.format == "PNG" and isinstance(text := image.info.get("Raw profile type iptc"), str):
        content = bytes.fromhex("".join(text.split()[2:]))
        return _from_resources(content) if content.startswith(b"8BIM") else content
    if not isinstance(image, ImageFile.ImageFile):  # read by tifffile
        value = image.getexif().get(TIFF_IPTC)
        return value if isinstance(value, bytes) else None
    content = b""
    for (record, number), values in (IptcImagePlugin.getiptcinfo(image) or {}).items():
        for value in values if isinstance(values, list) else [values]:
            if len(value) < 2**15:  # longer values encode their length differently, and are no captions
                content += struct.pack(">BBBH", 0x1C, record, number, len(value)) + value
    return content or None


def _from_resources(content: bytes) -> bytes | None:
    """Find IPTC-IIM in Photoshop's image resources, each "8BIM", number, name, length and content."""
    place = 0
    while content[place : place + 4] == b"8BIM":
        number = int.from_bytes(content[place + 4 : place + 6])
        place += 6 + (content[place + 6] + 2) // 2 * 2
        length = int.from_bytes(content[place : place + 4])
        if number == PHOTOSHOP_IPTC:
            return content[place + 4 : place + 4 + length]
        place += 4 + (length + 1) // 2 * 2
    return None


# --- Writing
# -----------------------------------------------------------------------------------------------------------


def kept(picture: Image.Image, format: str) -> tuple[Info, tuple[str, ...]]:
    """The part of a picture's `info` that this format can hold, and notes for the user about the rest."""
    there = {key: picture.info[key] for key in NAMES if picture.info.get(key)}
    places = PLACES.get(format, ())
    lost = [NAMES[key] for key in ("exif", "xmp", "iptc") if key in there and key not in places]
    notes = (f"its {', '.join(lost)} is left out: {format} has no place for it",) if lost else ()
    return {key: there[key] for key in there if key in places}, notes


def save(picture: Image.Image, file: IO[bytes], format: str, options: dict[str, Any]) -> tuple[str, ...]:
    """Save a picture with the metadata in its `info`. Returns notes for the user. Raises what Pillow raises.

    options: for Pillow's `save`. If the encoder fails, each kind of metadata is tried on one pixel, and those
    that fail are left out.
    """
    info, notes = kept(picture, format)
    try:
        _save(picture, file, format, options, info)
    except Exception:
        pixel = Image.new(picture.mode, (1, 1))
        bad = [key for key in info if not _can_be_saved(pixel, format, options, {key: info[key]})]
        if not bad:
            raise
        file.seek(0)
        file.truncate()
        _save(picture, file, format, options, {key: info[key] for key in info if key not in bad})
        notes += (
            f"its {', '.join(NAMES[str(key)] for key in bad)} cannot be written as {format} and is left out",
        )
    return notes


def _can_be_saved(pixel: Image.Image, format: str, options: dict[str, Any], info: Info) -> bool:
    try:
        _save(pixel, BytesIO(), format, options, info)
    except Exception:
        return False
    return True


def _save(picture: Image.Image, file: IO[bytes], format: str, options: dict[str, Any], info: Info) -> None:
    if format == "TIFF":
        write_tiff(picture, file, info)
        return
    extra: dict[str, Any] = {str(key): value for key, value in info.items() if key != "iptc"}
    if format == "PNG":
        texts = PngInfo()
        if xmp := extra.pop("xmp", None):
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        if iptc := info.get("iptc"):
            lines = "\n".join(re.findall(".{1,72}", iptc.hex()))
            texts.add_text("Raw profile type iptc", f"\niptc\n{len(iptc):8}\n{lines}\n", zip=True)
        extra["pnginfo"] = texts
    elif iptc := info.get("iptc"):
        block = b"8BIM" + struct.pack(">HHI", PHOTOSHOP_IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
        segment = b"Photoshop 3.0\0" + block
        extra["extra"] = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    picture.save(file, format=format, **options, **extra)


def write_tiff(picture: Image.Image, file: IO[bytes], info: Info) -> None:
    """Write a picture (mode L, RGB or RGBA) as TIFF in deflated strips, with horizontal differencing.

    Pillow would compress through libtiff, which fails on the inner tables of EXIF. Sources: TIFF 6.0 (Adobe,
    1992), section 14, for the predictor; Adobe Photoshop TIFF Technical Notes (2002) for deflate.
    """
    bands = len(picture.getbands())
    table = ImageFileDirectory_v2(prefix=b"II")
    exif = Image.Exif()
    exif.load(info.get("exif", b""))
    for tag in exif:
        table[tag] = exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else exif[tag]
    if "dpi" in info:
        table[0x011A], table[0x011B] = info["dpi"]
        table[0x0128] = 2
    for key, tag, kind in (("xmp", 700, 1), ("iptc", TIFF_IPTC, 7), ("icc_profile", 34675, 7)):
        if key in info:
            table.tagtype[tag] = kind  # bytes
            table[tag] = info[key]
    rows = max(1, STRIP_BYTES // (picture.width * bands))
    tops = range(0, picture.height, rows)
    for tag, value in {
        **{
            0x0100: picture.width,
            0x0101: picture.height,
            0x0102: (8,) * bands,
            0x0103: 8,
            0x011C: 1,
            0x013D: 2,
        },
        **{0x0106: 1 if bands == 1 else 2, 0x0115: bands, 0x0116: rows},
        **({0x0152: 2} if bands == 4 else {}),
    }.items():
        table[tag] = value
    for tag in (0x0111, 0x0117):  # where the strips begin, and how long they are
        table.tagtype[tag] = 4
        table[tag] = (0,) * len(tops)
    begin = 8 + len(table.tobytes(8))
    file.write(b"\0" * begin)
    offsets: list[int] = []
    lengths: list[int] = []
    for top in tops:
        pixels = np.asarray(picture.crop((0, top, picture.width, min(top + rows, picture.height))))
        differences = pixels.copy()
        differences[:, 1:] -= pixels[:, :-1]
        strip = zlib.compress(differences.tobytes())
        offsets.append(offsets[-1] + lengths[-1] if offsets else 0)  # counted from the end of the table
        lengths.append(len(strip))
        file.write(strip)
    table[0x0111], table[0x0117] = tuple(offsets), tuple(lengths)
    file.seek(0)
    table.save(file)
    file.seek(0, 2)
