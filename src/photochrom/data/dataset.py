"""The interface of a data set, and how to find and open one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from photochrom.data.demo import make_demo
from photochrom.data.pack import INDEX_FILES, Pack
from photochrom.data.shards import Shards
from photochrom.errors import PhotochromError

if TYPE_CHECKING:
    import torch

    from photochrom.randomness import Indices

SCHEMES = ("https", "http")  # the addresses that may be opened if the user typed them


class DataSet(Protocol):
    """What training and evaluation need from a data set: a `Pack`, or `photochrom.data.shards.Shards`."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str:
        """Where it was found, as the user typed it: a name in the folder of data sets, a folder or URL."""

    @property
    def size(self) -> int: ...
    @property
    def checksum(self) -> str: ...

    def count(self, split: str) -> int:
        """The number of photos in a split."""

    def drawn(self, split: str, count: int | None, seed: int) -> Indices:
        """The indices of `count` photos of a split (None: all), in an order drawn by seed."""

    def photos_of_step(self, seed: int, step: int, batch_size: int, part: slice = slice(None)) -> Indices:
        """The indices of the photos of a training step, or of a part of them."""

    def rgb(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The photos at B indices, contiguous float32 (B, 3, S, S) in [0, 1]."""

    def origins(self, indices: npt.ArrayLike) -> list[str]:
        """The paths, inside the source, of the photos at B indices."""

    def summary(self) -> dict[str, Any]:
        """Facts about the data set, as numbers, strings and dicts; `bytes` is its size on disk."""

    def to_look_at(self) -> Pack:
        """The data set, or a part of it that is large enough for a contact sheet."""


def names(data_dir: Path) -> list[str]:
    """The names of the data sets under `data_dir`, sorted."""
    return sorted({index.parent.name for file in INDEX_FILES for index in data_dir.glob(f"[!.]*/{file}")})


def find(place: str, data_dir: Path, *, typed: bool = False) -> DataSet:
    """Open a data set by its name under `data_dir`, its folder, or the address of its shards (`https://...`).

    typed: whether the user typed `place`. Only then is an address opened, since an address in a model's
    configuration or a recipe may be a stranger's. A missing `demo` is made first.

    Raises PhotochromError for an unknown name, listing the known ones, and for an address that must not be
    opened.
    """
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", place):
        if scheme[1] not in SCHEMES or not place.isprintable():
            raise PhotochromError(
                f"{place!r} cannot be opened: give a folder, or an address with "
                f"{' or '.join(f'{s}://' for s in SCHEMES)}"
            )
        if not typed:
            raise PhotochromError(
                f"{place!r} is an address from a file, which is not opened: if you trust it, add --data "
                f"{shlex.quote(place)}"
            )
        return Shards.open(place)
    if (data_dir / place).is_dir():
        return open_data(data_dir / place, place)
    if place == "demo":
        return Pack.open(make_demo(data_dir / "demo").folder, place)
    if Path(place).is_dir():
        return open_data(Path(place), place)
    there = ", ".join(sorted({*names(data_dir), "demo"}))
    remedy = f"choose one of {there}, or make one with 'photochrom data import'"
    raise PhotochromError(f"there is no data set {place!r} in {data_dir}: {remedy}")


def open_data(folder: Path, place: str | None = None) -> DataSet:
    """Open a folder that holds a packed data set or shards. place: see `DataSet.place` (default: the folder).

    Raises PhotochromError for a folder that holds neither, or a damaged data set.
    """
    if not (folder / "shards.json").is_file() and not any(folder.glob("*.tar")):
        return Pack.open(folder, place)
    return Shards.open(folder, place)
