"""Every odd file is coloured right, or refused in one line: by `Colorizer`, in an album, and by the API.

How a file was made (`make_odd_files`) says what is right; ImageMagick, if installed, has a second opinion.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.photo import open_gray
from photochrom.errors import PhotochromError
from photochrom.model_folder import ModelFolder
from tests.make_odd_files import Odd, odd_files
from tests.making import make_model
from tests.programs import imagemagick
from tests.running import call

ODD = odd_files()
GOOD = [odd for odd in ODD if not odd.refused]
BAD = [odd for odd in ODD if odd.refused]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, new_values: Callable[[], dict[str, Any]]) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(ModelFolder(folder / "tiny"), new_values(), 0)
    return folder


def check(picture: Image.Image, odd: Odd, more: float = 1.0) -> None:
    """The picture has the odd file's luma, where it is not fully transparent, and its alpha."""
    assert odd.luma is not None
    assert picture.size == odd.luma.shape[::-1]
    seen = np.ones(odd.luma.shape, bool) if odd.alpha is None else odd.alpha > 0
    differences = np.abs(np.asarray(picture.convert("L")) - odd.luma)[seen]
    assert differences.max() <= odd.within + more
    if odd.alpha is None:
        assert "A" not in picture.getbands()
    else:
        assert np.abs(np.asarray(picture.getchannel("A")) - odd.alpha).max() <= 1


@pytest.mark.parametrize("odd", GOOD, ids=lambda odd: odd.name)
def test_luma_is_as_it_was_made(odd: Odd) -> None:
    photo = open_gray(odd.content)
    picture = photo.luma
    if photo.alpha:
        picture = Image.merge("LA", (photo.luma, photo.alpha))
    check(picture, odd, more=0)
    assert all("\n" not in note for note in photo.notes)


@pytest.mark.parametrize("odd", BAD, ids=lambda odd: odd.name)
def test_what_cannot_be_read_is_refused_in_one_line(odd: Odd, tmp_path: Path) -> None:
    path = tmp_path / odd.name
    path.write_bytes(odd.content)
    for given, name in ((odd.content, "the given photo"), (path, str(path))):
        with pytest.raises(PhotochromError, match=odd.refused) as caught:
            open_gray(given)
        assert str(caught.value).startswith(f"{name} cannot be read as a photo (")
        assert "\n" not in str(caught.value)
        assert re.search(
            r": (save it again|colour what|allow them|develop it|pip install)", str(caught.value)
        )
        assert len(str(caught.value)) < 400


def test_the_colorizer_takes_them_all_at_once(models: Path) -> None:
    colorizer = Colorizer.load("tiny", models, "cpu")
    for odd, picture in zip(GOOD, colorizer([odd.content for odd in GOOD], steps=1), strict=True):
        check(picture, odd)


def test_an_album_of_them_is_coloured_to_its_end(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, odd in enumerate(ODD):
        folder = Path("album", str(number))  # so that no two have one name
        folder.mkdir(parents=True)
        (folder / odd.name).write_bytes(odd.content)
    flags = ("--models", models, "--model", "tiny", "--steps", 1, "--average", 1)
    assert call("colorize", "album", "-o", "out", "--json", *flags) == 3
    told = json.loads(capsys.readouterr().out)
    written = {Path(entry["input"]).parent.name: Path(entry["output"]) for entry in told["written"]}
    failed = {Path(entry["input"]).parent.name: entry["reason"] for entry in told["failed"]}
    for number, odd in enumerate(ODD):
        if odd.refused:
            assert re.search(odd.refused, failed[str(number)])
            continue
        output = written[str(number)]
        lossy = output.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
        with Image.open(output) as picture:
            check(picture, odd, more=6 if lossy else 1)


def test_imagemagick_sees_the_same(tmp_path: Path) -> None:
    """A second opinion on what these files are. Leaves out what ImageMagick 6 and 7 read differently."""
    convert = imagemagick()
    if not convert:
        pytest.skip("ImageMagick is not installed")
    otherwise = re.compile(
        r"png-turned|-i[124]-|u4-|f4-(255|65535|holes)|small-copy|wide-range|icc-|heic|avif|jp[2xf]|j2[kc]|jpc|webp|写"
    )
    asked = [odd for odd in GOOD if not otherwise.search(odd.name) and odd.name.isascii()]
    for number, odd in enumerate(asked):
        path = tmp_path / f"{number}{Path(odd.name).suffix.lower()}"
        path.write_bytes(odd.content)
        command = [convert, f"{path}[0]", "-auto-orient", "-alpha", "off", "-depth", "8", "rgb:-"]
        answer = subprocess.run(command, capture_output=True, check=False).stdout
        assert odd.luma is not None
        height, width = odd.luma.shape
        assert len(answer) == height * width * 3, odd.name
        levels = np.frombuffer(answer, np.uint8).reshape(height, width, 3) @ (0.299, 0.587, 0.114)
        seen = np.ones(levels.shape, bool) if odd.alpha is None else odd.alpha > 0
        assert np.abs(levels - odd.luma)[seen].max() <= odd.within + 1.5, odd.name
    assert len(asked) > 150
