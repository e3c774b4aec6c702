"""Photos that look the same are found in whatever form they come back, and stay in one part of a data set."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageEnhance, ImageOps

from photochrom.data.importing import import_photos
from photochrom.data.lookalikes import look_alikes, seen_in
from photochrom.data.pack import Pack
from photochrom.data.shards import Shards

BUNDLED = Path(skimage.__path__[0], "data")
VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 20": lambda photo: again(photo, 20),
    "half the size": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "mirrored": ImageOps.mirror,
    "cropped by 3 % at each side": lambda photo: ImageOps.crop(photo, int(0.03 * min(photo.size))),
    "cropped at one corner": lambda photo: photo.crop(
        (0, 0, int(0.94 * photo.width), int(0.94 * photo.height))
    ),
    "brightened": lambda photo: ImageEnhance.Brightness(photo).enhance(1.15),
    "darkened": lambda photo: ImageEnhance.Brightness(photo).enhance(0.7),
    "more colourful": lambda photo: ImageEnhance.Color(photo).enhance(1.3),
    "turned by a degree": lambda photo: ImageOps.crop(photo.rotate(1, Image.Resampling.BICUBIC), 8),
    "mirrored, cropped and saved": lambda photo: again(ImageOps.crop(ImageOps.mirror(photo), 6), 50),
}


def again(photo: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """120 photos: squares of real photographs that do not overlap."""
    found = []
    for name in ("astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "chelsea.png"):
        whole = Image.open(BUNDLED / name).convert("RGB")
        side = min(whole.size) // 6
        for top in range(0, whole.height - side + 1, side):
            for left in range(0, whole.width - side + 1, side):
                crop = whole.crop((left, top, left + side, top + side)).resize(
                    (128, 128), Image.Resampling.BICUBIC
                )
                if np.asarray(crop.convert("L")).std() > 25:  # no plain walls
                    found.append(crop)
    return found[:120]


def packed(photos: list[Image.Image], size: int = 64) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack(
        [np.asarray(ImageOps.fit(photo, (size, size), Image.Resampling.LANCZOS)) for photo in photos]
    )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [64])
def test_a_photo_is_known_again(name: str, size: int, photos: list[Image.Image]) -> None:
    variants = [VARIANTS[name](photo) for photo in photos]
    group = look_alikes(packed(photos + variants, size))
    missed = np.mean(group[: len(photos)] != group[len(photos) :])
    assert missed < 0.1
    assert np.mean(seen_in(packed(variants, size), packed(photos, 64))) > 0.9


def test_other_photos_are_not(photos: list[Image.Image]) -> None:
    sizes = np.bincount(look_alikes(packed(photos)))
    assert (sizes > 1).sum() <= 2
    assert not seen_in(packed(photos[: len(photos) // 2]), packed(photos[-20:])).any()


def test_plain_pictures_and_single_ones() -> None:
    plain = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    assert look_alikes(plain).tolist() == list(range(25))
    assert look_alikes(plain[:1]).tolist() == [0]
    assert look_alikes(plain[:0]).tolist() == []


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("form", ["another quality", "mirrored"])
def test_the_parts_share_no_look(form: str, shards: bool, photos: list[Image.Image], tmp_path: Path) -> None:
    """Each photo twice: none that is held out has its twin in the training part."""
    (tmp_path / "in").mkdir()
    for number, photo in enumerate(photos[:100]):
        photo.save(tmp_path / "in" / f"{number:03}a.jpg", quality=95)
        twin = ImageOps.mirror(photo) if form == "mirrored" else photo
        twin.save(tmp_path / "in" / f"{number:03}b.jpg", quality=60)
    report = import_photos(tmp_path / "in", tmp_path / "d", validation=0.2, shards=shards)
    assert sum(report.counts.values()) == 200
    if shards:
        data = Shards.open(tmp_path / "d")
        places = np.arange(200)
        split = dict(
            zip(data.origins(places), data.split[data.ends.searchsorted(places, "right")], strict=True)
        )
        groups = data.summary()["look_alikes"]
    else:
        pack = Pack.open(tmp_path / "d")
        split, groups = dict(zip(pack.origin, pack.split, strict=True)), pack.summary()["look_alikes"]
        assert report.counts == {"train": 160, "validation": 20, "test": 20}
    assert groups["groups"] >= 98
    assert groups["photos"] >= 197
    apart = [n for n in range(100) if split[f"{n:03}a.jpg"] != split[f"{n:03}b.jpg"]]
    assert len(apart) <= 1


def test_what_the_source_holds_out_takes_its_look_alikes_along(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    tiny = tmp_path / "tiny"
    for folder in ("train/n1/images", "val/images"):
        (tiny / folder).mkdir(parents=True)
    (tiny / "wnids.txt").write_text("n1\n")
    (tiny / "words.txt").write_text("n1\tcat\n")
    (tiny / "val/val_annotations.txt").write_text("0.JPEG\tn1\n")
    photos[0].save(tiny / "val/images/0.JPEG", quality=95)
    for number, photo in enumerate(photos[:10]):
        photo.save(tiny / "train/n1/images" / f"{number}.JPEG", quality=70)
    pack = Pack.open(import_photos(tiny, tmp_path / "d").folder)
    held_out = [origin for origin, split in zip(pack.origin, pack.split, strict=True) if split != "train"]
    assert sorted(held_out) == ["train/n1/images/0.JPEG", "val/images/0.JPEG"]


def test_a_data_set_of_before_has_no_groups(photos: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, photo in enumerate(photos[:4]):
        photo.save(tmp_path / "in" / f"{number}.png")
    folder = import_photos(tmp_path / "in", tmp_path / "d").folder
    index = json.loads((folder / "index.json").read_text())
    del index["photos"]["group"]
    (folder / "index.json").write_text(json.dumps(index))
    assert Pack.open(folder).summary()["look_alikes"] is None
