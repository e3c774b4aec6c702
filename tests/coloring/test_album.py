"""Albums: only what is new or changed is coloured, one bad file stops nothing, a user's files stay."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photochrom.coloring import album
from photochrom.coloring.options import Options
from photochrom.errors import UsageError
from tests.coloring.making import colorize, photo, pixels

pytestmark = [
    pytest.mark.usefixtures("work"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def test_samples_a_sheet_and_a_map(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png", (40, 30))
    capsys.readouterr()
    assert colorize(models, "a.png", "-o", "out", "--samples", 3, "--uncertainty") == 0
    names = ["a-1.png", "a-2.png", "a-3.png", "a-sheet.png", "a-uncertainty.png"]
    assert capsys.readouterr().out.split() == [f"out/{name}" for name in names]
    assert np.abs(pixels("out/a-1.png") - pixels("out/a-2.png")).max() > 0
    assert colorize(models, "a.png", "-o", "second.png", "--seed", 1, "--average", 1) == 0
    assert np.abs(pixels("second.png") - pixels("out/a-2.png")).max() <= 1
    with Image.open("out/a-uncertainty.png") as map:
        assert (map.mode, map.size) == ("L", (40, 30))


def test_samples_are_kept_too_if_they_are_there(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("out/a-2.png", seed=9)
    before = Path("out/a-2.png").read_bytes()
    assert colorize(models, "a.png", "-o", "out", "--samples", 2) == 1
    assert "out/a-2.png exists" in capsys.readouterr().err
    assert Path("out/a-2.png").read_bytes() == before


def test_nothing_said_it_is_what_four_agree_on_but_for_samples(models: Path) -> None:
    photo("a.png")
    assert colorize(models, "a.png", "-o", "plain.png") == 0
    assert colorize(models, "a.png", "-o", "said.png", "--average", 4) == 0
    assert colorize(models, "a.png", "-o", "single.png", "--average", 1) == 0
    assert colorize(models, "a.png", "-o", "out", "--samples", 2) == 0
    assert np.array_equal(pixels("plain.png"), pixels("said.png"))
    assert np.array_equal(pixels("single.png"), pixels("out/a-1.png"))
    assert not np.array_equal(pixels("plain.png"), pixels("single.png"))


def test_flags_reach_the_colours(models: Path) -> None:
    photo("a.png")
    photo("mask.png").write_bytes(photo("white.png").read_bytes())
    Image.new("L", (24, 16), 255).save("mask.png")
    for flags in (("--strength", 0), ("--keep-gray", "mask.png")):
        assert colorize(models, "a.png", "-o", "gray.png", "--overwrite", *flags) == 0
        assert np.ptp(pixels("gray.png"), axis=2).max() == 0
    Image.new("L", (24, 16), 128).save("even.png")
    assert colorize(models, "even.png", "-o", "red.png", "--hint", "12,8,#c03030") == 0
    red, _, blue = pixels("red.png")[8, 12]
    assert red > blue + 80


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--hint", "30,8,#ff0000"), "hint 30,8 is outside the photo"),
        (("--hint", "red"), "write x,y,#rrggbb"),
        (("--hint", "1,1,#ff0000", "--hints", "h.png"), "together"),
        (("--samples", 2, "--average", 2), "exclude each other"),
        (("--samples", 0), "samples = 0: Input should be greater than or equal to 1"),
        (("--strength", -1), "strength = -1.0"),
        (("--strength", "nan"), "strength = nan"),
        (("--temperature", 3), "temperature = 3.0"),
        (("--guidance", "nan"), "guidance = nan"),
        (("--guidance", 2), "leave guidance out"),
        (("--detail", 2), "detail = 2"),
        (("--max-megapixels", 0), "max_megapixels = 0.0"),
        (("--temperature", 0.5, "--sampler", "ddpm"), "use ddim or dpm++"),
    ],
)
def test_wrong_options_are_told(
    models: Path, flags: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.png")
    capsys.readouterr()
    assert colorize(models, "a.png", "-o", "out", *flags) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not Path("out/a.png").exists()


def test_places_belong_to_one_photo(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("album/a.png")
    photo("album/b.png")
    assert colorize(models, "album", "-o", "out", "--hint", "1,1,#ff0000") == 2
    assert "colour the others separately" in capsys.readouterr().err


def test_bad_files_are_listed_at_the_end_and_the_others_coloured(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("album/good.png")
    photo("album/one.png", (1, 1))
    photo("album/strip.png", (30_000, 2))
    photo("album/huge.png", (1100, 1000))
    Path("album/text.jpg").write_text("dear diary")
    cut = photo("album/cut.jpg", (300, 300))
    cut.write_bytes(cut.read_bytes()[:9000])
    capsys.readouterr()
    assert colorize(models, "album", "-o", "out", "--max-megapixels", 1) == 3
    captured = capsys.readouterr()
    assert captured.out.split() == ["out/good.png", "out/one.png", "out/strip.png"]
    errors = [line for line in captured.err.splitlines() if "error" in line]
    assert [Path(line.split()[2]).name for line in errors] == ["cut.jpg", "huge.png", "text.jpg"]
    assert captured.err.splitlines()[-1] == "3 coloured, 3 failed"
    with Image.open("out/strip.png") as strip:
        assert strip.size == (30_000, 2)
    assert colorize(models, "album/cut.jpg", "-o", "out", "--truncated") == 0


def test_what_was_read_otherwise_than_expected_is_said(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.new("L", (24, 16), level) for level in (40, 120)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (24, 16), "orange").save("b.png")
    assert colorize(models, "a.gif", "b.png", "-o", "out") == 0
    said = capsys.readouterr().err
    assert "a.gif: only the first of its 2 frames is coloured" in said
    assert "b.png: it has colours or a tint" in said
    assert colorize(models, "a.gif", "-o", "again", "--json") == 0
    assert json.loads(capsys.readouterr().out)["notes"] == {
        "only the first of its 2 frames is coloured": ["a.gif"]
    }


def test_a_folder_that_cannot_be_written_to_is_told(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    Path("file").touch()
    assert colorize(models, "a.png", "-o", "file/out") == 1
    assert "cannot make the folder file/out" in capsys.readouterr().err
    if os.geteuid():  # the superuser may write anywhere
        Path("closed").mkdir(mode=0o500)
        assert colorize(models, "a.png", "-o", "closed") == 1
        assert "cannot write closed/a.png" in capsys.readouterr().err


def test_films_are_coloured_beside_photos(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av")
    with av.open("film.mov", "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for level in range(60, 120, 20):
            made.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 24), (level,) * 3))))
        made.mux(stream.encode())
    Path("bad.mp4").write_text("no film")
    capsys.readouterr()
    assert colorize(models, "film.mov", "bad.mp4", "-o", "out") == 3
    captured = capsys.readouterr()
    assert captured.out.split() == ["out/film.mp4"]
    assert "bad.mp4 cannot be coloured as a video" in captured.err
    assert colorize(models, "film.mov", "-o", "out") == 0
    assert "skipped 1 unchanged since" in capsys.readouterr().err
    before = Path("out/film.mp4").read_bytes()
    assert colorize(models, "film.mov", "-o", "out", "--strength", 0) == 0
    assert Path("out/film.mp4").read_bytes() != before
    Path("other").mkdir()
    Path("other/film.mp4").write_text("of a person")
    assert colorize(models, "film.mov", "-o", "other") == 1
    assert "other/film.mp4 exists" in capsys.readouterr().err
    assert colorize(models, "film.mov", "-o", "named.mp4", "--seed", 3, "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == [{"input": "film.mov", "output": "named.mp4"}]
    shutil.copy("film.mov", "other/film.mov")
    assert colorize(models, "film.mov", "other/film.mov", "-o", "both") == 3
    assert "other/film.mov would be written to both/film.mp4, like film.mov:" in capsys.readouterr().err
    assert colorize(models, "film.mov", photo("a.png"), "-o", "all") == 0
    assert sorted(path.name for path in Path("all").glob("*.*") if path.name[0] != ".") == [
        "a.png",
        "film.mp4",
    ]
    capsys.readouterr()
    assert colorize(models, "film.mov", "-o", "again", "--samples", 2) == 2
    assert "videos cannot use samples" in capsys.readouterr().err


def test_two_kinds_of_output_never_meet() -> None:
    photo("album/a.png")
    photo("album/a-1.png")
    plan = album.plan([Path("album")], Path("out"), False, Options(samples=2))
    assert len(plan.jobs) == 2
    photo("album/a-1-1.png")
    with pytest.raises(UsageError):
        album.plan([Path("album")], photo("file.txt.png").rename("file.txt"), False)
    plan = album.plan([Path("album/a.png"), Path("album/a-1.png")], Path("out"), False)
    assert len(plan.jobs) == 2


def test_an_interrupt_leaves_whole_files_and_a_record(models: Path) -> None:
    for number in range(40):
        photo(f"album/{number:02}.png", (700, 700), seed=number)
    command = ["colorize", "album", "-o", "out", "--model", str(models / "tiny"), "--steps", "1"]
    code = f"from photochrom.commands.cli import main; main({command!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    process.stdout.readline()  # the first file is written
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    written = [path for path in Path("out").iterdir() if path.name != ".photochrom.json"]
    assert 1 <= len(written) < 40
    for path in written:
        with Image.open(path) as image:
            image.load()
    assert sorted(json.loads(Path("out/.photochrom.json").read_text())) == sorted(
        path.name for path in written
    )


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *[("new.bmp", "BMP"), ("new.jp2", "JPEG2000"), ("new.avif", "AVIF"), ("new.jfif", "JPEG")],
        *[("new.jpe", "JPEG"), ("new.TIF", "TIFF"), ("new.ppm", "PPM"), ("new.webp", "WEBP")],
    ],
)
def test_a_file_that_is_named_is_written_as_it_is_named(models: Path, name: str, format: str) -> None:
    photo("a.png")
    assert colorize(models, "a.png", "-o", name) == 0
    with Image.open(name) as picture:
        assert (picture.format, picture.size) == (format, (24, 16))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "-o", "new.gif"), "a photo is written as .jpg, .jpeg, .jpe, .jfif, .png"),
        (("a.png", "-o", "new.mp4"), "a photo is written as .jpg"),
        (("a.mp4", "-o", "new.webm"), "a video is written as .mp4, .m4v, .mov, .mkv; or name a folder"),
        (("a.mp4", "-o", "new.jpg"), "a video is written as .mp4"),
        (("a.png", "b.png", "-o", "new.jpg"), "there may be several to write: name a folder"),
        (("album", "-o", "new.jpg"), "there may be several to write: name a folder"),
    ],
)
def test_a_file_that_cannot_be_written_makes_no_folder_of_its_name(
    models: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.png")
    photo("album/a.png")
    Path("a.mp4").write_text("no film")
    capsys.readouterr()
    assert colorize(models, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not Path(arguments[-1]).exists()


def test_files_that_differ_in_their_suffix_do_not_clash() -> None:
    for name in ("g.png", "g.gif", "g.jp2", "g.pgm", "h.gif", "h.jp2", "i.jfif"):
        Path("album").mkdir(exist_ok=True)
        Path("album", name).touch()
    plan = album.plan([Path("album")], Path("out"), False)
    assert {path.name: output.name for output, path in plan.jobs.items()} == {
        **{"g.png": "g.png", "g.gif": "g.gif.png", "g.jp2": "g.jp2.png", "g.pgm": "g.pgm.png"},
        **{"h.gif": "h.png", "h.jp2": "h.jp2.png", "i.jfif": "i.jfif"},
    }
    assert plan.refused == {}


def test_folders_of_systems_are_passed_over_and_what_cannot_be_read_is_said() -> None:
    for name in (
        "a.j2k",
        "b.jpf",
        "c.pbm",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/d.png",
        "e.CR2",
        "f.psd",
    ):
        path = Path("album", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    plan = album.plan([Path("album")], Path("out"), False)
    assert [path.name for path in plan.jobs.values()] == ["a.j2k", "b.jpf", "c.pbm"]
    assert plan.warnings == [
        "album/e.CR2, album/f.psd cannot be read: save those you want to colour as TIFF, PNG or JPEG"
    ]


def test_names_as_long_as_the_system_allows_are_written(models: Path) -> None:
    name = "写" * 83 + ".png"
    photo("a.png").rename(name)
    assert colorize(models, name, "-o", "out") == 0
    assert Path("out", name).exists()


def test_an_encoder_that_fails_in_any_way_costs_one_photo(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.jpg", "c.png"):
        photo(f"album/{name}")
    for error in (OverflowError("too large"), KeyError(60416), MemoryError(), ZeroDivisionError()):

        def fail(*arguments: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setitem(Image.SAVE, "JPEG", fail)
            capsys.readouterr()
            assert colorize(models, "album", "-o", "out", "--overwrite", "--json") == 3
        told = json.loads(capsys.readouterr().out)
        assert [Path(entry["output"]).name for entry in told["written"]] == ["a.png", "c.png"]
        assert "cannot write out/b.jpg" in told["failed"][0]["reason"]
