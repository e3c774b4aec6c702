"""`photochrom evaluate`: tables or JSON, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from photochrom.commands.cli import main
from photochrom.data.pack import Pack
from photochrom.evaluation import evaluate, report
from photochrom.evaluation.candidates import Candidate
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.metrics import Array
from tests.evaluation.making import call, refused


@pytest.fixture
def tiny(models: Path, tmp_path: Path) -> Path:
    """A copy of the model, since an evaluation leaves its figures beside it."""
    return Path(shutil.copytree(models / "tiny", tmp_path / "tiny"))


def test_the_command_prints_tables_or_json(
    tiny: Path,
    pack: Pack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "html", lambda result, photos: "")
    command = ["evaluate", str(tiny), "--data", str(pack.folder), "--steps", "2", "--photos", "4"]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "-o", str(tmp_path / "tables")])
    told = capsys.readouterr()
    tables = told.out
    assert "no FID: it needs --inception-weights" in told.err
    assert "At equal colourfulness" in tables
    assert "4 photos decide little" in tables
    with pytest.raises(SystemExit, match="0"):
        main([*command, "-o", str(tmp_path / "json"), "--json"])
    assert json.loads(capsys.readouterr().out)["rows"]["tiny"]["ab"]["value"] > 0
    with pytest.raises(SystemExit, match="1"):
        main([*command, "-o", str(tmp_path / "json")])
    assert "holds a report: choose another folder with --out, or --overwrite" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_measured(
    tiny: Path,
    pack: Pack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(HeldOut, "at_once", 3)
    measured: list[str] = []
    real = evaluate.measure

    def measure(subject: Candidate, *rest: Any) -> dict[str, Array]:
        measured.append(subject.name)
        if measured.count("tiny") == 2 and subject.name == "tiny":  # in the second of three batches
            os.kill(os.getpid(), signal.SIGINT)
        return real(subject, *rest)

    monkeypatch.setattr(evaluate, "measure", measure)
    command = ("evaluate", tiny, "--data", pack.folder, "--steps", 1, "-o", tmp_path / "out")
    assert call(*command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert measured.count("tiny") == 2
    assert call(*command) == 0
    assert measured.count("tiny") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--photos", ".", "--with", "theirs"], "--with theirs: give a name and a folder"),
        (["--photos", ".", "--with", "a=b", "--with", "a=c"], "--with a is given twice"),
        (["--with", "a=b"], "--with and --at need a folder of photos"),
        (["--photos", ".", "--at", "512", "--with", "a=b"], "--at 512: give 256, or full for both sizes"),
        (["--photos", ".", "--data", "demo", "--with", "a=b"], "--photos FOLDER and --data together"),
        (["--photos", "."], "give at least one model, or --photos FOLDER --with NAME=FOLDER"),
        (["--photos", ".", "--with", "a=b", "--detail", "2"], "detail = 2"),
    ],
)
def test_commands_that_make_no_sense(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(*arguments, capsys=capsys)
