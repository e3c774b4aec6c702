"""A data set, whatever holds it: what training and evaluation ask of one, and how one is found."""

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

SCHEMES = ("https", "http")  # of addresses that may be opened, where a person typed one


class DataSet(Protocol):
    """What training and evaluation ask of a data set: a `Pack`, or `photochrom.data.shards.Shards`."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str:
        """What finds it again, as a person typed it: its name under the folder of data sets, its folder, or its address."""

    @property
    def size(self) -> int: ...
    @property
    def checksum(self) -> str: ...

    def count(self, split: str) -> int:
        """How many photos a split has."""

    def drawn(self, split: str, count: int | None, seed: int) -> Indices:
        """The indices of `count` photos of a split (None: all), drawn by seed; any first part of them is a fair one."""

    def photos_of_step(self, seed: int, step: int, batch_size: int, part: slice = slice(None)) -> Indices:
        """The indices of a training step's photos, or of a part of them."""

    def rgb(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The photos at B indices, contiguous float32 (B, 3, S, S) in [0, 1]."""

    def origins(self, indices: npt.ArrayLike) -> list[str]:
        """Where the photos at B indices come from: paths inside the source."""

    def summary(self) -> dict[str, Any]:
        """What there is to know of a data set, as numbers, strings and dicts; `bytes` is its size on disk."""

    def to_look_at(self) -> Pack:
        """The data set, or as much of it as a contact sheet is made from."""


def names(data_dir: Path) -> list[str]:
    """The names of the data sets under `data_dir`, sorted."""
    return sorted({index.parent.name for file in INDEX_FILES for index in data_dir.glob(f"[!.]*/{file}")})


def find(place: str, data_dir: Path, *, typed: bool = False) -> DataSet:
    """Open the data set of this name under `data_dir`, or in this folder, or its shards at this address (`https://...`).

    typed: whether a person gave `place` for this. Only then is an address opened: one that stands in a model's
    configuration or in a recipe may be a stranger's. A missing `demo` is made first.

    Raises PhotochromError for an unknown name, listing those there are, and for an address that is not to be opened.
    """
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", place):
        if scheme[1] not in SCHEMES or not place.isprintable():
            raise PhotochromError(
                f"{place!r} is no address of shards: give one of {' or '.join(f'{s}://' for s in SCHEMES)}, or a folder"
            )
        if not typed:
            raise PhotochromError(
                f"a file names {place!r}, and no file's address is opened: if you trust it, add --data {shlex.quote(place)}"
            )
        return Shards.open(place)
    if (data_dir / place).is_dir():
        return open_data(data_dir / place, place)
    if place == "demo":
        return Pack.open(make_demo(data_dir / "demo").folder, place)
    if Path(place).is_dir():
        return open_data(Path(place), place)
    there = ", ".join(sorted({*names(data_dir), "demo"}))
    mend = f"there is {there}; 'photochrom data import' makes another"
    raise PhotochromError(f"there is no data set {place!r} in {data_dir}: {mend}")


def open_data(folder: Path, place: str | None = None) -> DataSet:
    """Open a folder as what it holds, a packed data set or shards. place: what found it (default: the folder).

    Raises PhotochromError for a folder that holds neither, or something torn.
    """
    if not (folder / "shards.json").is_file() and not any(folder.glob("*.tar")):
        return Pack.open(folder, place)
    return Shards.open(folder, place)
