"""Data sets in shards: writing and reading, the order of photos, training, torn and missing files."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from photochrom import model_folder
from photochrom.config import build
from photochrom.data import shards as module
from photochrom.data.dataset import find, names, open_data
from photochrom.data.importing import import_photos
from photochrom.data.pack import SPLITS, Pack
from photochrom.data.shards import INDEX, LEFT_OUT, Shards
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.evaluation.held_out import HeldOut
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from tests.making import smooth
from tests.running import Run
from tests.training.making import assert_same_training, signal_at

COUNT, SIZE, CAPACITY = 60, 16, 4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos in two categories, beside one that is there twice, one gray and one broken."""
    folder = tmp_path_factory.mktemp("photos")
    for category in ("cats", "dogs"):
        (folder / category).mkdir()
    for seed in range(COUNT):
        smooth(seed).save(folder / ("cats" if seed < COUNT // 2 else "dogs") / f"{seed:02}.png")
    shutil.copy(folder / "cats" / "00.png", folder / "dogs" / "twin.png")
    smooth(0).convert("L").save(folder / "cats" / "gray.png")
    (folder / "cats" / "broken.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def written(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of four photos."""
    return write(source, tmp_path_factory.mktemp("data") / "mine")


def write(source: Path, destination: Path, **options: Any) -> Path:
    options = {"size": SIZE, "validation": 0.3, "shards": True} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_BYTES", CAPACITY * 3 * SIZE * SIZE)
        return import_photos(source, destination, **options).folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """One to break."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def all_photos(data: Shards) -> torch.Tensor:
    return data.rgb(np.arange(data.ends[-1]))


class TestWriting:
    def test_holds_the_photos_that_a_packed_data_set_holds(
        self, source: Path, written: Path, tmp_path: Path
    ) -> None:
        packed = Pack.open(import_photos(source, tmp_path / "packed", size=SIZE).folder)
        data = Shards.open(written)
        true = dict(zip(packed.origin, packed.rgb(np.arange(COUNT)), strict=True))
        true["dogs/twin.png"] = true["cats/00.png"]  # of which one is there
        found = data.origins(np.arange(COUNT))
        assert len(set(found)) == COUNT
        for origin, rgb in zip(found, all_photos(data), strict=True):
            assert torch.equal(rgb, true[origin])
        assert sum(data.count(split) for split in SPLITS) == COUNT
        assert data.summary()["left_out"] == {"gray": 1, "broken": 1, "duplicate": 1}
        assert [entry[1] for entry in json.loads((written / LEFT_OUT).read_text())].count("broken") == 1

    def test_other_readers_of_webdataset_understand_it(self, written: Path) -> None:
        data, there = Shards.open(written), 0
        for shard in range(len(data.photos)):
            with (written / data.file(shard)).open("rb") as stream:
                files = tar_file_expander([{"url": "", "stream": stream}], eof_value=None)
                decoded = [np.asarray(Image.open(BytesIO(sample["ppm"]))) for sample in group_by_keys(files)]
            assert len(decoded) == data.photos[shard]
            for pixels in decoded:
                assert np.array_equal((data.rgb([there])[0] * 255).permute(1, 2, 0).numpy(), pixels)
                there += 1

    def test_index_knows_what_is_there(self, written: Path) -> None:
        table = json.loads((written / INDEX).read_text())["shards"]
        files = sorted(path.name for path in written.glob("*.tar"))
        data = Shards.open(written)
        assert sorted(map(data.file, range(len(data.photos)))) == files
        assert table["bytes"] == [(written / data.file(n)).stat().st_size for n in range(len(files))]
        assert data.summary()["bytes"] == sum(table["bytes"])
        assert max(table["photos"]) == CAPACITY
        assert data.summary()["categories"] in ({"cats": 30, "dogs": 30}, {"cats": 29, "dogs": 31})

    def test_each_shard_is_a_fair_mixture(self, written: Path) -> None:
        data = Shards.open(written)
        mixed = [{o.split("/")[0] for o in data.origins(data.ends[n] - np.arange(1, 5))} for n in range(5)]
        assert mixed.count({"cats", "dogs"}) >= 4

    def test_the_same_photos_make_the_same_files(self, source: Path, written: Path, tmp_path: Path) -> None:
        again, other = write(source, tmp_path / "mine"), write(source, tmp_path / "other", seed=1)
        assert {p.name: p.read_bytes() for p in again.iterdir()} == {
            p.name: p.read_bytes() for p in written.iterdir()
        }
        assert Shards.open(other).checksum != Shards.open(written).checksum

    def test_a_photo_keeps_its_split_when_others_come_or_go(
        self, source: Path, written: Path, tmp_path: Path
    ) -> None:
        fewer = write(source, tmp_path / "fewer", limit=30)
        before, after = (
            {
                o: str(d.split[d.ends.searchsorted(i, side="right")])
                for i, o in enumerate(d.origins(np.arange(d.ends[-1])))
            }
            for d in (Shards.open(written), Shards.open(fewer))
        )
        assert len(after) == 30
        assert {o: split for o, split in before.items() if o in after} == after
        assert {"train", "validation", "test"} == set(before.values())

    def test_what_the_source_holds_out_is_held_out(self, tmp_path: Path) -> None:
        tiny = tmp_path / "tiny"
        for folder in ("train/n1/images", "val/images"):
            (tiny / folder).mkdir(parents=True)
        (tiny / "wnids.txt").write_text("n1\n")
        (tiny / "words.txt").write_text("n1\tcat\n")
        for seed in range(12):
            smooth(seed).save(tiny / "train/n1/images" / f"{seed}.JPEG", "PNG")
        for seed in range(20, 24):
            smooth(seed).save(tiny / "val/images" / f"{seed}.JPEG", "PNG")
        (tiny / "val/val_annotations.txt").write_text("".join(f"{seed}.JPEG\tn1\n" for seed in range(20, 24)))
        data = Shards.open(write(tiny, tmp_path / "data", test=0.0))
        held_out = data.origins(data.drawn("validation", None, 0))
        assert sorted(held_out) == [f"val/images/{seed}.JPEG" for seed in range(20, 24)]

    def test_a_full_disk_leaves_nothing(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            Path, "write_bytes", lambda self, data: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(PhotochromError, match="the disk is full"):
            write(source, tmp_path / "data" / "mine")
        assert list((tmp_path / "data").iterdir()) == []


class TestReading:
    def test_the_parts_of_a_batch_make_the_batch(self, written: Path) -> None:
        data = Shards.open(written)
        whole = data.photos_of_step(0, 5, 8)
        halves = [Shards.open(written).photos_of_step(0, 5, 8, slice(rank, None, 2)) for rank in range(2)]
        assert np.array_equal(np.stack(halves, 1).flatten(), whole)
        assert set(whole) <= set(range(data.count("train")))

    def test_a_process_reads_its_share_of_the_shards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table: dict[str, list[Any]] = {
            "split": ["train"] * 400,
            "photos": [16] * 400,
            "bytes": [1] * 400,
            "checksum": [""] * 400,
        }
        index = {"format": 1, "name": "d", "size": 8, "categories": [], "seed": 0, "shards": table}
        read: list[set[int]] = []
        for part in (slice(0, None, 2), slice(1, None, 2), slice(None)):
            data, mine = Shards(tmp_path, index | {"checksum": module.checksum_of(table)}), set[int]()
            monkeypatch.setattr(data, "begin", mine.add)
            for step in range(100):
                data.photos_of_step(0, step, 32, part)
            read.append(mine)
        assert read[0] | read[1] == read[2]
        assert max(len(read[0]), len(read[1])) < 0.6 * len(read[2])

    def test_memory_holds_few_shards(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "KEPT", 3)
        data = Shards.open(written)
        once = all_photos(data)
        assert len(data.kept) == 3
        backwards = data.rgb(np.arange(COUNT)[::-1].copy())
        assert torch.equal(backwards.flip(0), once)

    def test_drawn_photos_are_of_the_split_and_of_few_shards(self, written: Path) -> None:
        data = Shards.open(written)
        everything = data.drawn("train", None, 0)
        assert sorted(everything) == list(range(data.count("train")))
        assert len(set(data.ends.searchsorted(data.drawn("train", 8, 0), side="right"))) <= 3
        assert (data.drawn("train", 8, 0) == everything[:8]).all()
        assert (data.drawn("train", 8, 1) != everything[:8]).any()
        with pytest.raises(UsageError, match="no split 'val'"):
            data.drawn("val", 8, 0)

    def test_indices_beyond_the_last(self, written: Path) -> None:
        for wrong in ([COUNT], [-1]):
            with pytest.raises(IndexError):
                Shards.open(written).rgb(wrong)

    def test_found_by_name_path_and_address(self, written: Path, address: str) -> None:
        own = open_data(written).rgb([3, 40])
        assert names(written.parent) == ["mine"]
        for place in ("mine", str(written), address, f"{address}/"):
            data = find(place, written.parent, typed=True)
            assert isinstance(data, Shards)
            assert data.name == "mine"
            assert torch.equal(data.rgb([3, 40]), own)


@pytest.fixture
def address(written: Path) -> Iterator[str]:
    """Where a web server has the shards."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/to/"):
                return super().do_GET()
            self.send_response(302)
            self.send_header("Location", f"{self.path.split('/')[2]}://localhost/etc/passwd")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(written))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def edit(folder: Path, mend_checksum: bool = True, **changes: Any) -> None:
    index = json.loads((folder / INDEX).read_text())
    table = changes.pop("shards", {})
    index["shards"] |= {key: change(index["shards"][key]) for key, change in table.items()}
    index |= changes | ({"checksum": module.checksum_of(index["shards"])} if mend_checksum else {})
    (folder / INDEX).write_text(json.dumps(index))


@dataclass
class Fault:
    damage: Callable[[Path], object]
    said: str


SHARD = "train-000000.tar"


class TestBadInput:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(lambda d: (d / INDEX).unlink(), f"has shards but no {INDEX}: copy it there too"),
            Fault(lambda d: (d / INDEX).write_text("{"), f"{INDEX} is damaged"),
            Fault(lambda d: (d / INDEX).write_text("[]"), f"{INDEX} is damaged"),
            Fault(lambda d: (d / INDEX).write_text("{}"), f"{INDEX} is damaged .*shards"),
            Fault(lambda d: (d / INDEX).write_text("[" * 10**5), f"{INDEX} is damaged"),
            Fault(lambda d: edit(d, size=10**9), f"{INDEX} is damaged .*size 1000000000"),
            Fault(lambda d: edit(d, format=9), "format 9, not 1"),
            Fault(lambda d: edit(d, mend_checksum=False, checksum="0"), "does not fit its checksum"),
            Fault(lambda d: edit(d, shards={"split": lambda s: ["../x", *s[1:]]}), "do not fit together"),
            Fault(lambda d: edit(d, shards={"split": lambda s: s[::-1]}), "not in order"),
            Fault(lambda d: edit(d, shards={"photos": lambda s: [0, *s[1:]]}), "do not fit together"),
            Fault(lambda d: edit(d, shards={"photos": lambda s: s[1:]}), "do not fit together"),
            Fault(lambda d: (d / SHARD).unlink(), f"{SHARD} is missing: copy it there again"),
            Fault(
                lambda d: (d / SHARD).write_bytes((d / SHARD).read_bytes()[:-99]),
                f"{SHARD} is damaged: it has",
            ),
        ],
    )  # fmt: skip
    def test_seen_when_opened(self, fault: Fault, copy: Path) -> None:
        fault.damage(copy)
        with pytest.raises(PhotochromError, match=fault.said) as caught:
            open_data(copy)
        assert "\n" not in str(caught.value)
        assert str(copy) in str(caught.value)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(lambda d: flip(d / SHARD), f"{SHARD} was changed: it does not fit its checksum"),
            Fault(lambda d: edit(d, size=8), f"{SHARD} does not fit .* promises 4 photos of 8x8 pixels"),
            Fault(lambda d: edit(d, size=32), f"{SHARD} does not fit .* promises 4 photos of 32x32 pixels"),
            Fault(
                lambda d: edit(d, shards={"photos": lambda s: [3, *s[1:]]}),
                f"{SHARD} does not fit .* promises 3 photos",
            ),
            Fault(lambda d: replace(d, b"no tar" * 999), f"{SHARD} does not fit"),
        ],
    )
    def test_seen_when_read(self, fault: Fault, copy: Path) -> None:
        fault.damage(copy)
        data = open_data(copy)
        with pytest.raises(PhotochromError, match=fault.said) as caught:
            data.rgb([0])
        assert "\n" not in str(caught.value)

    def test_gone_after_it_was_opened(self, copy: Path) -> None:
        data = open_data(copy)
        (copy / SHARD).unlink()
        with pytest.raises(PhotochromError, match=rf"{SHARD} cannot be read \(No such file"):
            data.rgb([0])

    def test_an_address_with_nothing(self, address: str) -> None:
        with pytest.raises(PhotochromError, match=rf"nowhere/{INDEX} cannot be read"):
            Shards.open(f"{address}/nowhere")
        for scheme in ("gopher", "ftp", "file", "pipe"):  # nor where a server sends it on
            with pytest.raises(PhotochromError, match=f"cannot be read .*unknown url type: {scheme}"):
                Shards.open(f"{scheme}://localhost/data")
            with pytest.raises(PhotochromError, match="cannot be read"):
                Shards.open(f"{address}/to/{scheme}")

    def test_a_server_cannot_fill_the_memory(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_INDEX_BYTES", 100)
        with pytest.raises(PhotochromError, match=rf"{INDEX} is longer than 100 bytes"):
            Shards.open(address)

    def test_neither_packed_nor_shards(self, tmp_path: Path) -> None:
        with pytest.raises(PhotochromError, match=r"no data set: it has no index\.json"):
            open_data(tmp_path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def replace(folder: Path, data: bytes) -> None:
    """Another file in a shard's place, with an index that says it is right."""
    (folder / SHARD).write_bytes(data)
    edit(
        folder,
        shards={"bytes": lambda s: [len(data), *s[1:]], "checksum": lambda s: [module.digest(data), *s[1:]]},
    )


class TestUse:
    def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
        self, written: Path, values: dict[str, Any], tmp_path: Path
    ) -> None:
        values["data"]["photos_per_epoch"] = 24
        values["training"]["sample_every"] = 0
        whole, parts = ModelFolder(tmp_path / "whole"), ModelFolder(tmp_path / "parts")
        train(build(values), whole, open_data(written))
        for stop in (2, 3):
            with pytest.raises(Interrupted):
                train(build(values), parts, open_data(written), signal_received=signal_at(stop))
        train(build(values), parts, open_data(written))
        assert_same_training(parts, whole)

    def test_a_torn_shard_ends_a_training_in_one_line(
        self, copy: Path, values: dict[str, Any], tmp_path: Path
    ) -> None:
        for path in copy.glob("train-*"):
            flip(path)
        with pytest.raises(PhotochromError, match=r"train-\d+.tar was changed"):
            train(build(values), ModelFolder(tmp_path / "model"), open_data(copy))

    def test_evaluation_takes_photos_from_shards(self, written: Path) -> None:
        data = open_data(written)
        chosen = HeldOut(data, count=5)
        assert len(set(chosen.indices)) == 5
        assert len(chosen.origins()) == 5

    def test_commands(self, run: Run, source: Path) -> None:
        made = run("data", "import", source, "--name", "mine", "--size", 16, "--shards", "--json")
        assert made.code == 0
        facts = json.loads(made.out)
        assert facts["photos"] == COUNT
        assert facts["shards"] == 3
        told = run("data", "info", "mine", "--json")
        assert told.code == 0
        assert Path(json.loads(told.out)["contact_sheet"]).is_file()
        assert "mine" in run("data", "list").out
        tiny = (
            "--features",
            "8,16",
            "--time-embedding",
            16,
            "--blocks",
            1,
            "--attention",
            1,
            "--perceptual",
            0,
        )
        trained = run("train", "--data", "mine", *tiny, "--epochs", 1, "--batch-size", 8)
        assert trained.code == 0
        assert (Path("models/my_model") / model_folder.WEIGHTS).is_file()
        Path("data/mine/train-000000.tar").unlink()
        gone = run("train", "--data", "mine", *tiny, "--epochs", 2, "--batch-size", 8)
        assert gone.code == 1
        assert gone.err.count("\n") == 1
        assert "train-000000.tar is missing" in gone.err
