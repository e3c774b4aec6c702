"""What a folder of coloured photos remembers, so that only what is new or changed is coloured again.

`.photochrom.json` in it holds for each output the state of its photo, how it was made, and the state of the files that were
written. A file that is not in it, or that was changed since, belongs to a person and is never replaced unasked.
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
SAVE_SECONDS = 2.0  # of work that nobody remembers after a power cut


class Entry(TypedDict):
    """How one output came about."""

    photo: list[int] | None
    how: str
    files: dict[str, list[int] | None]


ENTRIES = TypeAdapter(dict[str, Entry])


class Record:
    """The memory of one folder. how: all that decides about the colours, plain values."""

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
        except PhotochromError as error:  # then nothing is known to be ours
            self.problem = f"{error}: photos that were coloured before are left alone"
            return {}

    def _key(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def is_ours(self, output: Path, files: Sequence[Path]) -> bool:
        """Whether those of the files that exist are as an earlier run wrote them."""
        entry = self.entries.get(self._key(output))
        written = entry["files"] if entry else {}
        return all(written.get(file.name) == state(file) for file in files if file.exists())

    def is_current(self, photo: Path, output: Path, files: Sequence[Path]) -> bool:
        """Whether photo, model and options are those that the files were made of, and all of them are there."""
        entry = self.entries.get(self._key(output))
        made_of = entry is not None and (entry["photo"], entry["how"]) == (state(photo), self.how)
        return made_of and all(file.exists() for file in files) and self.is_ours(output, files)

    def add(self, photo: Path | None, output: Path, files: Sequence[Path]) -> None:
        """Remember what has just been written, at the latest after SAVE_SECONDS on disk; photo: None if it is not all of it."""
        written = {file.name: state(file) for file in files}
        self.new[self._key(output)] = {
            "photo": state(photo) if photo else None,
            "how": self.how,
            "files": written,
        }
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is new, if there is anything. Of several processes each adds its own to what the others wrote."""
        if self.new:
            with FileLock(self.folder / LOCK) if processes.count() > 1 else nullcontext():
                write_json(self.folder / FILE, self._read() | self.new)
            self.new = {}
        self.saved = time.monotonic()


def how_made(options: Options, model: Path | None) -> dict[str, Any]:
    """What decides about the colours, pictures and model by the state of their files.

    Its form is that of earlier versions, or their albums would be coloured once more.
    """
    values = dict(options)
    wanted = [values.pop(name) for name in ("samples", "average", "uncertainty")]
    pictures = (values[name] for name in ("hints", "keep_gray", "like"))
    files = [model, *(each for each in pictures if isinstance(each, Path))]
    return {**values, "wanted": wanted, "files": [state(file) for file in files if file]}


def state(file: Path) -> list[int] | None:
    """Size and time of the last change: what tells a file from itself of earlier."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
