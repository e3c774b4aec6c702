"""The picture of the demo: photos that its models never saw, beside what they make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from photochrom.coloring.colorizer import Colorizer
from photochrom.commands import demo_run
from photochrom.data.pack import Pack

Columns = dict[str, Sequence[Image.Image]]


def test_it_shows_some_of_each_photograph_that_no_model_saw(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = pack.indices("validation")
    label = np.zeros(len(pack.split), dtype=int)
    label[held_out[5:]] = 3  # five crops of one photograph, three of another
    asked: list[list[Image.Image]] = []
    shown: list[Columns] = []

    def sheet(columns: Columns, **options: Any) -> Image.Image:
        shown.append(columns)
        return Image.new("RGB", (1, 1))

    def color(photos: list[Image.Image]) -> list[Image.Image]:
        asked.append(photos)
        return [Image.new("RGB", photo.size, "red") for photo in photos]

    monkeypatch.setattr(demo_run, "sheet", sheet)
    demo_run.draw(cast("dict[str, Colorizer]", {"V1": color, "V2": color}), replace(pack, label=label))
    (columns,) = shown
    assert list(columns) == ["gray", "V1", "V2", "true"]
    expected = [*held_out[:4], *held_out[5:8]]
    for picture, index in zip(columns["true"], expected, strict=True):
        assert (np.asarray(picture) == pack.photos[index]).all()
    assert [picture.mode for picture in columns["gray"]] == ["L"] * 7
    assert [len(photos) for photos in asked] == [7, 7]
    assert columns["V1"][0].getpixel((0, 0)) == (255, 0, 0)
