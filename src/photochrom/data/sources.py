"""The sources of photos: a folder, or Tiny ImageNet (its zip, or that zip unpacked).

A source lists its photos without decoding them, and `read_photo` turns one of them into pixels. Nothing is
extracted to disk, and a dangerous archive is refused before any of it is used.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from photochrom.data import reading
from photochrom.data.reading import SUFFIXES, Pixels, is_gray
from photochrom.errors import PhotochromError, UsageError

MAX_ENTRY_BYTES = 64 * 2**20
MAX_ENTRY_RATIO = 200


class LeftOut(NamedTuple):
    """A file that did not become a part of a data set, and why."""

    origin: str
    reason: str  # gray | duplicate | broken | too large | too small | not a photo
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a source, not read yet."""

    origin: str  # path inside the source, with "/"
    category: str | None = None  # key into Source.categories
    held_out: bool = False  # the source itself holds it out for validation


@dataclass(frozen=True)
class Source:
    """All photos of one folder or archive, sorted by origin, so that the order of files does not matter."""

    name: str
    photos: list[Photo]
    categories: dict[str, str]  # key (wnid or folder name) -> name
    left_out: list[LeftOut]  # files that are not photos by their name
    open: Callable[[str], BinaryIO]

    def only(self, wanted: Sequence[str]) -> Source:
        """The part of the source in these categories, each given by key or name, in upper or lower case.

        Raises UsageError for a category that the source does not have, and suggests similar ones.
        """
        chosen: set[str] = set()
        for word in wanted:
            found = {k for k, n in self.categories.items() if word.casefold() in (k.casefold(), n.casefold())}
            if not found:
                known = sorted({*self.categories, *self.categories.values()})
                close = [n for n in known if word.casefold() in n.casefold()]
                close += get_close_matches(word, known, 5, 0.5)
                hint = ", ".join(dict.fromkeys(close or known[:10])) or "no sub-folders"
                raise UsageError(f"{self.name} has no category {word!r}: it has {hint}")
            chosen |= found
        categories = {key: name for key, name in self.categories.items() if key in chosen}
        photos = [photo for photo in self.photos if photo.category in chosen]
        return replace(self, photos=photos, categories=categories)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a folder of photos, or Tiny ImageNet as a zip or unpacked.

    A folder is searched with its sub-folders; those of the first level are the categories. Hidden files and
    folders are skipped. Tiny ImageNet's part `test` is not used, since it has no labels.

    Raises PhotochromError if there is nothing, nothing readable, or an archive that is not safe to read.
    """
    name = path.resolve().name
    if path.is_dir():

        def open_file(entry: str) -> BinaryIO:
            if not (path / entry).is_file():  # opening a named pipe would wait forever
                raise OSError("not a regular file")
            return (path / entry).open("rb")

        names = _list_folder(path)
        yield _tiny_imagenet(name, names, open_file) or _folder(name, names, open_file)
    elif path.is_file():
        with _open_zip(path) as archive:
            lock = threading.Lock()  # ZipFile counts its readers without a lock

            def open_entry(entry: str) -> BinaryIO:
                with lock:
                    return io.BytesIO(archive.read(entry))

            source = _tiny_imagenet(name, archive.namelist(), open_entry)
            if not source:
                raise PhotochromError(f"{path} has no wnids.txt, so it is not Tiny ImageNet: unpack it first")
            yield source
    else:
        raise PhotochromError(f"there is no {path}: name a folder of photos or the Tiny ImageNet zip")


def _list_folder(path: Path) -> list[str]:
    def stop(error: OSError) -> None:
        raise PhotochromError(f"cannot look into {error.filename}: {error.strerror}") from error

    names = []
    for folder, subfolders, files in os.walk(path, onerror=stop):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(path)
        names += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        remedy = "if it is an archive, it may be cut short, so get it again; if not, name a folder of photos"
        raise PhotochromError(f"{path} cannot be read as a zip ({error}): {remedy}") from error
    with archive:
        seen: set[str] = set()
        for info in archive.infolist():
            if fault := _danger(info) or ("is there twice" if info.filename in seen else None):
                entry = f"its entry {info.orig_filename!r} {fault}"
                raise PhotochromError(f"{path} is not safe: {entry}; get the archive from its maker")
            seen.add(info.filename)
        yield archive


def _danger(info: zipfile.ZipInfo) -> str | None:
    parts = info.orig_filename.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or re.match("[A-Za-z]:", parts[0]):
        return "leads out of the archive"
    if "\\" in info.orig_filename or "\0" in info.orig_filename:
        return "has a backslash or a zero byte in its name"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.file_size > MAX_ENTRY_BYTES or info.file_size > MAX_ENTRY_RATIO * info.compress_size:
        return f"claims to unpack from {info.compress_size:,} to {info.file_size:,} bytes"
    return None


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _folder(source: str, names: list[str], open_: Callable[[str], BinaryIO]) -> Source:
    photos = [Photo(name, name.split("/")[0] if "/" in name else None) for name in names if _is_photo(name)]
    if not photos:
        raise PhotochromError(
            f"{source} has no photo among its {len(names)} files (such as .jpg, .png, .webp)"
        )
    categories = {photo.category: photo.category for photo in photos if photo.category}
    others = [LeftOut(name, "not a photo") for name in names if not _is_photo(name)]
    return Source(source, photos, categories, others, open_)


def _tiny_imagenet(source: str, names: list[str], open_: Callable[[str], BinaryIO]) -> Source | None:
    """A source in the layout of Stanford CS231n's tiny-imagenet-200.zip, or None if it has no wnids.txt.

    The layout is wnids.txt, words.txt, train/WNID/images/*.JPEG, val/images/*.JPEG and
    val/val_annotations.txt, at the top or in one folder. Raises PhotochromError if a part of it is missing or
    broken.
    """
    root = next((n.removesuffix("wnids.txt") for n in names if re.fullmatch("([^/]+/)?wnids.txt", n)), None)
    if root is None:
        return None

    def table(name: str, columns: int) -> list[list[str]]:
        try:
            with open_(root + name) as stream:
                rows = [line.split("\t") for line in stream.read().decode().splitlines() if line.strip()]
        except (KeyError, OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            fault = f"its {name} cannot be read ({error})"
            raise PhotochromError(f"{source} looks like Tiny ImageNet, but {fault}: get it again") from error
        if short := next((row for row in rows if len(row) < columns), None):
            raise PhotochromError(
                f"{name} in {source} has a line of fewer than {columns} columns: {short[0]!r}"
            )
        return rows

    words = {wnid: synonyms.split(",")[0].strip() for wnid, synonyms, *_ in table("words.txt", 2)}
    categories = {wnid: words.get(wnid, wnid) for wnid, *_ in table("wnids.txt", 1)}
    labels = {f"val/images/{file}": wnid for file, wnid, *_ in table("val/val_annotations.txt", 2)}
    files = {name.removeprefix(root) for name in names if name.startswith(root) and _is_photo(name)}
    train = {n: m[1] for n in files if (m := re.fullmatch("train/([^/]+)/images/[^/]+", n))}
    if unknown := {*train.values(), *labels.values()} - set(categories):
        raise PhotochromError(f"{source} has photos of {min(unknown)}, which its wnids.txt does not list")
    photos = [Photo(name, train[name]) for name in sorted(train)]
    # A photo that exists only in the annotations will count as broken; one that they lack has no label.
    held_out = {name for name in files if name.startswith("val/images/")} | set(labels)
    photos += [Photo(name, labels.get(name), held_out=True) for name in sorted(held_out)]
    return Source(source, photos, categories, [], lambda name: open_(root + name))


def read_photo(source: Source, photo: Photo, size: int) -> tuple[Pixels, str] | LeftOut:
    """Read one photo as pixels (size, size, 3) uint8 with their checksum, or say why it is left out.

    The shorter side becomes `size`, and the centre square is kept. A photo is gray if it has one channel, or
    three that differ by less than 8 levels at every pixel of the result.
    """
    try:
        with source.open(photo.origin) as stream, reading.undecoded(stream, reading.MAX_PIXELS) as image:
            if min(image.size) < size / 2:
                return LeftOut(photo.origin, "too small", f"{image.width}x{image.height}")
            image.draft(None, (2 * size, 2 * size))  # lets libjpeg decode at down to 1/8 size: much faster
            seen = reading.on_white(reading.develop(image).image)
            if seen.mode == "L":
                return LeftOut(photo.origin, "gray")
            if seen.size != (size, size):
                seen = ImageOps.fit(seen, (size, size), Image.Resampling.LANCZOS)
    except Image.DecompressionBombError as error:
        return LeftOut(photo.origin, "too large", str(error))
    except Exception as error:  # decoders raise a dozen types for broken files
        return LeftOut(photo.origin, "broken", reading.reason_of(error))
    pixels = np.asarray(seen)
    return LeftOut(photo.origin, "gray") if is_gray(pixels) else (pixels, checksum(pixels))


def checksum(pixels: Pixels) -> str:
    """BLAKE2b of the pixels, 8 bytes in hexadecimal: equal only for photos that are equal in every pixel."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()
