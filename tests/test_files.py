"""Files are written whole or not at all; their names, their rights, and errors if nothing can be written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest

from photochrom import files
from photochrom.errors import PhotochromError


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_who_may_read_a_file_is_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write_bytes(tmp_path / "a.png", b"private")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "写" * 83 + ".png"])  # 255 and 253 bytes
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str) -> None:
    files.write_bytes(tmp_path / name, b"long")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(PhotochromError, match=r"cannot write .*a\.png"):
            files.write_bytes(path, b"")
    assert not list(tmp_path.rglob(f"*{files.PART}"))


def failing(error: BaseException) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        file.flush()
        raise error

    return write


def test_a_file_is_written_whole_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"first")
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644  # not the 0600 of a temporary file: others may read a model


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), RuntimeError("no")], ids=repr)
def test_a_failure_in_the_middle_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with pytest.raises(type(error)):
        files.write_atomically(path, failing(error))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_told_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with pytest.raises(
        PhotochromError, match=r"^cannot write .*file: the disk is full; make room .*stays\)$"
    ):
        files.write_atomically(path, failing(OSError(errno.ENOSPC, "No space left on device")))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"cannot write .*No such file or directory"):
        files.write_bytes(tmp_path / "gone" / "file", b"")


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"loss": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 0.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 0.5}


def test_what_is_being_written_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LEFT_SECONDS", -1)

    def write(file: Any) -> None:
        file.write(b"film")
        files.remove_leftovers(tmp_path)

    files.write_atomically(tmp_path / "a.mp4", write)
    assert (tmp_path / "a.mp4").read_bytes() == b"film"


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
        files.write_bytes(path, b"new")
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(PhotochromError, match=r"cannot write .*history\.json: in use"):
            files.write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["history.json"]
