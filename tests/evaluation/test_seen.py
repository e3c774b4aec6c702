"""Photos that a model or its ancestors learnt from are not held out, whatever data set they are in now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photochrom.config import LearntFrom, build
from photochrom.data.demo import photographs
from photochrom.data.importing import import_photos
from photochrom.data.pack import PATTERNS, Pack
from photochrom.evaluation.folder import Folder
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.seen import learnt, still_here
from photochrom.model_folder import ModelFolder, learnt_from
from tests.making import smooth
from tests.running import TINY, Run


@pytest.fixture
def split_twice(tmp_path: Path) -> Path:
    """A folder of data sets: the same 60 photos split by two seeds."""
    (tmp_path / "photos").mkdir()
    for seed in range(60):
        smooth(seed).resize((32, 32)).save(tmp_path / "photos" / f"{seed:02}.png")
    for seed in (0, 1):
        import_photos(
            tmp_path / "photos", tmp_path / "data" / f"by{seed}", size=16, validation=0.4, test=0.0, seed=seed
        )
    return tmp_path / "data"


def test_photos_of_another_split_are_known(split_twice: Path) -> None:
    old, new = (Pack.open(split_twice / f"by{seed}") for seed in (0, 1))
    held_out = new.indices("validation")
    trained_on = {old.origin[i] for i in old.indices("train")}
    truly = [new.origin[i] in trained_on for i in held_out]
    assert 0 < sum(truly) < len(held_out)
    for name in ("by0", "gone"):  # what counts is the checksum
        measured_on = HeldOut(
            new, learnt_from=[LearntFrom(name=name, checksum=old.checksum)], data_dir=split_twice
        )
        assert set(measured_on.indices) == set(held_out[~np.array(truly)])
        assert measured_on.compared == {old.checksum, new.checksum}
    for unknown in (LearntFrom(name="by0", checksum="0"), LearntFrom(name="by0")):
        measured_on = HeldOut(new, learnt_from=[unknown], data_dir=split_twice)
        assert len(measured_on) == len(held_out)
        assert measured_on.compared == {new.checksum}


@pytest.fixture
def parts() -> list[Image.Image]:
    """50 squares of real photographs that do not overlap."""
    found = []
    for whole in photographs().values():
        side = min(whole.size) // 5
        for top in range(0, whole.height - side + 1, side):
            for left in range(0, whole.width - side + 1, side):
                part = whole.crop((left, top, left + side, top + side)).convert("RGB")
                if np.asarray(part.convert("L")).std() > 25:  # no plain walls
                    found.append(part.resize((128, 128), Image.Resampling.BICUBIC))
    return found[:: len(found) // 50][:50]


def test_photos_of_a_folder_that_were_learnt_are_left_out(parts: list[Image.Image], tmp_path: Path) -> None:
    """Saved again as JPEG of another size and quality.

    The data set may hold any of a long photo's three squares.
    """
    for place in ("photos", "again"):
        (tmp_path / place).mkdir()
    for number, part in enumerate(parts):
        part.save(tmp_path / "photos" / f"{number:02}.png")
        right, down = ((0, 0), (110, 0), (0, 110))[number % 3]  # room: square, wide and tall photos
        around = Image.new("RGB", (150 + right, 150 + down), "olive")
        share = number // 3 % 3  # at the beginning, in the middle, at the end
        at = (right * share // 2, down * share // 2)
        around.paste(part.resize((150, 150), Image.Resampling.BICUBIC), at)
        around.save(tmp_path / "again" / f"{number:02}.jpg", quality=40 + number)
    import_photos(tmp_path / "photos", tmp_path / "data" / "mine", validation=0.4)
    pack = Pack.open(tmp_path / "data" / "mine")
    trained_on = {Path(pack.origin[i]).stem for i in pack.indices("train")}
    held_out = {Path(pack.origin[i]).stem for i in range(len(parts))} - trained_on
    source = [LearntFrom(name="elsewhere", checksum=pack.checksum)]
    found = Folder(tmp_path / "again", learnt_from=source, data_dir=tmp_path / "data")
    assert {Path(name).stem for name in found.origins()} == held_out
    assert {Path(each.photo).stem for each in found.left_out} == trained_on
    (note,) = found.notes()  # one line for all of them
    assert f" and {len(trained_on) - 3} more: it looks like a training photo of mine" in note
    assert "take photos that no model has seen" in note
    assert found.compared == {pack.checksum}
    few = Folder(tmp_path / "again", count=5, learnt_from=source, data_dir=tmp_path / "data")
    assert few.origins() == found.origins()[:5]  # others stand in for those that are left out
    unknown = [LearntFrom(name="mine", checksum="0")]
    assert len(Folder(tmp_path / "again", learnt_from=unknown, data_dir=tmp_path / "data")) == len(parts)


def test_what_finds_look_alikes_is_kept_beside_the_photos(split_twice: Path) -> None:
    pack = Pack.open(split_twice / "by0")
    looked: list[int] = []
    first = pack.patterns(lambda done, total: looked.append(total))
    assert set(looked) == {60}
    again = pack.patterns(lambda done, total: pytest.fail("worked out twice"))
    assert np.array_equal(first, again)
    file = pack.folder / PATTERNS
    for torn in (b"", b"no array", file.read_bytes()[:-4]):
        file.write_bytes(torn)
        assert np.array_equal(pack.patterns(), first)
    np.save(file, first[:-1])  # of fewer photos
    assert np.array_equal(pack.patterns(), first)
    everything = learnt(pack.photos, pack)
    assert np.array_equal(everything, pack.split == "train")
    assert [
        each.folder for each in still_here([LearntFrom(name="x", checksum=pack.checksum)] * 2, split_twice)
    ] == [pack.folder]


def test_an_evaluation_leaves_out_what_the_model_before_learnt_from(split_twice: Path, run: Run) -> None:
    old, new = (Pack.open(split_twice / f"by{seed}") for seed in (0, 1))
    learnt = {old.origin[i] for i in old.indices("train")}
    fresh = {new.origin[i] for i in new.indices("validation")} - learnt
    assert run("train", *TINY, "--data", "by0", "--name", "parent").code == 0
    assert (
        run(
            "train", "--from", "parent", "--data", "by1", "--name", "child", "--perceptual", 0, "--epochs", 1
        ).code
        == 0
    )
    config = json.loads(Path("models/child/config.json").read_text())
    assert config["ancestors"] == [{"name": "by0", "checksum": old.checksum}]
    shutil.rmtree("models/parent")  # what it learnt from stays known
    evaluated = run("evaluate", "child", "--vgg-photos", 2, "--json")
    assert evaluated.code == 0
    report = json.loads(evaluated.out)
    assert set(report["origins"]) == fresh
    assert report["data"]["seen"] == new.count("validation") - len(fresh)
    assert report["subjects"]["child"]["other_data"] == []
    assert "look like training photos of a model" in Path("reports/child/report.html").read_text()

    whole = run(
        "evaluate", "child", "--photos", "photos", "--vgg-photos", 2, "--average", 1, "--json", "-o", "whole"
    )
    learnt_by_either = learnt | {new.origin[i] for i in new.indices("train")}
    assert set(json.loads(whole.out)["origins"]) == {f"{n:02}.png" for n in range(60)} - learnt_by_either
    assert json.loads(whole.out)["subjects"]["child"]["other_data"] == []

    shutil.rmtree("data/by0")  # then nothing can be compared, and the figures are marked
    marked = run("evaluate", "child", "--vgg-photos", 2, "--overwrite", "--json")
    assert marked.code == 0
    assert "child has also learnt from by0" in marked.err
    assert json.loads(marked.out)["subjects"]["child"]["other_data"] == ["by0"]
    assert "also trained on by0" in Path("reports/child/report.html").read_text()
    whole = run(
        "evaluate",
        "child",
        "--photos",
        "photos",
        "--vgg-photos",
        2,
        "--average",
        1,
        "--overwrite",
        "-o",
        "whole",
    )
    assert whole.code == 0
    assert "by0" not in whole.err  # nothing that a person could do
    page = Path("whole/report.html").read_text()
    assert "It was trained on by0. That data set is not on this machine" in page
    assert "thousands, of 2 photos" in page  # the Fréchet distance


def test_the_models_before_are_asked_where_nothing_is_written_down(tmp_path: Path) -> None:
    """Folders that earlier versions made have no `ancestors`."""
    for name, source, checksum in (("a", None, "1"), ("b", "a", "2"), ("c", "b", "1"), ("d", "gone", "4")):
        write(tmp_path / name, source, checksum)
    write(tmp_path / "x", "y", "5")
    write(tmp_path / "y", "x", "6")  # in a circle
    write(tmp_path / "e", "../elsewhere", "7")

    def known(name: str) -> list[tuple[str, str | None]]:
        config = ModelFolder(tmp_path / name).config
        return [(each.name, each.checksum) for each in learnt_from(config, tmp_path)]

    assert known("a") == [("set 1", "1")]
    assert sorted(known("c")) == [("set 1", "1"), ("set 2", "2")]
    assert known("d") == [("set 4", "4"), ("the data set of gone", None)]
    assert sorted(known("x")) == [("set 5", "5"), ("set 6", "6")]
    assert known("e") == [("set 7", "7"), ("the data set of ../elsewhere", None)]


def write(folder: Path, source: str | None, checksum: str) -> None:
    folder.mkdir()
    config = build({"source": source, "data": {"name": f"/place/set {checksum}", "checksum": checksum}})
    values = config.model_dump(mode="json")
    del values["ancestors"]
    (folder / "config.json").write_text(json.dumps(values))
