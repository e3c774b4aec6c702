"""Photos that a model, or one before it, learnt from do not count as held out, whatever set they stand in now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from photochrom.config import LearntFrom, build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.evaluation.seen import seen_before
from photochrom.model_folder import ModelFolder, learnt_from
from tests.commands.test_cli import TINY, Run, run
from tests.conftest import smooth

__all__ = ["run"]  # a fixture


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
    learnt = {old.origin[i] for i in old.indices("train")}
    truly = {int(i) for i in held_out if new.origin[i] in learnt}
    assert 0 < len(truly) < len(held_out)
    found = seen_before([LearntFrom(name="by0", checksum=old.checksum)], new, held_out, split_twice)
    assert set(found.indices.tolist()) == truly
    assert found.compared == {old.checksum, new.checksum}
    renamed = seen_before([LearntFrom(name="gone", checksum=old.checksum)], new, held_out, split_twice)
    assert np.array_equal(renamed.indices, found.indices)
    for unknown in (LearntFrom(name="by0", checksum="0"), LearntFrom(name="by0")):
        nothing = seen_before([unknown], new, held_out, split_twice)
        assert not len(nothing.indices)
        assert nothing.compared == {new.checksum}


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
    assert "look like photos that a model learnt from" in Path("reports/child/report.html").read_text()

    shutil.rmtree("data/by0")  # then nothing can be compared, and the figures are marked
    marked = run("evaluate", "child", "--vgg-photos", 2, "--overwrite", "--json")
    assert marked.code == 0
    assert "child has also learnt from by0" in marked.err
    assert json.loads(marked.out)["subjects"]["child"]["other_data"] == ["by0"]
    assert "also learnt from by0" in Path("reports/child/report.html").read_text()


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
