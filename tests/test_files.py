"""Whole files: the names and the rights that they are written with."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from photochrom import files
from photochrom.errors import PhotochromError
from photochrom.files import PART, write_bytes


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_who_may_read_a_file_is_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a.png", b"private")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "写" * 83 + ".png"])  # 255 and 253 bytes
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"long")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(PhotochromError, match=r"cannot write .*a\.png"):
            write_bytes(path, b"")
    assert not list(tmp_path.rglob(f"*{PART}"))


@pytest.mark.parametrize("refusals", [2, 9])
def test_a_file_that_another_program_reads_is_waited_for(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where nobody replaces an open file."""
    left = [PermissionError(13, "in use")] * refusals
    replace = os.replace

    def refusing(source: Path, target: Path) -> None:
        if left:
            raise left.pop()
        replace(source, target)

    windows = ModuleType("os")
    windows.__dict__.update(vars(os), name="nt", replace=refusing)
    monkeypatch.setattr(files, "os", windows)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path = tmp_path / "history.json"
    path.write_bytes(b"old")
    if refusals == 2:
        write_bytes(path, b"new")
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(PhotochromError, match=r"cannot write .*history\.json: in use"):
            write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["history.json"]
