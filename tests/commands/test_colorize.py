"""`photochrom colorize`: what it writes where, and that nothing a person owns gets lost."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.making import photo, truncated
from tests.running import Run


@pytest.fixture
def colorize(run: Run, models: Path) -> Run:
    """The command with a tiny model and one step; options that a test gives again count instead."""
    return partial(run, "colorize", "--models", models, "--model", "tiny", "--steps", 1)


def test_folders_keep_their_structure_and_a_bad_photo_stops_nothing(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "album/a.jpg")
    photo(tmp_path / "album/deep/er/b.png", 40, 40)
    photo(tmp_path / "album/c.bmp")
    photo(tmp_path / "album/.hidden/d.png")
    (tmp_path / "album/notes.txt").write_text("not a photo")
    truncated(tmp_path / "album/bad.jpg")
    photo(tmp_path / "old.webp", 16, 16)
    result = colorize("album", "old.webp", "-o", "out", "--steps", 2)
    assert result.code == 3
    assert sorted(result.out.splitlines()) == ["out/a.jpg", "out/c.png", "out/deep/er/b.png", "out/old.webp"]
    assert sorted(str(path) for path in Path("out").rglob("[!.]*.*")) == sorted(result.out.splitlines())
    assert "album/bad.jpg" in result.err
    assert "4 coloured, 1 failed" in result.err
    for path, format in (("a.jpg", "JPEG"), ("c.png", "PNG"), ("deep/er/b.png", "PNG"), ("old.webp", "WEBP")):
        with Image.open(Path("out") / path) as image:
            assert (image.format, image.mode) == (format, "RGB")
    with Image.open("album/deep/er/b.png") as before, Image.open("out/deep/er/b.png") as after:
        difference = np.asarray(before.convert("L")).astype(int) - np.asarray(after.convert("L"))
        assert np.abs(difference).max() <= 1


def test_the_search_for_unused_objects_spares_what_torch_brings(models: Path, tmp_path: Path) -> None:
    code = """
import gc, sys
from photochrom.commands.cli import main
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("while importing", gc.isenabled())
sys.meta_path.insert(0, Watch())
try:
    main(sys.argv[1:])
finally:
    print("afterwards", gc.isenabled(), "spared", gc.get_freeze_count() > 100_000)
"""
    command = ["colorize", str(photo(tmp_path / "a.png")), "--models", str(models), "--model", "tiny"]
    line = [sys.executable, "-c", code, *command]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = ["while importing False", "coloured/a.png", "afterwards True spared True"]
    assert ran.stdout.splitlines() == said, ran.stderr


def test_without_a_place_results_go_to_a_folder_beside(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "album/a.jpg")
    photo(tmp_path / "old.png")
    assert colorize("album", "old.png").out.splitlines() == ["coloured/a.jpg", "coloured/old.png"]
    again = colorize(".")  # where what it has made is no photo to colour
    assert (again.code, again.out) == (0, "coloured/album/a.jpg\n")


def test_existing_files_and_the_input_itself_are_kept(colorize: Run, tmp_path: Path) -> None:
    before = photo(tmp_path / "a.png").read_bytes()
    Path("out").mkdir()
    Path("out/a.png").write_text("precious")
    kept = colorize("a.png", "-o", "out")
    assert kept.code == 1
    assert "out/a.png exists" in kept.err
    assert Path("out/a.png").read_text() == "precious"
    itself = colorize("a.png", "-o", ".", "--overwrite")
    assert itself.code == 1
    assert "overwrite itself" in itself.err
    assert Path("a.png").read_bytes() == before
    assert colorize("a.png", "-o", "out", "--overwrite").code == 0
    with Image.open("out/a.png") as image:
        assert image.size == (24, 16)


def test_two_photos_never_become_one_file(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "one/a.png")
    photo(tmp_path / "two/a.png")
    result = colorize("one", "two", "one/a.png", "-o", "out")
    assert result.code == 3
    assert result.out == "out/a.png\n"
    assert "two/a.png would be written to out/a.png, like one/a.png:" in result.err


def test_results_of_an_earlier_run_are_not_coloured_again(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for overwrite in ((), ("--overwrite",)):
        result = colorize(".", "-o", "coloured", *overwrite)
        assert (result.code, result.out) == (0, "coloured/a.png\n")


def test_a_single_photo_may_become_a_named_file(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "a.bmp")
    result = colorize("a.bmp", "-o", "deep/b.jpg")
    assert (result.code, result.out) == (0, "deep/b.jpg\n")
    with Image.open("deep/b.jpg") as image:
        assert image.format == "JPEG"


def test_colorize_reports_as_json(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    result = colorize("a.png", "none.png", "-o", "out", "--json")
    assert result.code == 3
    report = json.loads(result.out)
    assert report["model"] == "tiny"
    assert report["written"] == [{"input": "a.png", "output": "out/a.png"}]
    assert [failure["input"] for failure in report["failed"]] == ["none.png"]


def test_sampler_and_steps_are_checked(colorize: Run, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for option, value, said in (("--sampler", "euler", "'ddim', 'unipc'"), ("--steps", 51, "1 to 50")):
        result = colorize("a.png", "-o", "out", option, value)
        assert result.code == 2
        assert said in result.error


def test_an_unknown_model_lists_those_there(colorize: Run) -> None:
    unknown = colorize("a.png", "-o", "out", "--model", "nope")
    assert unknown.code == 1
    assert "tiny" in unknown.error
