"""Sources: Tiny ImageNet and folders, and archives that are refused."""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from photochrom.data import sources
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError, UsageError
from tests.data.making import (
    WNIDS,
    encoded,
    photo,
    tiny_imagenet,
    write_folder,
    write_zip,
)


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
        with pytest.raises(PhotochromError, match=rf"is not safe: its entry .*({message})"):
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
