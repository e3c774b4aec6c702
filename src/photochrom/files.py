"""Writes files atomically, and checks JSON files against their type when it reads them."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from photochrom.errors import PhotochromError

PART = ".part"  # suffix of temporary files
LEFT_SECONDS = 60  # a temporary file that is unlocked and unchanged for so long is a leftover
Kind = TypeVar("Kind")


def printable(text: str) -> str:
    """The text. Raises ValueError if it has control characters: a terminal would obey a stranger's."""
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text


Printable = Annotated[str, AfterValidator(printable)]


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file, then move it to `path`, so that readers see the old file or the new.

    Raises PhotochromError if the disk is full or the folder not writable; then the old file stays.
    """
    # The name is short, since the file's own may already be as long as allowed. Mode "x" respects the umask.
    temporary = path.parent / f".{secrets.token_hex(8)}{PART}"
    try:
        with temporary.open("x+b") as file:
            _hold(file)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save replaces an OSError by its own error.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        reason = (
            "the disk is full; make room" if cause.errno == errno.ENOSPC else cause.strerror or str(cause)
        )
        raise PhotochromError(f"cannot write {path}: {reason} (what was saved before stays)") from error
    finally:
        with suppress(OSError):  # after success it is gone
            temporary.unlink()


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file. Windows does not replace a file that another program reads, so this waits for it."""
    for wait in (0.01, 0.1, 1.0):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if os.name == "posix":
                raise
            time.sleep(wait)
    os.replace(temporary, path)


def _hold(file: IO[bytes]) -> bool:
    """Lock a file until it is closed or its process ends. False if another process holds it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows has no such lock
        return False
    return True


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that killed processes left in a folder while in `write_atomically`."""
    for leftover in folder.glob(f".*{PART}"):
        with suppress(OSError), leftover.open("rb") as file:
            if time.time() - leftover.stat().st_mtime > LEFT_SECONDS and _hold(file):
                leftover.unlink()


def sync_folder(path: Path) -> None:
    """Force a folder's list of files to disk, so that a rename in it survives a power failure."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises ValueError for NaN, which is not JSON."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: TypeAdapter[Kind]) -> Kind:
    """Read a JSON file and check it against its type, since it may be damaged or a stranger's.

    Raises PhotochromError with the file and the first fault, and FileNotFoundError if there is no file.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PhotochromError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"{part}: " for part in (".".join(map(str, first["loc"])),) if part)
        raise PhotochromError(f"{path} cannot be read: {place}{first['msg']}") from None
