"""The data set `demo`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageOps

from photochrom.data import demo, reading
from photochrom.data.dataset import find
from photochrom.data.demo import make_demo
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError
from tests.data.making import (
    checksums,
)

BUNDLED = Path(skimage.__path__[0], "data")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return find("demo", tmp_path_factory.mktemp("data")).to_look_at()


class TestDemo:
    def test_made_on_demand_with_whole_photos_held_out(self, made: Pack) -> None:
        assert Counter(made.split.tolist()) == {"train": 2400, "validation": 64}
        held_out = {made.categories[made.label[i]] for i in made.indices("validation")}
        trained = {made.categories[made.label[i]] for i in made.indices("train")}
        assert held_out == {"chelsea", "grace_hopper"}
        assert not held_out & trained
        assert trained == {"astronaut", "coffee", "rocket", "motorcycle"}
        assert len(set(checksums(made))) == 2464
        assert not any(reading.is_gray(pixels) for pixels in made.photos)

    def test_first_crop_is_the_whole_photo(self, made: Pack) -> None:
        first = made.photos[made.origin.index("chelsea whole")]
        whole = ImageOps.fit(Image.open(BUNDLED / "chelsea.png"), (64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(first, np.asarray(whole))

    def test_crops_lie_where_their_origin_says(self, made: Pack) -> None:
        coffee = Image.open(BUNDLED / "coffee.png")
        for i in [i for i, origin in enumerate(made.origin) if origin.startswith("coffee ")][1:600:60]:
            corner, side = made.origin[i].split()[1:]
            (left, top), extent = map(int, corner.split(",")), int(side.split("x")[0])
            assert 64 <= extent <= 400
            crop = coffee.resize((64, 64), Image.Resampling.LANCZOS, (left, top, left + extent, top + extent))
            assert np.array_equal(made.photos[i], np.asarray(crop))

    def test_found_again_as_it_is(self, made: Pack) -> None:
        modified = (made.folder / "index.json").stat().st_mtime_ns
        assert find("demo", made.folder.parent).checksum == made.checksum
        assert (made.folder / "index.json").stat().st_mtime_ns == modified

    def test_always_the_same(self, made: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        few = [(*entry[:4], 20, entry[5]) for entry in demo.PHOTOS]
        monkeypatch.setattr(demo, "PHOTOS", few)
        make_demo(tmp_path / "demo")
        again = Pack.open(tmp_path / "demo")
        assert len(again.photos) == 120
        assert set(zip(again.origin, checksums(again), strict=True)) <= set(
            zip(made.origin, checksums(made), strict=True)
        )

    def test_missing_photograph(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = ("moose", "skimage", "data/moose.png", "train", 1, 0.0)
        monkeypatch.setattr(demo, "PHOTOS", (missing,))
        with pytest.raises(PhotochromError, match=r"moose.png of skimage, which is missing"):
            make_demo(tmp_path / "demo")
        assert list(tmp_path.iterdir()) == []
