"""`photochrom demo`: it colours photographs, trains two models, and begins anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photochrom
from photochrom import model_folder
from photochrom.commands import demo_run
from photochrom.config import build
from tests.running import Run


def test_demo_colours_photographs_trains_models_and_begins_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", Path(photochrom.__file__).parent / "weights")
    monkeypatch.setattr(demo_run, "CALM", 1)
    for name in ("V1", "V2"):
        values = getattr(demo_run, name).model_dump()
        values["model"] |= {"features": (8, 16), "blocks": 1, "attention": 0}
        values["data"] |= {"photos_per_epoch": 16}
        values["stages"][0]["epochs"] = 1
        monkeypatch.setattr(demo_run, name, build(values))
    for extra, trains in ((), True), ((), True), (("--keep",), False):
        result = run("demo", "--out", "here", *extra)
        assert result.code == 0
        made = ("coloured.png", "models/demo_v1", "models/demo_v2", "small_models.png")
        assert result.out == "".join(f"here/{name}\n" for name in made)
        assert ("epoch 1/1  v1" in result.err) == trains
        assert ("epoch 2/2  v2" in result.err) == trains
        assert "photochrom colorize PHOTO.jpg\n" in result.err
    with Image.open("here/small_models.png") as picture:
        assert picture.width > 2 * 4 * 128
    with Image.open("here/coloured.png") as picture:  # gray, coloured, true, and so once more
        gray, coloured, true = (np.asarray(picture.crop((x, 30, x + 200, 220)), float) for x in (4, 208, 412))
        colourful = [np.ptp(part, axis=2).mean() for part in (gray, coloured, true)]
        assert colourful[0] < 1
        assert min(colourful[1:]) > 5
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "coloured.png",
        "data",
        "models",
        "small_models.png",
    ]
