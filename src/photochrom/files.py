"""Whole files: each is written atomically, and JSON that is read back is checked against its type."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from photochrom.errors import PhotochromError

PART = ".part"  # how temporary files end
LEFT_SECONDS = 60  # without a change, before a temporary file that nobody holds counts as left over
Kind = TypeVar("Kind")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: a reader sees the old or the new.

    Raises PhotochromError when the disk is full or the folder cannot be written to; the old file stays.
    """
    # A short name, since one as long as the file's own may be too long; "x" makes the file with the rights that the umask leaves.
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
        cause = (
            error if isinstance(error, OSError) else error.__context__
        )  # torch.save raises its own after it
        if not isinstance(cause, OSError):
            raise
        reason = (
            "the disk is full; make room" if cause.errno == errno.ENOSPC else cause.strerror or str(cause)
        )
        raise PhotochromError(f"cannot write {path}: {reason} (what was saved before is kept)") from error
    finally:
        with suppress(OSError):  # where all went well it is gone
            temporary.unlink()


def _put_in_place(temporary: Path, path: Path) -> None:
    """Give a file its name. Windows refuses while another program reads the old file of this name: wait for that one."""
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
    """Lock a file until it is closed, or its process has ended; False where another process holds it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows has no such lock
        return False
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when its process was killed: temporary files that nobody holds."""
    for leftover in folder.glob(f".*{PART}"):
        with suppress(OSError), leftover.open("rb") as file:
            if time.time() - leftover.stat().st_mtime > LEFT_SECONDS and _hold(file):
                leftover.unlink()


def sync_folder(path: Path) -> None:
    """Have a folder's list of files on disk, so that what was just renamed in it survives a power cut."""
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
    """Write a value as indented JSON, atomically; refuses NaN, which is not JSON."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: TypeAdapter[Kind]) -> Kind:
    """What a JSON file holds, checked against its type: the file may be torn, or a stranger's.

    Raises PhotochromError, one line that names the file and the first thing wrong with it; FileNotFoundError where there is none.
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
