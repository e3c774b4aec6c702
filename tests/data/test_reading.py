"""A photo is read as people see it, from wherever it comes; what is none is refused in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photochrom.coloring.photo import open_gray
from photochrom.data.reading import open_photo
from photochrom.errors import PhotochromError, UsageError


def photo(width: int = 30, height: int = 20) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 8, y * 12, 255 - x * 5], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "opened"),
    [
        *[
            ("RGB", "RGB"),
            ("L", "L"),
            ("1", "L"),
            ("LA", "L"),
            ("P", "RGB"),
            ("RGBA", "RGB"),
            ("CMYK", "RGB"),
        ],
        *[("La", "L"), ("RGBa", "RGB"), ("PA", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"), ("LAB", "RGB")],
        *[("I", "L"), ("F", "L"), ("I;16", "L"), ("I;16B", "L")],
    ],
)
def test_modes(mode: str, opened: str) -> None:
    assert open_photo(Image.new(mode, (30, 20))).mode == opened


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(np.asarray(open_photo(tmp_path / name)), (ramp / 257).round())


def test_a_given_image_is_turned_and_left_alone() -> None:
    image = photo()
    image.getexif()[0x0112] = 6
    assert open_photo(image).size == (20, 30)
    assert image.size == (30, 20)


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(PhotochromError, match=r"there is no photo .*a.jpg"):
        open_photo(path)
    photo().save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(PhotochromError, match=r"a.jpg cannot be read as a photo .*truncated"):
        open_photo(path)
    with pytest.raises(PhotochromError, match=r"is no file: name a photo"):
        open_photo(tmp_path)


def test_photos_come_as_bytes_and_open_files_too(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    expected = np.asarray(open_gray(tmp_path / "a.png").luma)
    read = io.BytesIO(content)
    read.seek(0, io.SEEK_END)  # as it stands after writing
    with (tmp_path / "a.png").open("rb") as file:
        for given in (content, bytearray(content), memoryview(content), read, file):
            assert np.array_equal(np.asarray(open_gray(given).luma), expected)  # type: ignore[arg-type]  # two of them
        assert not file.closed


@pytest.mark.parametrize("given", [5, None, [photo()], {"a": 1}])
def test_what_is_no_photo_says_what_is_taken(given: object) -> None:
    with pytest.raises(
        UsageError, match=rf"type {type(given).__name__}: give a path, a Pillow image, .*bytes"
    ):
        open_gray(given)  # type: ignore[arg-type]


def test_a_file_opened_as_text_says_how_to_open_it(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    with (tmp_path / "a.png").open(encoding="latin-1") as file, pytest.raises(UsageError, match='mode "rb"'):
        open_gray(file)  # type: ignore[arg-type]
