"""Which page of a TIFF is the photo, and what samples of all types stand for."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile

from photochrom.coloring.photo import open_gray
from photochrom.data.scans import FULL, in_eight_bits, in_sixteen_bits
from tests.make_odd_files import GRAY, tiff


def pages(*kinds: int) -> bytes:
    """Pages whose brightness is 10 times their number; kinds: the NewSubfileType of each."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for number, kind in enumerate(kinds):
            page = np.full((8, 8), 10 * number, np.uint8)
            writer.write(page, photometric="minisblack", metadata=None, subfiletype=kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kinds", "level", "notes"),
    [
        ((0,), 0, ()),
        ((2, 2, 2), 0, ("only page 1 of its 3 pages is coloured",)),
        ((1, 0), 10, ()),  # a small copy, and the photo
        ((1, 1, 0, 0), 20, ("only page 3 of its 4 pages is coloured",)),
        ((0, 1, 1), 0, ()),  # the levels of a map
        ((1, 1), 0, ()),
    ],
)
def test_the_photo_is_the_first_page_that_is_whole(
    kinds: tuple[int, ...], level: int, notes: tuple[str, ...]
) -> None:
    photo = open_gray(pages(*kinds))
    assert photo.luma.getextrema() == (level, level)
    assert photo.notes == notes


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"])
def test_whole_numbers_fill_their_type(kind: str) -> None:
    info = np.iinfo(kind)
    levels = in_sixteen_bits(np.array([0, info.max // 2 + 1, info.max], kind), info.bits).astype(int)
    assert levels == pytest.approx([0, 32768, FULL], abs=260 if info.bits == 8 else 3)
    if kind.startswith("i"):
        levels = in_sixteen_bits(np.array([info.min, 0, info.max], kind), info.bits).astype(int)
        assert levels == pytest.approx([0, 32768, FULL], abs=260 if info.bits == 8 else 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14, 16])
def test_few_bits_fill_the_range(bits: int) -> None:
    assert list(in_sixteen_bits(np.array([0, 2**bits - 1], np.uint16), bits)) == [0, FULL]


def test_eight_bits_are_the_nearest() -> None:
    levels = np.arange(FULL + 1, dtype=np.uint16)
    assert np.array_equal(in_eight_bits(levels), np.floor(levels / 257 + 0.5))


def test_what_tifffile_reads_keeps_what_it_tells() -> None:
    content = tiff(
        GRAY.astype(np.uint16) * 257, photometric="miniswhite", resolution=(600, 600), resolutionunit=2,
        software="a scanner's", extratags=[(315, 2, 0, "Vivian", True)],
    )  # fmt: skip
    photo = open_gray(content)
    assert photo.info["dpi"] == (600, 600)
    assert b"Vivian" in photo.info["exif"]
    assert b"a scanner's" in photo.info["exif"]
