"""Photos of any size in a folder: which are measured on, and models that colour them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photochrom.errors import Interrupted, PhotochromError
from photochrom.evaluation.at_full_size import model_at_full_size
from photochrom.evaluation.folder import Folder
from tests.evaluation.making import (
    COUNT,
    LUMA,
    call,
    chroma_times,
    colored_folder,
    refused,
    run_on_folder,
    soft_photo,
    value,
)

pytestmark = pytest.mark.usefixtures("small")

# --- Models -------------------------------------------------------------------------------------------------


def test_a_model_is_measured_as_colorize_writes(models: Path, tmp_path: Path) -> None:
    place = colored_folder(tmp_path / "photos")
    model = ("--model", models / "tiny", "--steps", 2, "--strength", 1.3)
    assert call("colorize", place, "-o", tmp_path / "theirs", *model) == 0
    where = ("--photos", place, "--with", f"theirs={tmp_path / 'theirs'}", "--vgg-photos", 0)
    how = ("--steps", 2, "--strength", 1.3, "-o", tmp_path / "out")
    assert call("evaluate", models / "tiny", *where, *how) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["subjects"]["tiny"]["average"] == 4
    for measure in ("ab", "ciede2000", "psnr", "colorfulness", "ssim"):
        ours, theirs = (value(result, row, measure) for row in ("tiny", "theirs"))
        assert ours == pytest.approx(theirs, rel=1e-3), measure  # bfloat16 rounds other batches otherwise
    assert value(result, "tiny", "ab") > 1
    assert "seconds_per_photo" in result["rows"]["tiny"]
    assert not {"seconds_per_photo", "diversity"} & set(result["rows"]["theirs"])
    assert list(result["rows"])[2:] == ["true photos", "chroma ceiling", "mean colour", "gray"]
    assert value(result, "chroma ceiling", "ab") < 0.5 * value(result, "gray", "ab")
    assert value(result, "mean colour", "ab") < value(result, "gray", "ab")


def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "at_once", 2)
    place, half = colored_folder(tmp_path / "photos"), colored_folder(tmp_path / "half", chroma_times(0.5))
    tiny = model_at_full_size(models / "tiny", models, steps=2)

    def stop(done: int, total: int, text: str) -> None:
        if done == 4:
            raise Interrupted("enough", 2)

    expected = run_on_folder(place, {"half": half}, tmp_path / "whole", [tiny])
    with pytest.raises(Interrupted):
        run_on_folder(place, {"half": half}, tmp_path / "halves", [tiny], progress=stop)
    assert len(list((tmp_path / "halves" / "partial").glob("*.npz"))) == 1
    found = run_on_folder(place, {"half": half}, tmp_path / "halves", [tiny])
    for each in (expected, found):
        del each["rows"]["tiny"]["seconds_per_photo"]
    assert found == expected
    with pytest.raises(Interrupted):
        run_on_folder(place, {"half": half}, tmp_path / "changed", [tiny], progress=stop)
    Image.fromarray(soft_photo(0)).save(half / "photo 0.png")  # the tool was run again
    with pytest.raises(PhotochromError, match="unfinished evaluation with other settings"):
        run_on_folder(place, {"half": half}, tmp_path / "changed", [tiny])


# --- What can be wrong --------------------------------------------------------------------------------------


def test_gray_and_broken_photos_are_left_out_and_counted(true: Path) -> None:
    levels = (soft_photo(9).astype(float) @ LUMA).astype(np.uint16)
    Image.fromarray(levels.astype(np.uint8)).save(true / "gray.png")
    Image.fromarray(levels * 257).save(true / "gray16.png")
    (true / "broken.jpg").write_bytes((true / "photo 0.jpg").read_bytes()[:300])
    found = Folder(true)
    reasons = dict(found.left_out)
    assert set(reasons) == {"gray.png", "gray16.png", "broken.jpg"}
    assert reasons["gray.png"] == reasons["gray16.png"] == "it is gray itself"
    assert "cannot be read as a photo" in reasons["broken.jpg"]
    assert len(found) == found.facts["photos"] == COUNT
    assert len(found.facts["left_out"]) == 3
    assert any("gray.png" in note and "gray itself" in note for note in found.notes())


def test_few_photos_are_a_part_of_many(true: Path) -> None:
    assert Folder(true, count=2).origins() == Folder(true).origins()[:2]
    assert Folder(true, count=2).facts["checksum"] != Folder(true).facts["checksum"]


def test_folders_without_photos_are_refused(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no photo")
    tool = ("--with", f"tool={empty}")
    assert f"{empty} has no photo in it" in refused("--photos", empty, *tool, capsys=capsys)
    assert f"{empty} has no photo in it" in refused("--photos", true, *tool, capsys=capsys)
    assert "there is no folder nowhere" in refused("--photos", "nowhere", *tool, capsys=capsys)


def test_gray_photos_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gray = colored_folder(tmp_path / "gray", chroma_times(0.0))
    said = refused("--photos", gray, "--with", f"tool={gray}", capsys=capsys)
    assert f"none of the {COUNT} files in {gray} can be measured on" in said
    assert "it is gray itself" in said
