"""What a folder of coloured photos remembers, so that it colours only new photos and keeps a user's edits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from photochrom.coloring import album
from photochrom.coloring import photo as photo_file
from photochrom.errors import PhotochromError
from tests.coloring.making import colorize, photo

pytestmark = pytest.mark.usefixtures("work")


def test_only_what_is_new_or_changed_is_coloured_again(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "deep/c"):
        photo(f"album/{name}.png")

    def run(*more: object) -> list[str]:
        capsys.readouterr()
        assert colorize(models, "album", "-o", "out", *more) == 0
        return capsys.readouterr().out.split()

    assert run() == ["out/a.png", "out/b.png", "out/deep/c.png"]
    assert run() == []
    photo("album/b.png", seed=5)
    photo("album/d.png")
    assert run() == ["out/b.png", "out/d.png"]
    Path("out/deep/c.png").unlink()
    assert run() == ["out/deep/c.png"]
    assert len(run("--seed", 1)) == 4
    assert len(run("--seed", 1)) == 0
    assert len(run("--seed", 1, "--overwrite")) == 4


def test_what_is_unchanged_is_counted(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("album/a.png")
    colorize(models, "album", "-o", "out")
    capsys.readouterr()
    assert colorize(models, "album", "-o", "out") == 0
    assert "1 unchanged" in capsys.readouterr().err


def test_a_result_that_a_person_has_changed_is_kept(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("album/a.png")
    assert colorize(models, "album", "-o", "out") == 0
    Path("out/a.png").write_bytes(b"retouched for hours")
    photo("album/a.png", seed=3)
    assert colorize(models, "album", "-o", "out") == 1
    assert "out/a.png exists; replace it with --overwrite" in capsys.readouterr().err
    assert Path("out/a.png").read_bytes() == b"retouched for hours"


def test_a_torn_record_is_as_none(models: Path) -> None:
    photo("album/a.png")
    assert colorize(models, "album", "-o", "out") == 0
    Path("out/.photochrom.json").write_text('{"a.png"')
    assert colorize(models, "album", "-o", "out") == 1
    assert colorize(models, "album", "-o", "out", "--overwrite") == 0


def test_samples_of_which_the_disk_took_the_first_only_are_made_anew_and_nothing_else_is(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")
    photo("b.png")
    mine = photo("out/a-2.png").read_bytes()
    real = photo_file.write

    def write(picture: Image.Image, file: Path) -> tuple[str, ...]:
        if file.name in ("a-2.png", "b-2.png"):
            raise PhotochromError(f"cannot write {file}: the disk is full")
        return real(picture, file)

    samples = ("a.png", "b.png", "-o", "out", "--samples", 3)
    with monkeypatch.context() as patch:
        patch.setattr("photochrom.coloring.album.write", write)
        assert colorize(models, *samples, "--overwrite") == 1
    assert Path("out/b-1.png").exists()
    assert not Path("out/b-3.png").exists()
    capsys.readouterr()
    assert colorize(models, *samples) == 3
    said = capsys.readouterr().err
    assert "a.png is left out: " in said
    assert "b.png is left out: " not in said
    assert all(Path(f"out/b-{n}.png").exists() for n in (1, 2, 3))
    assert Path("out/a-2.png").read_bytes() == mine


def test_who_is_killed_knows_afterwards_what_was_done(models: Path) -> None:
    for number in range(20):
        photo(f"album/{number:02}.png", seed=number)
    command = ["colorize", "album", "-o", "out", "--model", str(models / "tiny"), "--steps", "1"]
    code = (
        "from photochrom.coloring import album, manifest; from photochrom.commands.cli import main\n"
        f"album.BATCH, manifest.SAVE_SECONDS = 4, 0.0; main({command!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    first = process.stdout.readline().decode().strip()
    process.kill()
    process.communicate()
    assert Path(first).name in json.loads(Path("out/.photochrom.json").read_text())
    assert not album.plan([Path("album")], Path("out"), False).refused.keys() & {
        Path("album", Path(first).name)
    }
