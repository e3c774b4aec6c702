"""Every format is read with Pillow's luma, and written with what it had: transparency, EXIF, profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from photochrom.coloring.photo import Photo, open_gray, write
from photochrom.data import reading
from photochrom.errors import PhotochromError, UsageError
from tests.make_odd_files import ALPHA, HEIGHT, RGB, UPRIGHT, WIDTH, header_only

SIZE = (WIDTH, HEIGHT)
Levels = npt.NDArray[np.uint8]


def ramp(mode: str = "RGB") -> Image.Image:
    """A photo with all its corners different, in colour where the mode has any."""
    return Image.fromarray(np.dstack([RGB, ALPHA]) if "A" in mode else RGB).convert(mode)


def levels(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image.convert("L")).astype(np.int64)


def sixteen(path: Path) -> Levels:
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    Image.fromarray(values).save(path)
    return (values / 257).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {}),
        ("a.jpg", "L", {}),
        ("a.jpg", "CMYK", {}),
        ("a.png", "RGB", {}),
        ("a.png", "P", {}),
        ("a.png", "1", {}),
        ("a.tif", "L", {}),
        ("a.tif", "CMYK", {}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.bmp", "RGB", {}),
        ("a.gif", "P", {}),
        ("a.jp2", "RGB", {}),
        ("a.ppm", "RGB", {}),
    ],
)
def test_luma_is_what_pillow_says(tmp_path: Path, name: str, mode: str, options: dict[str, Any]) -> None:
    ramp(mode).save(tmp_path / name, **options)
    photo = open_gray(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert np.abs(levels(photo.luma) - levels(image)).max() <= 1
    assert (photo.luma.mode, photo.luma.size, photo.alpha) == ("L", SIZE, None)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_rescaled(tmp_path: Path, name: str) -> None:
    expected = sixteen(tmp_path / name)
    photo = open_gray(tmp_path / name)
    assert np.array_equal(np.asarray(photo.luma), expected)
    assert photo.notes == ()


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_rescaled(tmp_path: Path, white: float) -> None:
    values = np.linspace(0, white, 100, dtype=np.float32).reshape(10, 10)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(np.asarray(open_gray(tmp_path / "a.tif").luma) - values / white * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGBA"), ("a.png", "LA"), ("a.webp", "RGBA"), ("a.tif", "RGBA")]
)
def test_transparency_is_kept(tmp_path: Path, name: str, mode: str) -> None:
    options: dict[str, Any] = {"lossless": True, "exact": True} if name == "a.webp" else {}
    ramp(mode).save(tmp_path / name, **options)
    photo = open_gray(tmp_path / name)
    assert photo.alpha is not None
    assert np.array_equal(np.asarray(photo.alpha), np.asarray(ramp(mode).getchannel("A")))
    assert np.abs(levels(photo.luma) - levels(ramp(mode))).max() <= 1


def test_transparency_of_a_palette_is_kept(tmp_path: Path) -> None:
    palette = ramp().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 14))
    photo = open_gray(tmp_path / "a.png")
    assert photo.alpha is not None
    values = np.asarray(palette)
    assert np.array_equal(np.asarray(photo.alpha), np.select([values == 0, values == 1], [0, 128], 255))


def test_what_is_opaque_has_no_alpha(tmp_path: Path) -> None:
    ramp().convert("RGBA").save(tmp_path / "a.png")
    assert open_gray(tmp_path / "a.png").alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_orientation_is_applied_and_reset(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Leica"
    ramp("L").save(tmp_path / name, exif=exif, quality=100)
    photo = open_gray(tmp_path / name)
    seen = UPRIGHT[orientation](levels(ramp("L")))
    assert photo.luma.size == seen.shape[::-1]
    assert np.abs(levels(photo.luma) - seen).max() <= 1
    carried = Image.Exif()
    carried.load(photo.info["exif"])
    assert (carried.get(0x0112, 1), carried[0x010F]) == (1, "Leica")


@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif"])
@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_profile_and_resolution_are_carried_over(tmp_path: Path, source: str, target: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x013B], exif[0x0132] = "Leica", "Vivian", "1931:05:04 12:00:00"
    exif.get_ifd(0x8769).update({0x829A: 0.004, 0xA002: 24, 0xA003: 18})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 24.0)})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ramp().save(tmp_path / source, exif=exif.tobytes(), icc_profile=profile, dpi=(600, 600))
    photo = open_gray(tmp_path / source)
    coloured = photo.luma.convert("RGB")
    coloured.info = dict(photo.info)
    write(coloured, tmp_path / target)
    with Image.open(tmp_path / target) as image:
        found = image.getexif()
        assert (found[0x010F], found[0x013B], found[0x0132]) == ("Leica", "Vivian", "1931:05:04 12:00:00")
        assert float(found.get_ifd(0x8769)[0x829A]) == pytest.approx(0.004)
        assert 0xA002 not in found.get_ifd(0x8769)
        assert [float(part) for part in found.get_ifd(0x8825)[2]] == [48, 51, 24]
        assert image.info["icc_profile"] == profile
        if "webp" not in source + target:  # which has no place for it but EXIF
            assert image.info["dpi"] == pytest.approx((600, 600), abs=0.1)


def test_a_profile_of_gray_or_cmyk_is_not_carried_over(tmp_path: Path) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for mode, space in (("L", b"GRAY"), ("CMYK", b"CMYK")):
        profile[16:20] = space
        ramp(mode).save(tmp_path / "a.jpg", icc_profile=bytes(profile))
        assert "icc_profile" not in open_gray(tmp_path / "a.jpg").info


def test_tags_that_tell_how_pixels_are_stored_are_not_carried_over(tmp_path: Path) -> None:
    ramp("P").save(tmp_path / "a.tif", description="a scan")
    photo = open_gray(tmp_path / "a.tif")
    carried = Image.Exif()
    carried.load(photo.info["exif"])
    assert set(carried) <= {0x010E, 0x011A, 0x011B, 0x0128}
    coloured = photo.luma.convert("RGB")
    coloured.info = dict(photo.info)
    write(coloured, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert np.array_equal(np.asarray(image), np.asarray(coloured))


def test_broken_exif_is_said_and_the_photo_taken(tmp_path: Path) -> None:
    ramp("L").save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert open_gray(tmp_path / "a.jpg").luma.size == SIZE


def test_of_a_gif_the_first_frame_is_taken_and_that_is_said(tmp_path: Path) -> None:
    frames = [Image.new("L", SIZE, level) for level in (40, 120, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = open_gray(tmp_path / "a.gif")
    assert photo.luma.getextrema() == (40, 40)
    assert photo.notes == ("only the first of its 3 frames is coloured",)


def test_a_tint_or_colours_are_said(tmp_path: Path) -> None:
    gray = ramp("L")
    sepia = Image.merge("RGB", [gray.point(lambda level, k=k: int(level * k)) for k in (1.0, 0.8, 0.6)])
    for photo in (sepia, ramp("RGB"), ramp("P"), ramp("CMYK")):
        assert len(open_gray(photo).notes) == 1
        assert "colours or a tint" in open_gray(photo).notes[0]
    assert open_gray(gray.convert("RGB")).notes == ()


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(ramp("RGB").resize((64, 64))).save(tmp_path / "a.heic", quality=95)
    photo = open_gray(tmp_path / "a.heic")
    assert np.abs(levels(photo.luma) - levels(ramp().resize((64, 64)))).mean() < 4


def test_without_its_package_heic_tells_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "formats", lambda: reading.FORMATS)
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(PhotochromError, match=r"a\.HEIC .*pip install 'photochrom\[heic\]'"):
        open_gray(tmp_path / "a.HEIC")


def test_sixteen_bits_of_colour_give_their_luma(tmp_path: Path) -> None:
    deep = np.asarray(ramp("RGB")).astype(np.uint16) * 257
    photo = open_gray(deep)
    assert np.abs(levels(photo.luma) - levels(ramp("RGB"))).max() <= 1


def test_arrays_are_photos() -> None:
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert np.array_equal(np.asarray(open_gray(gray).luma), gray)
    assert np.array_equal(np.asarray(open_gray(gray / 255).luma), gray)
    assert np.array_equal(np.asarray(open_gray(gray.astype(np.uint16) * 257).luma), gray)
    assert open_gray(np.asarray(ramp("RGBA"))).alpha is not None


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2, 2)), np.zeros(4), np.zeros((0, 4)), np.full((2, 2), 2.0), np.full((2, 2), np.nan)],
)
def test_arrays_that_are_none_are_told(array: npt.NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="an array of"):
        open_gray(array)


def test_a_bomb_is_known_by_its_header(tmp_path: Path) -> None:
    bomb = tmp_path / "a.png"
    bomb.write_bytes(header_only(50_000, 50_000))
    with pytest.raises(
        PhotochromError, match=r"a\.png .*50000x50000, more than 120,000,000 .*--max-megapixels"
    ):
        open_gray(bomb)
    ramp().save(tmp_path / "b.png")
    with pytest.raises(PhotochromError, match=r"24x18, more than 400 pixels"):
        open_gray(tmp_path / "b.png", max_megapixels=0.0004)
    before = Image.MAX_IMAGE_PIXELS
    assert open_gray(tmp_path / "b.png", max_megapixels=0.000432).luma.size == SIZE
    assert before == Image.MAX_IMAGE_PIXELS


def test_what_pillow_takes_for_a_bomb_is_read_if_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # fails above twice as many
    ramp().save(tmp_path / "a.png")
    assert open_gray(tmp_path / "a.png").luma.size == SIZE


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_photo_is_refused_unless_told_otherwise(tmp_path: Path, name: str) -> None:
    ramp("L").resize((200, 200)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    for _ in range(2):  # having been told once does not last
        with pytest.raises(PhotochromError, match=rf"{name} cannot be read as a photo \(.*--truncated"):
            open_gray(tmp_path / name)
        rows = levels(open_gray(tmp_path / name, truncated=True).luma)
        assert np.abs(rows[:60] - levels(ramp("L").resize((200, 200)))[:60]).max() < 20


@pytest.mark.parametrize("content", [b"this is no photo", b"", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_photo_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(PhotochromError, match=r"a\.jpg cannot be read as a photo") as caught:
        open_gray(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)


def test_transparency_goes_on_white_where_the_format_has_none(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    write(clear, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getextrema() == ((255, 255),) * 3


def test_what_a_format_cannot_hold_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"cannot write .*a\.webp .*choose another format"):
        write(Image.new("RGB", (20_000, 2)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PhotochromError, match=r"cannot make the folder .*file: File exists"):
        write(ramp(), tmp_path / "file" / "a.png")


def test_an_opened_photo_passes_through() -> None:
    photo: Photo = ramp("L")
    opened = open_gray(photo)
    assert open_gray(opened) is opened
