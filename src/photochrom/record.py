"""What a folder of coloured photos remembers, so that only what is new or changed is coloured again.

`.photochrom.json` in it holds for each output the state of its photo, how it was made, and the state of the files that were
written. A file that is not in it, or that was changed since, belongs to a person and is never replaced unasked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from photochrom.store import write_json

FILE = ".photochrom.json"


class Record:
    """The memory of one folder. how: all that decides about the colours, plain values."""

    def __init__(self, folder: Path, how: Mapping[str, Any]) -> None:
        self.folder = folder
        self.how = hashlib.blake2b(
            json.dumps(how, sort_keys=True, default=str).encode(), digest_size=8
        ).hexdigest()
        self.changed = False
        try:
            self.entries = dict(json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # none yet, or torn: then nothing is known to be ours
            self.entries = {}

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

    def add(self, photo: Path, output: Path, files: Sequence[Path]) -> None:
        """Remember what has just been written."""
        written = {file.name: state(file) for file in files}
        self.entries[self._key(output)] = {"photo": state(photo), "how": self.how, "files": written}
        self.changed = True

    def save(self) -> None:
        """Write it, if there is anything new."""
        if self.changed:
            write_json(self.folder / FILE, self.entries)
            self.changed = False


def state(file: Path) -> list[int] | None:
    """Size and time of the last change: what tells a file from itself of earlier."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
