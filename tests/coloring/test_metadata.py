"""What a file tells of a photo goes on into the coloured one, and never costs the photo."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, IptcImagePlugin

from photochrom.coloring.photo import open_gray, write
from tests.make_odd_files import ALPHA, GRAY, RGB, adobe_rgb, gray_profile, saved, tiff
from tests.programs import imagemagick

CAPTION, KEYWORD = "Großmutter im Garten", "Familie"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    f'tiff:Orientation="ORIENTATION"><dc:description>{CAPTION}</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def iptc(*datasets: tuple[int, bytes]) -> bytes:
    """IPTC-IIM of record 2, in UTF-8. Source: IPTC-NAA Information Interchange Model 4.2, section 1.5."""
    content = b"\x1c\x01\x5a\0\x03\x1b%G"
    return content + b"".join(
        b"\x1c\x02" + struct.pack(">BH", number, len(text)) + text for number, text in datasets
    )


IPTC = iptc((25, KEYWORD.encode()), (120, CAPTION.encode()))


def photo_with(format: str, orientation: int = 1) -> bytes:
    """A photo whose XMP and IPTC stand where other programs put them."""
    image, xmp = Image.fromarray(GRAY), XMP.replace("ORIENTATION", str(orientation)).encode()
    if format == "TIFF":
        return tiff(GRAY, extratags=[(700, 1, len(xmp), xmp, True), (33723, 7, len(IPTC), IPTC, True)])
    content = saved(image, format, xmp=xmp)
    if format == "JPEG":
        block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
        segment = b"Photoshop 3.0\0" + b"8BIM\x04\x06\0\0\0\0\0\x02ab" + block
        content = content[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    return content


def coloured(content: bytes, target: Path) -> tuple[str, ...]:
    """The photo written as if it had been coloured; returns the notes of reading and writing."""
    photo = open_gray(content)
    picture = photo.luma.convert("RGB")
    picture.info = dict(photo.info)
    return photo.notes + write(picture, target)


@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif", "b.avif"])
@pytest.mark.parametrize("source", ["JPEG", "TIFF", "WEBP", "AVIF"])
def test_xmp_is_kept(tmp_path: Path, source: str, target: str) -> None:
    coloured(photo_with(source, orientation=6), tmp_path / target)
    with Image.open(tmp_path / target) as image:
        found = image.info["xmp"]
        text = found if isinstance(found, str) else found.decode()
        assert CAPTION in text
        assert "tiff:Orientation" not in text or 'tiff:Orientation="1"' in text  # the pixels are upright now
        assert image.size == (18, 24)


@pytest.mark.parametrize("target", ["b.jpg", "b.tif"])
@pytest.mark.parametrize("source", ["JPEG", "TIFF"])
def test_iptc_is_kept(tmp_path: Path, source: str, target: str) -> None:
    coloured(photo_with(source), tmp_path / target)
    with Image.open(tmp_path / target) as image:
        found: Any = IptcImagePlugin.getiptcinfo(image)
    assert (found[2, 120].decode(), found[2, 25].decode()) == (CAPTION, KEYWORD)


def test_iptc_goes_through_png(tmp_path: Path) -> None:
    coloured(photo_with("JPEG"), tmp_path / "b.png")
    if convert := imagemagick():
        subprocess.run([convert, tmp_path / "b.png", tmp_path / "c.jpg"], check=True)
        with Image.open(tmp_path / "c.jpg") as image:
            found: Any = IptcImagePlugin.getiptcinfo(image)
        assert (found[2, 120].decode(), found[2, 25].decode()) == (CAPTION, KEYWORD)
    assert open_gray(tmp_path / "b.png").info["iptc"] == IPTC


def test_iptc_as_numbers_of_four_bytes_is_read() -> None:
    padded = IPTC + bytes(-len(IPTC) % 4)
    numbers = struct.unpack(f">{len(padded) // 4}I", padded)
    content = tiff(GRAY, byteorder=">", extratags=[(33723, 4, len(numbers), numbers, True)])
    assert open_gray(content).info["iptc"] == IPTC


def test_what_a_format_has_no_place_for_is_said(tmp_path: Path) -> None:
    notes = coloured(photo_with("JPEG"), tmp_path / "b.webp")
    assert notes == ("its IPTC is left out: WEBP has no place for it",)


def test_one_bad_tag_does_not_cost_the_others(tmp_path: Path) -> None:
    entries = [  # a type that there is not, and a rational of 0/0
        (0x010F, 2, 6, b"Leica\0"), (0x0131, 99, 1, b"abcd"), (0x0132, 5, 1, struct.pack("<II", 0, 0)),
        (0x013B, 2, 7, b"Vivian\0"),
    ]  # fmt: skip
    table, content = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        table += struct.pack("<HHI", tag, kind, count)
        table += value if len(value) <= 4 else struct.pack("<I", 8 + 2 + 12 * len(entries) + 4 + len(content))
        content += value if len(value) > 4 else b""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + table + bytes(4) + content
    notes = coloured(saved(Image.fromarray(GRAY), "JPEG", exif=exif), tmp_path / "b.jpg")
    assert any("0x0132" in note for note in notes)
    with Image.open(tmp_path / "b.jpg") as image:
        found = image.getexif()
        assert (found[0x010F], found[0x013B]) == ("Leica", "Vivian")
        assert 0x0132 not in found


def test_the_makers_notes_give_way_where_all_is_too_much(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Leica"
    exif.get_ifd(0x8769).update({0x927C: bytes(64_990), 0x829A: 0.004})
    notes = coloured(saved(Image.fromarray(GRAY), "PNG", exif=exif), tmp_path / "b.jpg")
    assert any("maker's notes in its EXIF are left out" in note for note in notes)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[0x010F] == "Leica"
        assert float(image.getexif().get_ifd(0x8769)[0x829A]) == pytest.approx(0.004)


@pytest.mark.parametrize("dpi", [(1e200, 1e200), (float("nan"), 1.0), (0, 0), (-3, 5), (1,), None, "many"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.tif", "b.bmp"])
def test_a_resolution_that_no_format_holds_does_not_cost_the_photo(
    tmp_path: Path, dpi: Any, target: str
) -> None:
    image = Image.fromarray(GRAY)
    image.info["dpi"] = dpi
    photo = open_gray(image)
    assert "dpi" not in photo.info
    picture = photo.luma.convert("RGB")
    picture.info = {"dpi": dpi}  # as a program of somebody else may set it
    write(picture, tmp_path / target)
    with Image.open(tmp_path / target) as found:
        assert found.size == (24, 18)


def test_what_the_encoder_refuses_is_left_out_and_said(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB)
    picture.info = {"xmp": b"x" * 70_000, "dpi": (600, 600)}
    assert write(picture, tmp_path / "b.jpg") == ("its XMP cannot be written as JPEG and is left out",)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["dpi"] == (600, 600)
        assert "xmp" not in image.info


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_tiff_with_all_its_metadata_is_compressed(tmp_path: Path, mode: str) -> None:
    pixels = (
        np.tile(RGB, (60, 60, 1))
        if mode == "RGB"
        else np.tile(np.concatenate([RGB, ALPHA[..., None]], -1), (60, 60, 1))
    )
    exif = Image.Exif()
    exif[0x0131], exif[0x010E] = "a scanner's", "Müller"
    exif.get_ifd(0x8769).update({0x829A: 0.004})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 24.0)})
    picture = Image.fromarray(pixels)
    picture.info = {
        "exif": exif.tobytes(),
        "xmp": XMP.encode(),
        "iptc": IPTC,
        "dpi": (600, 600),
        "icc_profile": adobe_rgb(),
    }
    write(picture, tmp_path / "b.tif")
    assert (tmp_path / "b.tif").stat().st_size < pixels.nbytes / 4
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert np.array_equal(page.asarray(), pixels)
        assert page.tags["Software"].value == "a scanner's"
        assert page.tags["ExifTag"].value["ExposureTime"] == pytest.approx(0.004)
        assert page.tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert bytes(page.tags[33723].value) == IPTC
        assert page.tags[700].value == XMP.encode()
        assert page.tags["XResolution"].value == (600, 1)
        assert page.tags[34675].value == adobe_rgb()
    if tiffinfo := shutil.which("tiffinfo"):
        said = subprocess.run(
            [tiffinfo, "-D", tmp_path / "b.tif"], capture_output=True, text=True, check=True
        )
        assert "AdobeDeflate" in said.stdout
        assert "rror" not in said.stderr


@pytest.mark.parametrize(("name", "icc"), [("GRAY", gray_profile(1.0)), ("RGB", adobe_rgb())])
def test_what_had_another_profile_is_tagged_as_srgb(tmp_path: Path, name: str, icc: bytes) -> None:
    image = Image.fromarray(GRAY if name == "GRAY" else RGB)
    notes = coloured(saved(image, "PNG", icc_profile=icc), tmp_path / "b.png")
    assert any("was applied: the result is sRGB" in note for note in notes)
    with Image.open(tmp_path / "b.png") as found:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(found.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_a_photo_without_a_profile_gets_none(tmp_path: Path) -> None:
    coloured(saved(Image.fromarray(GRAY), "PNG"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as found:
        assert "icc_profile" not in found.info
