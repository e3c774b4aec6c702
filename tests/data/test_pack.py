"""The packed data set: as it is opened, damaged, found and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom.data import sources
from photochrom.data.dataset import find, names
from photochrom.data.importing import import_photos
from photochrom.data.pack import SPLITS, Pack, contact_sheet
from photochrom.errors import PhotochromError, UsageError


class TestPack:
    def test_index(self, packed: Path) -> None:
        index = json.loads((packed / "index.json").read_text())
        assert {key: index[key] for key in ("format", "name", "size", "seed", "source", "counts")} == {
            "format": 1,
            "name": "tiny",
            "size": 64,
            "seed": 0,
            "source": "tiny.zip",
            "counts": {"train": 30, "validation": 6, "test": 6},
        }
        photos = np.load(packed / "photos.npy")
        assert index["photos"]["checksum"] == [sources.checksum(pixels) for pixels in photos]

    def test_photos_are_mapped_and_not_writable(self, packed: Path) -> None:
        opened = Pack.open(packed)
        assert isinstance(opened.photos, np.memmap)
        with pytest.raises(ValueError, match=r"read-only"):
            opened.photos[0] = 0

    def test_indices_part_the_whole(self, packed: Path) -> None:
        opened = Pack.open(packed)
        parts = [opened.indices(split) for split in SPLITS]
        assert all(part.dtype == np.int64 for part in parts)
        assert sorted(np.concatenate(parts).tolist()) == list(range(42))
        with pytest.raises(UsageError, match=r"no split 'val': choose one of train, validation, test"):
            opened.indices("val")

    def test_rgb(self, packed: Path) -> None:
        opened = Pack.open(packed)
        for indices in (np.array([5, 0, 5]), [5, 0, 5], torch.tensor([5, 0, 5])):
            batch = opened.rgb(indices)
            assert batch.shape == (3, 3, 64, 64)
            assert batch.dtype == torch.float32
            assert batch.is_contiguous()
            truth = np.stack([opened.photos[i] for i in (5, 0, 5)]).transpose(0, 3, 1, 2) / np.float32(255)
            assert np.array_equal(batch.numpy(), truth)
        assert opened.rgb(np.array([], int)).shape == (0, 3, 64, 64)
        with pytest.raises(IndexError):
            opened.rgb([42])

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (shutil.rmtree, "no index.json"),
            (lambda d: (d / "index.json").unlink(), "no index.json"),
            (lambda d: (d / "photos.npy").unlink(), "no photos.npy"),
            (lambda d: _cut(d / "index.json"), "is damaged"),
            (lambda d: _cut(d / "photos.npy"), "is damaged"),
            (lambda d: (d / "photos.npy").write_bytes(b""), "is damaged"),
            (lambda d: (d / "index.json").write_text("[]"), "is damaged"),
            (lambda d: np.save(d / "photos.npy", np.array([{}], dtype=object)), "is damaged"),
            (
                lambda d: np.save(d / "photos.npy", np.zeros((41, 64, 64, 3), np.uint8)),
                "does not fit together",
            ),
            (
                lambda d: np.save(d / "photos.npy", np.zeros((42, 32, 32, 3), np.uint8)),
                "does not fit together",
            ),
            (
                lambda d: np.save(d / "photos.npy", np.zeros((42, 64, 64, 3), np.int8)),
                "does not fit together",
            ),
            (lambda d: _edit(d, format=99), "has format 99, not 1"),
            (lambda d: _edit(d, size=None), "does not fit together"),
            (lambda d: _edit(d, checksum="0"), "was changed"),
            (lambda d: _edit(d, photos={}), "is damaged"),
        ],
    )
    def test_damaged(
        self, packed: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
    ) -> None:
        copy = Path(shutil.copytree(packed, tmp_path / "copy"))
        assert Pack.open(copy).name == "tiny"
        damage(copy)
        with pytest.raises(PhotochromError, match=message) as caught:
            Pack.open(copy)
        assert str(copy) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_checksum_tells_splits_apart_but_not_file_names(self, packed: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(packed, tmp_path / "copy"))
        index = json.loads((copy / "index.json").read_text())
        index["photos"]["origin"][0] = "renamed"
        (copy / "index.json").write_text(json.dumps(index))
        Pack.open(copy)
        index["photos"]["split"][0] = "test"
        (copy / "index.json").write_text(json.dumps(index))
        with pytest.raises(PhotochromError, match=r"was changed"):
            Pack.open(copy)

    def test_find(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import_photos(folder, tmp_path / "data" / "holidays", limit=10)
        assert find("holidays", tmp_path / "data").name == "holidays"
        assert find(str(tmp_path / "data" / "holidays"), tmp_path / "elsewhere").name == "holidays"
        monkeypatch.chdir(tmp_path)
        assert find("data/holidays", Path("nowhere")).name == "holidays"
        assert names(tmp_path / "data") == ["holidays"]
        assert names(tmp_path / "nowhere") == []
        with pytest.raises(
            PhotochromError, match=r"no data set 'holiday' in .*: choose one of demo, holidays, or make"
        ):
            find("holiday", tmp_path / "data")

    def test_summary(self, packed: Path) -> None:
        told = Pack.open(packed).summary()
        assert told["counts"] == {"train": 30, "validation": 6, "test": 6}
        assert told["categories"] == {"goldfish": 14, "Egyptian cat": 14, "school bus": 14}
        assert (told["name"], told["photos"], told["size"], told["left_out"]) == ("tiny", 42, 64, {})
        assert told["bytes"] == sum(path.stat().st_size for path in packed.iterdir())
        assert json.loads(json.dumps(told)) == told

    def test_contact_sheet(self, packed: Path) -> None:
        opened = Pack.open(packed)
        sheet = contact_sheet(opened)
        assert sheet.mode == "RGB"
        assert sheet == contact_sheet(opened)
        assert sheet != contact_sheet(opened, seed=1)
        one = np.asarray(contact_sheet(opened, 1, "validation"))
        tiles = [
            np.asarray(Image.fromarray(opened.photos[i]).resize((96, 96)))
            for i in opened.indices("validation")
        ]
        assert any(np.array_equal(one[22:118, 2:98], tile) for tile in tiles)
        with pytest.raises(PhotochromError, match=r"has no photo in test"):
            contact_sheet(replace(opened, split=np.full(42, "train")), split="test")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _edit(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | changes))
