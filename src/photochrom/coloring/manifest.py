"""Remembers how the photos of a folder were coloured, so that a second run colours only new or changed ones.

The folder's `.photochrom.json` holds, for each output, the state of its photo, a digest of model and options,
and the state of the files written. A file that it does not list, or that has changed since, belongs to the
user; only --overwrite replaces it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from photochrom import processes
from photochrom.coloring.options import Options
from photochrom.errors import PhotochromError
from photochrom.files import read_json, write_json

FILE, LOCK = ".photochrom.json", ".photochrom.lock"
SAVE_SECONDS = 2.0  # a power cut loses the record of at most this much work


class Entry(TypedDict):
    """How one output was made."""

    photo: list[int] | None  # state of the input
    how: str  # digest of model and options
    files: dict[str, list[int] | None]  # state of each file written, by name


ENTRIES = TypeAdapter(dict[str, Entry])


class Record:
    """The record of one folder. how: all that determines the colours, as plain values."""

    def __init__(self, folder: Path, how: Mapping[str, Any]) -> None:
        self.folder = folder
        self.how = hashlib.blake2b(
            json.dumps(how, sort_keys=True, default=str).encode(), digest_size=8
        ).hexdigest()
        self.problem: str | None = None
        self.entries = self._read()
        self.new: dict[str, Entry] = {}
        self.saved = time.monotonic()

    def _read(self) -> dict[str, Entry]:
        try:
            return read_json(self.folder / FILE, ENTRIES)
        except FileNotFoundError:
            return {}
        except PhotochromError as error:  # then we know no file as ours
            self.problem = f"{error}: photos that are already coloured are left alone"
            return {}

    def _key(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def is_ours(self, output: Path, files: Sequence[Path]) -> bool:
        """Whether all of the files that exist are unchanged since an earlier run wrote them."""
        entry = self.entries.get(self._key(output))
        written = entry["files"] if entry else {}
        return all(written.get(file.name) == state(file) for file in files if file.exists())

    def is_current(self, photo: Path, output: Path, files: Sequence[Path]) -> bool:
        """Whether all files exist, unchanged, and were made from this photo, model and options."""
        entry = self.entries.get(self._key(output))
        made_of = entry is not None and (entry["photo"], entry["how"]) == (state(photo), self.how)
        return made_of and all(file.exists() for file in files) and self.is_ours(output, files)

    def add(self, photo: Path | None, output: Path, files: Sequence[Path]) -> None:
        """Remember files just written; save every SAVE_SECONDS. photo: None if some files are missing."""
        written = {file.name: state(file) for file in files}
        self.new[self._key(output)] = {
            "photo": state(photo) if photo else None,
            "how": self.how,
            "files": written,
        }
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write new entries, if any. Each of several processes adds its own to those of the others."""
        if self.new:
            with FileLock(self.folder / LOCK) if processes.count() > 1 else nullcontext():
                write_json(self.folder / FILE, self._read() | self.new)
            self.new = {}
        self.saved = time.monotonic()


def how_made(options: Options, model: Path | None) -> dict[str, Any]:
    """Everything that determines the colours; the state of its file stands for a picture or the model.

    Its form must stay, or albums of earlier versions would be coloured once more.
    """
    values = dict(options)
    wanted = [values.pop(name) for name in ("samples", "average", "uncertainty")]
    pictures = (values[name] for name in ("hints", "keep_gray", "like"))
    files = [model, *(each for each in pictures if isinstance(each, Path))]
    return {**values, "wanted": wanted, "files": [state(file) for file in files if file]}


def state(file: Path) -> list[int] | None:
    """Size in bytes and time of the last change in nanoseconds, or None without the file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
