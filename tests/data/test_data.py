"""The data room: sources, the packed data set, the demo photos, and the ways in which input can be bad."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, ImageOps

from photochrom.data import demo, importing, reading, sources
from photochrom.data.dataset import find, names
from photochrom.data.demo import make_demo
from photochrom.data.importing import import_photos
from photochrom.data.pack import SPLITS, Pack, contact_sheet
from photochrom.data.reading import open_photo
from photochrom.data.sources import LeftOut, Photo, Source
from photochrom.data.stratification import stratified
from photochrom.errors import PhotochromError, UsageError

BUNDLED = Path(skimage.__path__[0], "data")
WNIDS = {"n001": "goldfish, Carassius auratus", "n002": "Egyptian cat", "n003": "school bus"}


def photo(seed: int, width: int = 64, height: int | None = None) -> Image.Image:
    """A coloured photo that no other seed gives: soft noise in every channel."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height or width), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiny_imagenet(train: int = 10, val: int = 4) -> dict[str, bytes]:
    """Files in the official layout; `train` and `val` photos for each of three categories."""
    files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": "".join(f"{wnid}\t{words}\n" for wnid, words in WNIDS.items()).encode() + b"n9\tother\n",
    }
    annotations = ""
    for number, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(train):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encoded(photo(1000 * number + i))
        for i in range(val):
            files[f"val/images/val_{number * val + i}.JPEG"] = encoded(photo(1000 * number + 500 + i))
            annotations += f"val_{number * val + i}.JPEG\t{wnid}\t0\t0\t63\t63\n"
    files["val/val_annotations.txt"] = annotations.encode()
    files["test/images/test_0.JPEG"] = encoded(photo(9999))
    return files


def write_zip(path: Path, files: dict[str, bytes], root: str = "tiny-imagenet-200/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(root + name, content)
    return path


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A piece of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def album(path: Path, per_folder: int = 20, first_seed: int = 0) -> Path:
    files = {}
    for number, folder in enumerate(("cats", "dogs", "fish")):
        for i in range(per_folder):
            image = photo(first_seed + 100 * number + i, 80, 64 + i)
            files[f"{folder}/deep/{i}.png" if i % 2 else f"{folder}/{i}.png"] = encoded(image, "PNG")
    return write_folder(path, files)


def splits(opened: Pack) -> dict[str, str]:
    return dict(zip(checksums(opened), opened.split.tolist(), strict=True))


def checksums(opened: Pack) -> list[str]:
    return [sources.checksum(pixels) for pixels in opened.photos]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("archive") / "tiny.zip", tiny_imagenet())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album(tmp_path_factory.mktemp("album") / "holidays")


@pytest.fixture(scope="module")
def packed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_photos(archive, tmp_path_factory.mktemp("packed") / "tiny").folder


class TestTinyImageNet:
    def test_train_val_labels_and_names(self, archive: Path, packed: Path) -> None:
        opened = Pack.open(packed)
        assert opened.photos.shape == (42, 64, 64, 3)
        assert opened.photos.dtype == np.uint8
        assert Counter(opened.split.tolist()) == {"train": 30, "validation": 6, "test": 6}
        assert opened.categories == ["goldfish", "Egyptian cat", "school bus"]
        files = tiny_imagenet()
        annotations = (line.split("\t") for line in files["val/val_annotations.txt"].decode().splitlines())
        labels = {f"val/images/{file}": wnid for file, wnid, *_ in annotations}
        for pixels, origin, label, split in zip(
            opened.photos, opened.origin, opened.label, opened.split, strict=True
        ):
            assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(files[origin]))))  # not resized
            assert list(WNIDS)[label] == labels.get(origin, origin.split("/")[1])
            assert (split == "train") == origin.startswith("train/")

    def test_every_category_is_in_every_part_of_the_held_out(self, packed: Path) -> None:
        opened = Pack.open(packed)
        for part in ("validation", "test"):
            assert Counter(opened.label[opened.indices(part)].tolist()) == {0: 2, 1: 2, 2: 2}

    @pytest.mark.parametrize("root", ["", "tiny-imagenet-200/"])
    def test_unpacked_or_at_the_top_is_the_same(self, root: str, packed: Path, tmp_path: Path) -> None:
        files = tiny_imagenet()
        unpacked = write_folder(tmp_path / "in", {root + name: content for name, content in files.items()})
        import_photos(unpacked, tmp_path / "a")
        import_photos(write_zip(tmp_path / "b.zip", files, root), tmp_path / "b")
        for made in ("a", "b"):
            assert Pack.open(tmp_path / made).checksum == Pack.open(packed).checksum
            assert Pack.open(tmp_path / made).origin == Pack.open(packed).origin

    def test_categories_by_wnid_or_name(self, archive: Path, tmp_path: Path) -> None:
        import_photos(archive, tmp_path / "d", categories=["n003", "egyptian CAT"])
        opened = Pack.open(tmp_path / "d")
        assert opened.categories == ["Egyptian cat", "school bus"]
        assert Counter(opened.label.tolist()) == {0: 14, 1: 14}
        assert all("n002" in o or "n003" in o for o in opened.origin if o.startswith("train"))

    @pytest.mark.parametrize(("word", "close"), [("gold", "goldfish"), ("scool bus", "school bus")])
    def test_unknown_category_lists_close_names(
        self, archive: Path, tmp_path: Path, word: str, close: str
    ) -> None:
        with pytest.raises(UsageError, match=rf"no category '{word}'.*{close}"):
            import_photos(archive, tmp_path / "d", categories=[word])
        assert list(tmp_path.iterdir()) == []

    def test_limit_is_stratified_over_parts_and_categories(self, archive: Path, tmp_path: Path) -> None:
        report = import_photos(archive, tmp_path / "d", limit=21)
        opened = Pack.open(tmp_path / "d")
        assert len(opened.photos) == 21
        assert report.counts["train"] == 15
        assert Counter(opened.label.tolist()) == {0: 7, 1: 7, 2: 7}
        import_photos(archive, tmp_path / "again", limit=21)
        import_photos(archive, tmp_path / "other", limit=21, seed=1)
        assert Pack.open(tmp_path / "again").checksum == opened.checksum
        assert set(Pack.open(tmp_path / "other").origin) != set(opened.origin)

    def test_limit_is_reached_though_photos_are_left_out(self, tmp_path: Path) -> None:
        files = tiny_imagenet()
        for i in range(5):
            files[f"train/n001/images/n001_{i}.JPEG"] = encoded(photo(i).convert("L"))
        import_photos(write_zip(tmp_path / "t.zip", files), tmp_path / "d", limit=37)
        assert len(Pack.open(tmp_path / "d").photos) == 37

    def test_photos_that_only_one_side_knows(self, tmp_path: Path) -> None:
        files = tiny_imagenet()
        files["val/images/stray.JPEG"] = encoded(photo(7777))
        files["val/val_annotations.txt"] += b"lost.JPEG\tn001\t0\t0\t1\t1\n"
        source = write_zip(tmp_path / "t.zip", files)
        report = import_photos(source, tmp_path / "d")
        opened = Pack.open(tmp_path / "d")
        assert opened.label[opened.origin.index("val/images/stray.JPEG")] == -1
        assert [(e.origin, e.reason) for e in report.left_out_files] == [("val/images/lost.JPEG", "broken")]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"words.txt": None}, "words.txt cannot be read"),
            ({"val/val_annotations.txt": None}, "val_annotations.txt cannot be read"),
            ({"val/val_annotations.txt": b"val_0.JPEG\n"}, "fewer than 2 columns"),
            ({"wnids.txt": b"n001\nn002\n"}, "photos of n003, which its wnids.txt does not list"),
            ({"words.txt": b"\xff\xfe\xff"}, "words.txt cannot be read"),
            ({"wnids.txt": None}, "no wnids.txt, so it is not Tiny ImageNet"),
        ],
    )
    def test_incomplete_layout(self, tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
        files = {name: body for name, body in (tiny_imagenet(2, 2) | change).items() if body is not None}
        source = write_zip(tmp_path / "t.zip", files)
        with pytest.raises(PhotochromError, match=message):
            import_photos(source, tmp_path / "d")
        assert list(tmp_path.iterdir()) == [source]


class TestFolder:
    def test_nested_folders_are_categories_of_the_first_level(self, folder: Path, tmp_path: Path) -> None:
        write_folder(tmp_path / "in", {"top.png": encoded(photo(5000), "PNG")})
        shutil.copytree(folder, tmp_path / "in", dirs_exist_ok=True)
        report = import_photos(tmp_path / "in", tmp_path / "d", validation=0.2, test=0.25)
        opened = Pack.open(tmp_path / "d")
        assert opened.categories == ["cats", "dogs", "fish"]
        assert Counter(opened.label.tolist()) == {0: 20, 1: 20, 2: 20, -1: 1}
        assert opened.label[opened.origin.index("top.png")] == -1
        assert opened.label[opened.origin.index("dogs/deep/1.png")] == 1
        assert report.counts == {"train": 49, "validation": 9, "test": 3}
        import_photos(tmp_path / "in", tmp_path / "cats", categories=["CATS"])
        assert Pack.open(tmp_path / "cats").categories == ["cats"]

    def test_held_out_share_is_fair_to_each_category(self, folder: Path, tmp_path: Path) -> None:
        import_photos(folder, tmp_path / "d", validation=0.5, test=0.5)
        opened = Pack.open(tmp_path / "d")
        for part in ("validation", "test"):
            assert Counter(opened.label[opened.indices(part)].tolist()) == {0: 5, 1: 5, 2: 5}

    def test_a_few_photos_still_give_one_to_validate(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "in", {f"{i}.png": encoded(photo(i), "PNG") for i in range(4)})
        report = import_photos(tmp_path / "in", tmp_path / "d")
        assert report.counts == {"train": 3, "validation": 1, "test": 0}
        assert import_photos(tmp_path / "in", tmp_path / "e", validation=0).counts["train"] == 4

    def test_formats_and_pixels(self, tmp_path: Path) -> None:
        image = photo(1)
        deep = np.asarray(photo(2)).astype(np.uint16) * 257
        write_folder(
            tmp_path / "in",
            {
                "a.png": encoded(image, "PNG"),
                "b.webp": encoded(photo(3), "WEBP", lossless=True),
                "c.gif": encoded(photo(4).quantize(64), "GIF"),
                "d.JPG": encoded(photo(5).convert("CMYK"), "JPEG", quality=95),
                "e.bmp": encoded(photo(6), "BMP"),
                "f.tif": encoded(photo(7), "TIFF"),
                "g.ppm": b"P6 64 64 65535\n" + deep.astype(">u2").tobytes(),
                "h.png": encoded(_with_hole(photo(8)), "PNG"),
                "i.tif": encoded(photo(9).convert("CMYK"), "TIFF"),
            },
        )
        report = import_photos(tmp_path / "in", tmp_path / "d")
        assert report.left_out == {}
        opened = Pack.open(tmp_path / "d")
        pixels = {origin: p.astype(int) for origin, p in zip(opened.origin, opened.photos, strict=True)}

        def apart(name: str, truth: Image.Image) -> float:
            return float(np.abs(pixels[name] - np.asarray(truth).astype(int)).mean())

        assert all(
            apart(n, photo(s)) == 0 for n, s in {"a.png": 1, "b.webp": 3, "e.bmp": 6, "f.tif": 7}.items()
        )
        assert apart("c.gif", photo(4).quantize(64).convert("RGB")) == 0
        assert apart("d.JPG", photo(5)) < 4
        assert apart("i.tif", photo(9)) < 1
        assert apart("g.ppm", photo(2)) <= 1
        assert (pixels["h.png"][:32] == 255).all()
        assert (pixels["h.png"][32:] != 255).any()

    def test_larger_photos_are_shrunk_smoothly_and_cut_in_the_centre(self, tmp_path: Path) -> None:
        stripes = np.zeros((200, 400, 3), np.uint8)
        stripes[:, ::2] = 255  # what is shrunk without antialiasing would be black or white, not mid-gray
        stripes[:, :50], stripes[:, 350:] = (255, 0, 0), (0, 0, 255)  # cut away
        stripes[:20] = (0, 255, 0)
        write_folder(tmp_path / "in", {"a.png": encoded(Image.fromarray(stripes), "PNG")})
        import_photos(tmp_path / "in", tmp_path / "d", size=32, validation=0)
        pixels = Pack.open(tmp_path / "d").photos[0].astype(int)
        assert pixels.shape == (32, 32, 3)
        assert np.abs(pixels[6:] - 127.5).max() < 20
        assert (pixels[:2, :, 1] > pixels[:2, :, 0]).all()

    def test_a_large_jpeg_is_as_good_as_decoded_whole(self, tmp_path: Path) -> None:
        data = encoded(photo(1, 1200, 900), "JPEG", quality=95)
        write_folder(tmp_path / "in", {"a.jpg": data})
        import_photos(tmp_path / "in", tmp_path / "d", validation=0)
        truth = ImageOps.fit(Image.open(io.BytesIO(data)), (64, 64), Image.Resampling.LANCZOS)
        assert np.abs(Pack.open(tmp_path / "d").photos[0].astype(int) - np.asarray(truth)).max() <= 4

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = photo(1, 96, 64)
        write_folder(tmp_path / "in", {"a.png": encoded(image, "PNG", exif=exif)})
        import_photos(tmp_path / "in", tmp_path / "d", validation=0)
        turned = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }
        truth = image.crop((16, 0, 80, 64))
        truth = truth.transpose(turned[orientation]) if orientation > 1 else truth
        assert np.array_equal(Pack.open(tmp_path / "d").photos[0], np.asarray(truth))

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path: Path) -> None:
        files = {f"{i}.png": encoded(photo(i), "PNG") for i in range(3)}
        files |= {"._0.png": b"resource fork", ".thumbs/1.png": encoded(photo(9), "PNG")}
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        assert sum(report.counts.values()) == 3
        assert report.left_out == {}

    def test_a_named_pipe_does_not_hang(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "in", {"1.png": encoded(photo(1), "PNG")})
        os.mkfifo(tmp_path / "in" / "2.png")
        report = import_photos(tmp_path / "in", tmp_path / "d")
        assert report.left_out_files == [("2.png", "broken", "not a regular file")]


def _with_hole(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 32)[:, None].repeat(64, 1)))
    return image


class TestSplit:
    def test_same_on_a_second_run_whatever_the_order_of_files(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import_photos(folder, tmp_path / "a", workers=1)
        walk = os.walk

        def backwards(*args: Any, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
            for place, folders, files in walk(*args, **options):
                folders.reverse()
                yield place, folders, files[::-1]

        monkeypatch.setattr(os, "walk", backwards)
        import_photos(folder, tmp_path / "b", workers=4)
        for name in ("photos.npy", "index.json"):
            a, b = ((tmp_path / made / name).read_bytes() for made in "ab")
            assert a == b.replace(b'"name": "b"', b'"name": "a"')

    def test_follows_the_photo_when_files_are_renamed(self, folder: Path, tmp_path: Path) -> None:
        import_photos(folder, tmp_path / "a", validation=0.3)
        for number, path in enumerate(sorted(folder.rglob("*.png"))):
            target = (
                tmp_path / "in" / path.relative_to(folder).parts[0] / f"{number * 7919 % 61}_{number}.png"
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        import_photos(tmp_path / "in", tmp_path / "b", validation=0.3)
        a, b = Pack.open(tmp_path / "a"), Pack.open(tmp_path / "b")
        assert a.origin != b.origin
        assert checksums(a) != checksums(b)
        assert splits(a) == splits(b)

    def test_another_seed_gives_another_split(self, folder: Path, tmp_path: Path) -> None:
        for seed in (0, 1):
            import_photos(folder, tmp_path / str(seed), seed=seed)
        a, b = (Pack.open(tmp_path / str(seed)) for seed in (0, 1))
        assert splits(a) != splits(b)
        assert a.checksum != b.checksum

    def test_more_test_photos_leave_train_alone(self, folder: Path, tmp_path: Path) -> None:
        trains = []
        for test in (0.0, 1.0):
            import_photos(folder, tmp_path / str(test), test=test)
            opened = Pack.open(tmp_path / str(test))
            trains.append(opened.indices("train").tolist())
            assert len(opened.indices("test" if test else "validation")) == 6
        assert trains[0] == trains[1]

    def test_spread_is_fair_for_any_prefix(self) -> None:
        draw = random.Random(0)
        groups = ["big"] * 600 + ["small"] * 60 + [f"single {i}" for i in range(200)]
        keys = [str(draw.random()) for _ in groups]
        order = stratified(groups, keys, "salt")
        assert sorted(order) == list(range(len(groups)))
        for count in (43, 86, 430, 800):
            share = count / len(groups)
            got = Counter(groups[i].split()[0] for i in order[:count])
            singles = 4 * (200 * share * (1 - share)) ** 0.5
            assert got["single"] == pytest.approx(200 * share, abs=singles)
            assert got["small"] == pytest.approx(60 * share, abs=2 + 60 * singles / 860)
        shuffled = list(range(len(groups)))
        draw.shuffle(shuffled)
        again = stratified([groups[i] for i in shuffled], [keys[i] for i in shuffled], "salt")
        assert [shuffled[i] for i in again] == order


class TestLeftOut:
    def test_gray_photos(self, tmp_path: Path) -> None:
        shade = np.asarray(photo(3).convert("L")).astype(int)
        tinted = np.stack([shade, shade, np.minimum(shade + 7, 255)], -1).astype(np.uint8)
        coloured = np.stack([shade, shade, np.minimum(shade + 8, 255)], -1).astype(np.uint8)
        one_pixel = np.stack([shade] * 3, -1).astype(np.uint8)
        one_pixel[5, 5] = (100, 108, 100)
        ramp = (np.arange(4096).reshape(64, 64) * 16).astype(np.uint16)
        files = {
            "l.jpg": encoded(photo(1).convert("L")),
            "la.png": encoded(photo(1).convert("LA"), "PNG"),
            "bits.png": encoded(photo(1).convert("1"), "PNG"),
            "rgb.jpg": encoded(photo(2).convert("L").convert("RGB")),
            "tinted.png": encoded(Image.fromarray(tinted), "PNG"),
            "deep.png": encoded(Image.fromarray(ramp), "PNG"),
            "float.tif": encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF"),
            "palette.gif": encoded(photo(1).convert("L"), "GIF"),
            "coloured.png": encoded(Image.fromarray(coloured), "PNG"),
            "pixel.png": encoded(Image.fromarray(one_pixel), "PNG"),
        }
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        assert Pack.open(tmp_path / "d").origin == ["coloured.png", "pixel.png"]
        assert report.left_out == {"gray": 8}

    def test_duplicates_keep_the_first(self, tmp_path: Path) -> None:
        files = {f"a/{i}.png": encoded(photo(i), "PNG") for i in range(4)}
        files |= {"b/x.bmp": encoded(photo(2), "BMP"), "b/y.png": encoded(photo(2), "PNG", compress_level=1)}
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        assert report.left_out_files == [
            ("b/x.bmp", "duplicate", "of a/2.png"),
            ("b/y.png", "duplicate", "of a/2.png"),
        ]
        assert Pack.open(tmp_path / "d").left_out == report.left_out_files

    @pytest.mark.parametrize("limit", [None, 41])
    def test_a_duplicate_of_a_held_out_photo_leaves_train(self, tmp_path: Path, limit: int | None) -> None:
        files = tiny_imagenet()
        for i in range(3):
            files[f"train/n002/images/n002_{i}.JPEG"] = files[f"val/images/val_{i}.JPEG"]  # of n001
        source = write_zip(tmp_path / "t.zip", files)
        report = import_photos(source, tmp_path / "d", limit=limit)
        opened = Pack.open(tmp_path / "d")
        assert report.counts == {"train": 27, "validation": 6, "test": 6}
        assert sorted(e.origin for e in report.left_out_files) == [
            f"train/n002/images/n002_{i}.JPEG" for i in range(3)
        ]
        for i in range(3):
            row = opened.origin.index(f"val/images/val_{i}.JPEG")
            assert opened.label[row] == 0
            assert opened.split[row] != "train"
            content = files[f"val/images/val_{i}.JPEG"]
            assert np.array_equal(opened.photos[row], np.asarray(Image.open(io.BytesIO(content))))

    def test_every_reason_is_counted_and_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reading, "MAX_PIXELS", 300 * 300)
        jpeg = encoded(photo(50))
        files = {f"good/{i}.png": encoded(photo(i), "PNG") for i in range(40)}
        files |= {
            "bad/cut.jpg": jpeg[: len(jpeg) // 2],
            "bad/text.jpg": b"this is no photo",
            "bad/empty.png": b"",
            "bad/program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n",
            "bad/large.png": encoded(photo(51, 301), "PNG"),
            "bad/small.png": encoded(photo(52, 200, 31), "PNG"),
            "bad/notes.txt": b"hello",
            "bad/gray.jpg": encoded(photo(53).convert("L")),
            "bad/twin.png": encoded(photo(7), "PNG"),
            "fine/smallish.png": encoded(photo(54, 32, 40), "PNG"),
        }
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        reasons = {entry.origin: entry.reason for entry in report.left_out_files}
        assert reasons == {
            "bad/cut.jpg": "broken",
            "bad/text.jpg": "broken",
            "bad/empty.png": "broken",
            "bad/program.jpg": "broken",
            "bad/large.png": "too large",
            "bad/small.png": "too small",
            "bad/notes.txt": "not a photo",
            "bad/gray.jpg": "gray",
            "good/7.png": "duplicate",
        }
        assert report.left_out == Counter(reasons.values())
        opened = Pack.open(tmp_path / "d")
        assert "fine/smallish.png" in opened.origin
        assert len(opened.origin) == 41
        index = (tmp_path / "d" / "index.json").read_text()
        assert str(tmp_path) not in index
        assert " at 0x" not in index

    @pytest.mark.parametrize("side", [11_000, 40_000])
    def test_a_bomb_is_known_from_its_header(self, tmp_path: Path, side: int) -> None:
        bomb = bytearray(encoded(photo(1), "PNG"))
        bomb[16:24] = side.to_bytes(4, "big") * 2  # IHDR: width and height, and then its checksum
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        source = write_folder(tmp_path / "in", {"a.png": bytes(bomb), "b.png": encoded(photo(2), "PNG")})
        report = import_photos(source, tmp_path / "d")
        assert [(entry.origin, entry.reason) for entry in report.left_out_files] == [("a.png", "too large")]
        with pytest.raises(PhotochromError, match=r"a.png cannot be read as a photo"):
            open_photo(source / "a.png")

    def test_a_photo_that_pillow_only_warns_of_is_taken_in_silence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # warns above, fails above twice as many
        source = write_folder(tmp_path / "in", {"a.png": encoded(photo(1), "PNG")})
        assert import_photos(source, tmp_path / "d").left_out == {}
        assert open_photo(source / "a.png").size == (64, 64)

    @pytest.mark.fault("bad photo among good ones", "left out, counted and listed")
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"<!doctype html><title>Not found</title>", "broken"),
            (b"", "broken"),
            (encoded(photo(50))[:900], "broken"),
            (b"P6 0 64 255\n", "broken"),
            (
                b"\x89PNG\r\n\x1a\n"
                + _chunk(b"IHDR", bytes(8) + b"\x08\2\0\0\0")
                + _chunk(b"IDAT", zlib.compress(b"")),
                "broken",
            ),
            (b"P6 40000 40000 255\n", "too large"),
        ],
        ids=["html", "empty", "truncated", "zero-size-ppm", "zero-size-png", "bomb"],
    )
    def test_a_bad_photo_is_listed(self, content: bytes, reason: str, tmp_path: Path) -> None:
        files = {f"{i}.png": encoded(photo(i), "PNG") for i in range(3)}
        source = write_folder(tmp_path / "in", files | {"bad.jpg": content})
        report = import_photos(source, tmp_path / "d")
        assert [(entry.origin, entry.reason) for entry in report.left_out_files] == [("bad.jpg", reason)]
        assert sum(report.counts.values()) == 3

    @pytest.mark.parametrize("broken", [1, 50, 90])
    def test_broken_files_are_left_out_and_listed(self, broken: int, tmp_path: Path) -> None:
        files = {f"{i:03}.png": encoded(photo(i), "PNG") for i in range(60)} | {
            f"{i:03}.jpg": b"" for i in range(broken)
        }
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        assert sum(report.counts.values()) == 60
        assert report.left_out == {"broken": broken}
        assert {entry.origin for entry in report.left_out_files} == {f"{i:03}.jpg" for i in range(broken)}

    def test_a_source_that_is_mostly_broken_stops_the_import(self, tmp_path: Path) -> None:
        good = {f"{i:03}.png": encoded(photo(i), "PNG") for i in range(40)}
        source = write_folder(tmp_path / "in", {f"{i:03}.jpg": b"" for i in range(500)} | good)
        with pytest.raises(
            PhotochromError, match=r"\d+ of the first 100 files of in are broken \(000.jpg: .*get the"
        ):
            import_photos(source, tmp_path / "d")
        assert list(tmp_path.iterdir()) == [source]

    def test_grays_and_duplicates_do_not_count_as_broken(self, tmp_path: Path) -> None:
        files = {f"{i}.jpg": encoded(photo(i).convert("L")) for i in range(5)}
        files |= {"a.png": encoded(photo(1), "PNG"), "b.png": encoded(photo(1), "PNG"), "c.txt": b""}
        report = import_photos(write_folder(tmp_path / "in", files), tmp_path / "d")
        assert report.left_out == {"not a photo": 1, "gray": 5, "duplicate": 1}


class TestBadSources:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: None, "there is no .*: name a folder of photos"),
            (lambda path: path.mkdir(), "in has no photo among its 0 files"),
            (lambda path: write_folder(path, {"a.txt": b"", "b/c.md": b""}), "no photo among its 2 files"),
            (lambda path: path.write_bytes(b"not a zip"), "cannot be read as a zip .*name a folder"),
            (lambda path: path.write_bytes(b""), "cannot be read as a zip"),
            (lambda path: write_zip(path, {"photos/a.png": encoded(photo(1), "PNG")}), "not Tiny ImageNet"),
            (
                lambda path: write_folder(path, {"a.jpg": encoded(photo(1).convert("L"))}),
                "no usable photo .1 gray",
            ),
        ],
    )
    def test_nothing_to_import(self, tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
        make(tmp_path / "in")
        with pytest.raises(PhotochromError, match=message) as caught:
            import_photos(tmp_path / "in", tmp_path / "d")
        assert "\n" not in str(caught.value)
        assert {path.name for path in tmp_path.iterdir()} <= {"in"}

    def test_category_without_photos(self, tmp_path: Path) -> None:
        files = tiny_imagenet(2, 2)
        files["wnids.txt"] += b"\nn9"
        with pytest.raises(PhotochromError, match=r"no usable photo"):
            import_photos(write_zip(tmp_path / "t.zip", files), tmp_path / "d", categories=["other"])

    @pytest.mark.fault("archive cut short", "refused before anything is written")
    @pytest.mark.parametrize("part", [0.3, 0.99, 0.9999])
    def test_truncated_zip(self, archive: Path, tmp_path: Path, part: float) -> None:
        content = archive.read_bytes()
        (tmp_path / "cut.zip").write_bytes(content[: int(len(content) * part)])
        with pytest.raises(PhotochromError, match=r"cut short"):
            import_photos(tmp_path / "cut.zip", tmp_path / "d")

    def test_damaged_entries_are_broken_photos(self, archive: Path, tmp_path: Path) -> None:
        content = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as opened:
            info = opened.getinfo("tiny-imagenet-200/train/n001/images/n001_3.JPEG")
        middle = info.header_offset + 100 + info.file_size // 2
        content[middle : middle + 8] = bytes(8)
        (tmp_path / "t.zip").write_bytes(content)
        report = import_photos(tmp_path / "t.zip", tmp_path / "d")
        assert report.left_out == {"broken": 1}
        assert "Bad CRC-32" in report.left_out_files[0].detail

    @pytest.mark.fault("archive with a name that leads out of it", "refused before anything is written")
    @pytest.mark.parametrize(
        "name", ["../evil.JPEG", "a/../../evil.JPEG", "/etc/evil", "a\\evil", "C:/evil", "a//evil", "./evil"]
    )
    def test_names_that_lead_out(self, tmp_path: Path, name: str) -> None:
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1))
        with zipfile.ZipFile(source, "a") as opened:
            opened.writestr(name, b"x")
        self.refused(source, "leads out|backslash")

    @pytest.mark.fault("archive with a link", "refused before anything is written")
    def test_links(self, tmp_path: Path) -> None:
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1))
        link = zipfile.ZipInfo("link.JPEG")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(source, "a") as opened:
            opened.writestr(link, "/etc/passwd")
        self.refused(source, "is a link")

    @pytest.mark.fault("archive with a name that is there twice", "refused before anything is written")
    def test_the_same_name_twice(self, tmp_path: Path) -> None:
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1))
        with zipfile.ZipFile(source, "a") as opened, pytest.warns(UserWarning, match=r"Duplicate"):
            opened.writestr("tiny-imagenet-200/wnids.txt", "n001")
        self.refused(source, "is there twice")

    @pytest.mark.fault("archive with a bomb (4 MB from 4 kB)", "refused before anything is written")
    def test_a_zip_bomb(self, tmp_path: Path) -> None:
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1))
        with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("zeros.JPEG", bytes(4_000_000))
        self.refused(source, "claims to unpack from .* to 4,000,000 bytes")

    def test_a_huge_entry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "MAX_ENTRY_BYTES", 30_000)
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1) | {"stored.JPEG": bytes(30_001)})
        self.refused(source, "claims to unpack")

    @pytest.mark.fault("archive with a declared size of 10 GB", "refused before anything is written")
    def test_a_declared_size_of_10_gb(self, tmp_path: Path) -> None:
        source = write_zip(tmp_path / "t.zip", tiny_imagenet(1, 1) | {"small.JPEG": b"x"})
        content = bytearray(source.read_bytes())
        entry = content.rindex(b"PK\x01\x02")  # of the central directory, made one of Zip64
        name = int.from_bytes(content[entry + 28 : entry + 30], "little")
        content[entry + 24 : entry + 28] = b"\xff" * 4
        content[entry + 30 : entry + 32] = (12).to_bytes(2, "little")
        extra = (1).to_bytes(2, "little") + (8).to_bytes(2, "little") + (10 * 2**30).to_bytes(8, "little")
        content[entry + 46 + name : entry + 46 + name] = extra
        end = content.rindex(b"PK\x05\x06")
        size = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
        content[end + 12 : end + 16] = size.to_bytes(4, "little")
        source.write_bytes(content)
        self.refused(source, "claims to unpack from 1 to 10,737,418,240 bytes")

    @pytest.mark.fault("archive with an encrypted entry", "refused before anything is written")
    def test_encrypted(self, tmp_path: Path) -> None:
        source = write_zip(tmp_path / "t.zip", {"secret.JPEG": b"x"})
        content = bytearray(source.read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= 1
        source.write_bytes(content)
        self.refused(source, "is encrypted")

    def refused(self, source: Path, message: str) -> None:
        with pytest.raises(PhotochromError, match=rf"refused, as its entry .*({message})"):
            import_photos(source, source.parent / "d")
        assert list(source.parent.iterdir()) == [source]

    @pytest.mark.parametrize(
        "options",
        [
            {"size": 4},
            {"size": 5000},
            {"limit": 0},
            {"workers": 0},
            {"validation": -0.1},
            {"test": 1.5},
            {"test": float("nan")},
        ],
    )
    def test_values_out_of_range(self, folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
        ((name, value),) = options.items()
        with pytest.raises(UsageError, match=rf"{name.replace('_', '-')} {value} is not"):
            import_photos(folder, tmp_path / "d", **options)


class TestWriting:
    def test_existing_destination(self, folder: Path, archive: Path, tmp_path: Path) -> None:
        import_photos(folder, tmp_path / "d")
        before = Pack.open(tmp_path / "d").checksum
        with pytest.raises(PhotochromError, match=r"exists: .*--overwrite"):
            import_photos(archive, tmp_path / "d")
        assert Pack.open(tmp_path / "d").checksum == before
        import_photos(archive, tmp_path / "d", overwrite=True)
        assert Pack.open(tmp_path / "d").source == "tiny.zip"
        assert [path.name for path in tmp_path.iterdir()] == ["d"]

    def test_overwrite_replaces_only_a_data_set(self, folder: Path, tmp_path: Path) -> None:
        mine = write_folder(tmp_path / "mine", {"novel.txt": b"chapter 1"})
        for target in (mine, mine / "novel.txt"):
            with pytest.raises(PhotochromError, match=r"is no data set and is not replaced"):
                import_photos(folder, target, overwrite=True)
        assert (mine / "novel.txt").read_bytes() == b"chapter 1"
        (tmp_path / "empty").mkdir()
        import_photos(folder, tmp_path / "empty", overwrite=True)

    def test_a_failed_overwrite_keeps_what_was_there(self, folder: Path, tmp_path: Path) -> None:
        import_photos(folder, tmp_path / "d")
        bad = write_folder(tmp_path / "bad", {"a.jpg": b"x"})
        with pytest.raises(PhotochromError, match=r"broken"):
            import_photos(bad, tmp_path / "d", overwrite=True)
        assert Pack.open(tmp_path / "d").source == "holidays"
        assert hidden(tmp_path) == []

    def test_an_overwrite_stopped_between_the_renames(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import_photos(folder, tmp_path / "d")
        rename = Path.rename

        def stop(path: Path, target: Path) -> Path:
            if path.name == "built":
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            import_photos(folder, tmp_path / "d", seed=1, overwrite=True)
        assert Pack.open(tmp_path / "d").seed == 0
        assert hidden(tmp_path) == []

    @pytest.mark.fault(
        "kill -9 while an import replaces a data set",
        "the old or the new one is there at the next start, and nothing else",
    )
    @pytest.mark.parametrize(("at", "seed"), [(0, 0), (1, 0), (2, 1)], ids=["before", "between", "after"])
    def test_killed_at_the_renames(self, folder: Path, tmp_path: Path, at: int, seed: int) -> None:
        import_photos(folder, tmp_path / "d")
        code = (
            "import os, signal, sys; from pathlib import Path\n"
            "from photochrom.data.importing import import_photos\n"
            "rename, left = Path.rename, [int(sys.argv[3])]\n"
            "def kill(*arguments):\n"
            "    if left[0]: left[0] -= 1; rename(*arguments)\n"
            "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
            "Path.rename = kill\n"
            "import_photos(Path(sys.argv[1]), Path(sys.argv[2]), seed=1, overwrite=True)"
        )
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / "d"), str(at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert len(hidden(tmp_path)) == 1
        with pytest.raises(PhotochromError, match=r"exists: .*--overwrite"):
            import_photos(folder, tmp_path / "d")  # the next start
        assert Pack.open(tmp_path / "d").seed == seed
        assert hidden(tmp_path) == []

    def test_an_import_that_runs_is_not_swept_away(self, folder: Path, tmp_path: Path) -> None:
        def meanwhile(done: int, total: int, what: str) -> None:
            if done == importing.CHUNK:
                import_photos(folder, tmp_path / "other", limit=5)

        import_photos(folder, tmp_path / "d", progress=meanwhile)
        assert names(tmp_path) == ["d", "other"]
        assert hidden(tmp_path) == []

    def test_readable_by_others_as_the_umask_says(self, packed: Path) -> None:
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(packed.stat().st_mode) == 0o777 & ~umask

    def test_disk_full(self, folder: Path, tmp_path: Path) -> None:
        """A real refusal of the system to write more: at most 200 kB a file, in a process of its own."""
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from photochrom.data.importing import import_photos; from photochrom.errors import PhotochromError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "try: import_photos(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "except PhotochromError as error: print(error)"
        )
        child = subprocess.run(
            [sys.executable, "-c", code, folder, tmp_path / "d"], capture_output=True, text=True, check=True
        )
        assert "the disk is full, free some space" in child.stdout
        assert child.stderr == ""
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_disk_full_at_the_index(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        import_photos(folder, tmp_path / "d")

        def write_text(path: Path, text: str) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "write_text", write_text)
        with pytest.raises(PhotochromError, match=r"the disk is full"):
            import_photos(folder, tmp_path / "d", seed=1, overwrite=True)
        assert Pack.open(tmp_path / "d").seed == 0
        assert hidden(tmp_path) == []

    def test_destination_under_a_file(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(PhotochromError, match=r"cannot write .*use another folder"):
            import_photos(folder, tmp_path / "file" / "d")

    def test_progress_and_report(self, folder: Path, tmp_path: Path) -> None:
        calls: list[tuple[int, int, str]] = []
        report = import_photos(
            folder, tmp_path / "d", progress=lambda done, total, what: calls.append((done, total, what))
        )
        assert calls == [*((n, 60, "read") for n in (16, 32, 48, 60)), (0, 60, "compared")]
        assert report.folder == tmp_path / "d"
        assert report.counts == {"train": 54, "validation": 3, "test": 3}
        assert 0 < report.seconds < 60

    def test_interrupted_by_a_person(self, folder: Path, tmp_path: Path) -> None:
        """Ctrl-C in a process of its own."""
        code = (
            "import signal, sys, time; from pathlib import Path; from photochrom.data.importing import import_photos\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which is ignored in the background
            "def progress(done, total, what): print(done, flush=True); time.sleep(0.5)\n"
            "import_photos(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)"
        )
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / "d")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout
            child.stdout.readline()
            assert [path.name[:3] for path in tmp_path.iterdir()] == [".d."]
            child.send_signal(signal.SIGINT)
            stdout, stderr = child.communicate(timeout=60)
        assert b"KeyboardInterrupt" in stderr
        assert len(stdout.splitlines()) < 50  # of 60
        assert list(tmp_path.iterdir()) == []

    def test_an_error_stops_the_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_folder(tmp_path / "in", {f"{i}.png": b"" for i in range(300)})
        begun: list[str] = []

        def read(_: Source, photo: Photo, size: int) -> LeftOut:
            begun.append(photo.origin)
            time.sleep(0.01)
            return LeftOut(photo.origin, "gray")

        def fail(done: int, total: int, what: str) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(importing, "read_photo", read)
        with pytest.raises(ZeroDivisionError):
            import_photos(source, tmp_path / "d", progress=fail, workers=2)
        assert len(begun) < 4 * importing.CHUNK  # of the five chunks handed out, two were being read
        assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
        assert list(tmp_path.iterdir()) == [source]

    @pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
    )
    def test_memory_does_not_grow_with_the_data_set(self, tmp_path: Path) -> None:
        """Photos worth 110 MB of pixels do not take as much on top of Python, NumPy and Pillow."""
        draw = np.random.default_rng(0)
        files = {}
        for i in range(140):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(64, 0).repeat(64, 1)
            files[f"{i}.bmp"] = encoded(Image.fromarray(pixels), "BMP")
        write_folder(tmp_path / "in", files)
        code = (
            "import sys; from pathlib import Path; from photochrom.data.importing import import_photos\n"
            "import_photos(Path(sys.argv[1]), Path(sys.argv[2]), size=512, workers=2)\n"
            "assert 'torch' not in sys.modules\n"
            "print(Path('/proc/self/status').read_text())"  # ru_maxrss would tell of this process as well
        )
        command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "d")]
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        kilobytes = int(status.split("VmHWM:")[1].split()[0])
        assert (tmp_path / "d" / "photos.npy").stat().st_size > 110e6
        # The file itself is mapped, so that its pages count, though they are the system's to take back.
        assert kilobytes < 130_000 + 110_000


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
            (lambda d: _cut(d / "index.json"), "is torn"),
            (lambda d: _cut(d / "photos.npy"), "is torn"),
            (lambda d: (d / "photos.npy").write_bytes(b""), "is torn"),
            (lambda d: (d / "index.json").write_text("[]"), "is torn"),
            (lambda d: np.save(d / "photos.npy", np.array([{}], dtype=object)), "is torn"),
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
            (lambda d: _edit(d, format=99), "is of format 99, not 1"),
            (lambda d: _edit(d, size=None), "does not fit together"),
            (lambda d: _edit(d, checksum="0"), "was changed"),
            (lambda d: _edit(d, photos={}), "is torn"),
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
        with pytest.raises(PhotochromError, match=r"no data set 'holiday' in .*: there is demo, holidays;"):
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
        with pytest.raises(PhotochromError, match=r"skimage with its moose.png is not installed"):
            make_demo(tmp_path / "demo")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    "PHOTOCHROM_SHARED" not in os.environ, reason="PHOTOCHROM_SHARED does not name the shared folder"
)
def test_the_shared_archive(tmp_path: Path) -> None:
    source = Path(os.environ["PHOTOCHROM_SHARED"]) / "data" / "tiny-imagenet-200-part.zip"
    report = import_photos(source, tmp_path / "d", categories=["goldfish", "school bus", "n02124075"])
    opened = Pack.open(tmp_path / "d")
    assert opened.categories == ["Egyptian cat", "school bus", "goldfish"]
    assert len(opened.indices("train")) > 700
    assert len(opened.indices("validation")) > 30
    assert set(report.left_out) <= {"gray", "duplicate"}
