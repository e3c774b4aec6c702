"""Importing: what is left out, how photos are split, and what is written."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom.data import importing, reading
from photochrom.data.dataset import names
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.data.reading import open_photo
from photochrom.data.sources import LeftOut, Photo, Source
from photochrom.errors import PhotochromError
from tests.data.making import (
    checksums,
    encoded,
    hidden,
    photo,
    splits,
    tiny_imagenet,
    write_folder,
    write_zip,
)
from tests.make_odd_files import chunk


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
                + chunk(b"IHDR", bytes(8) + b"\x08\2\0\0\0")
                + chunk(b"IDAT", zlib.compress(b"")),
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
            with pytest.raises(PhotochromError, match=r"is no data set and stays as it is"):
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
            "from photochrom.data.importing import import_photos\n"
            "from photochrom.errors import PhotochromError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "try: import_photos(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "except PhotochromError as error: print(error)"
        )
        child = subprocess.run(
            [sys.executable, "-c", code, folder, tmp_path / "d"], capture_output=True, text=True, check=True
        )
        assert "the disk is full; free some space" in child.stdout
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
            "import signal, sys, time; from pathlib import Path\n"
            "from photochrom.data.importing import import_photos\n"
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
