"""Sheets show each photo once, in its place and its colours; curves show the numbers of the history."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from photochrom import pictures
from tests.making import epoch

SIDE = 16
Place = tuple[float, float]


def plain(number: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    """A photo of one colour, which no other number has."""
    return Image.new("RGB", size, (10 * number + 5, 200, 255 - 10 * number))


def place(sheet: Image.Image, photo: Image.Image, pixels: int = SIDE**2) -> Place:
    """Where the photo stands, (x, y) of its middle; it is there once, with so many pixels."""
    ys, xs = (np.asarray(sheet) == photo.getpixel((0, 0))).all(axis=-1).nonzero()
    assert len(xs) == pixels
    assert (np.ptp(xs) + 1) * (np.ptp(ys) + 1) == pixels  # a rectangle, hidden by nothing
    return float(xs.mean()), float(ys.mean())


def test_columns_stand_side_by_side_and_photos_below_each_other() -> None:
    photos = [[plain(3 * column + row) for row in range(3)] for column in range(2)]
    sheet = pictures.sheet({"one": photos[0], "other": photos[1]}, side=SIDE)
    places = np.array([[place(sheet, photo) for photo in column] for column in photos])  # (column, row, 2)
    assert (np.diff(places[:, :, 0], axis=0) > SIDE).all()
    assert (np.diff(places[:, :, 1], axis=1) > SIDE).all()
    assert (places[0, :, 1] == places[1, :, 1]).all()
    assert (places[:, 0, 0] == places[:, 2, 0]).all()
    titles = np.asarray(sheet.convert("L"))[: int(places[0, 0, 1]) - SIDE // 2]
    assert (titles < 128).any()


def test_a_long_sheet_goes_on_at_the_right() -> None:
    photos = [plain(number) for number in range(5)]
    sheet = pictures.sheet({"one": photos}, side=SIDE, across=2)
    places = [place(sheet, photo) for photo in photos]
    assert [y for _, y in places[3:]] == [y for _, y in places[:2]]
    assert {x for x, _ in places[:3]} < {x for x, _ in places}
    assert places[3][0] > places[0][0] + SIDE
    assert sheet.height < pictures.sheet({"one": photos}, side=SIDE).height


def test_an_oblong_photo_is_whole_and_a_small_one_keeps_its_edges() -> None:
    oblong = plain(7, (40, 20))
    sheet = pictures.sheet({"one": [oblong]}, side=SIDE)
    place(sheet, oblong, pixels=SIDE * SIDE // 2)
    board = Image.fromarray(np.array([[0, 200], [200, 0]], dtype=np.uint8)).convert("RGB")
    sheet = pictures.sheet({"": [board]}, side=SIDE)
    levels, counts = np.unique(np.asarray(sheet)[..., 0], return_counts=True)
    assert dict(zip(levels.tolist(), counts.tolist(), strict=True)).items() >= {
        (0, SIDE**2 // 2),
        (200, SIDE**2 // 2),
    }
    assert len(levels) == 3  # and white


def test_a_sheet_is_no_taller_than_its_photos() -> None:
    flat, tall = plain(1, (40, 10)), plain(2, (20, 40))
    alone = pictures.sheet({"one": [flat]}, side=SIDE)
    assert alone.height < pictures.sheet({"one": [tall]}, side=SIDE).height
    both = pictures.sheet({"one": [flat, tall]}, side=SIDE)
    (x, y), (other_x, other_y) = place(both, flat, SIDE * SIDE // 4), place(both, tall, SIDE * SIDE // 2)
    assert x == other_x  # each in the middle of its column
    assert other_y - y > SIDE


def test_a_png_is_read_back() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    with Image.open(io.BytesIO(pictures.png(photo))) as found:
        assert (found.format, found.tobytes()) == ("PNG", photo.tobytes())


def curves(history: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The axes that a history is drawn in; the picture itself can be opened."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    with Image.open(io.BytesIO(pictures.loss_curve(history))) as picture:
        picture.load()
        assert picture.width > picture.height > 300
    return drawn[0].axes[0]


def test_the_curves_are_the_numbers_and_each_stage_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    history = [
        epoch(1, 0.5, stage_began=1, train_loss=0.6),
        epoch(2, 0.4, stage_began=1, train_loss=0.45),
        epoch(3, 2.0, stage_began=3, train_loss=2.5, stage="v2"),
    ]
    axes = curves(history, monkeypatch)
    lines = {tuple(map(tuple, line.get_data())) for line in axes.lines}
    border = ((2.5, 2.5), (0.0, 1.0))
    assert lines == {
        ((1, 2), (0.6, 0.45)),
        ((1, 2), (0.5, 0.4)),
        ((3,), (2.5,)),
        ((3,), (2.0,)),
        border,
    }
    assert len(axes.lines) == len(lines)
    assert [text.get_text() for text in axes.texts] == ["v2"]
    assert axes.get_yscale() == "log"  # as 0.45 beside 2.5 would be flat


def test_losses_that_are_near_each_other_stand_on_a_plain_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = curves([epoch(1, 0.5), epoch(2, 0.4)], monkeypatch)
    assert axes.get_yscale() == "linear"
    assert list(axes.texts) == []
