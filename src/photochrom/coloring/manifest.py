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

from photochrom import processes
from photochrom.model_folder import write_json

FILE, LOCK = ".photochrom.json", ".photochrom.lock"
SAVE_SECONDS = 2.0  # of work that nobody remembers after a power cut


class Record:
    """The memory of one folder. how: all that decides about the colours, plain values."""

    def __init__(self, folder: Path, how: Mapping[str, Any]) -> None:
        self.folder = folder
        self.how = hashlib.blake2b(
            json.dumps(how, sort_keys=True, default=str).encode(), digest_size=8
        ).hexdigest()
        self.entries = self._read()
        self.new: dict[str, Any] = {}
        self.saved = time.monotonic()

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # none yet, or torn: then nothing is known to be ours
            return {}

    def _key(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def is_ours(self, output: Path, files: Sequence[Path]) -> bool:
        """Whether those of the files that exist are as an earlier run wrote them."""
        entry = self.entries.get(self._key(output), {})
        written = entry.get("files", {})
        return all(written.get(file.name) == state(file) for file in files if file.exists())

    def is_current(self, photo: Path, output: Path, files: Sequence[Path]) -> bool:
        """Whether photo, model and options are those that the files were made of, and all of them are there."""
        entry = self.entries.get(self._key(output), {})
        made_of = (entry.get("photo"), entry.get("how")) == (state(photo), self.how)
        return made_of and all(file.exists() for file in files) and self.is_ours(output, files)

    def add(self, photo: Path | None, output: Path, files: Sequence[Path]) -> None:
        """Remember what has just been written, at the latest after SAVE_SECONDS on disk; photo: None if it is not all of it."""
        written = {file.name: state(file) for file in files}
        self.new[self._key(output)] = {"photo": photo and state(photo), "how": self.how, "files": written}
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is new, if there is anything. Of several processes each adds its own to what the others wrote."""
        if self.new:
            with FileLock(self.folder / LOCK) if processes.count() > 1 else nullcontext():
                write_json(self.folder / FILE, self._read() | self.new)
            self.new = {}
        self.saved = time.monotonic()


def state(file: Path) -> list[int] | None:
    """Size and time of the last change: what tells a file from itself of earlier."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
