"""`photochrom export`: what it says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from photochrom import model_folder
from tests.running import Result, heard

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library, reason=f"{library} is not installed")


def test_it_says_what_it_wrote_and_how_near_to_torch_it_is(exports: tuple[Path, Result, Result]) -> None:
    """The first model had a file already, that was to be replaced; the second was asked for as JSON."""
    exported, first, second = exports
    assert (first.code, first.out) == (0, f"{exported / 'none' / model_folder.ONNX}\n"), first.err
    assert first.err.startswith("onnxruntime and torch agree within ")
    assert first.err.endswith("(photos: 1 x 16x16 and 3 x 8x20)\n")
    assert second.code == 0, second.err
    told = json.loads(second.out)
    assert (told["model"], told["output"]) == ("vgg16", str(exported / "vgg16" / model_folder.ONNX))
    assert [check["photos"] for check in told["differences"]] == [1, 3]
    assert all(0 <= check["largest"] < 1e-4 for check in told["differences"])


def test_wrong_exports_are_refused(exported: Path) -> None:
    taken = exported / "none" / model_folder.ONNX
    before = taken.read_bytes()
    for arguments, message in (
        ((), f"{taken} exists: replace it with --overwrite, or give another -o"),
        (("--format", "gguf"), "unknown format 'gguf': take onnx"),
        (("-o", "model.pt"), "-o model.pt: give a file name that ends in .onnx"),
    ):
        assert heard("export", exported / "none", *arguments) == Result(
            2, "", f"photochrom: error: {message}\n"
        )
    assert taken.read_bytes() == before


def test_nothing_is_written_into_the_package(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", exported)
    message = "none comes with Photochrom: say with -o where to write its ONNX file"
    assert heard("export", "none", "--overwrite") == Result(2, "", f"photochrom: error: {message}\n")
