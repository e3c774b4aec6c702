"""Finds photos that look like training photos of a model, or of one of its ancestors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from photochrom.config import LearntFrom
from photochrom.data.dataset import find, names
from photochrom.data.lookalikes import MOST, Flags, Photos, Progress, seen_in
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError


def still_here(learnt_from: Iterable[LearntFrom], data_dir: Path, known: Collection[str] = ()) -> list[Pack]:
    """The data sets that are still under `data_dir` and small enough to search for look-alikes, each once.

    A data set is recognised by its checksum, whatever its name. known: checksums of data sets to skip.
    """
    found: dict[str, Pack] = {}
    for each in learnt_from:
        if each.checksum is None or each.checksum in found or each.checksum in known:
            continue
        pack = _with_checksum(each.checksum, each.name, data_dir)
        if pack is not None and len(pack.split) <= MOST:
            found[each.checksum] = pack
    return list(found.values())


def learnt(photos: Photos, pack: Pack, progress: Progress = lambda done, total: None) -> Flags:
    """Which photos (N,S,S,3) look like a training photo of a data set. progress: see `Pack.patterns`."""
    if pack.size < photos.shape[1]:  # finer detail, which the data set lacks, would make them differ
        smaller = (Image.fromarray(photo).resize((pack.size, pack.size)) for photo in photos)
        photos = np.stack([np.asarray(each) for each in smaller])
    return seen_in(photos, pack.photos, pack.split == "train", pack.patterns(progress))


def _with_checksum(checksum: str, name: str, data_dir: Path) -> Pack | None:
    there = names(data_dir)
    for place in sorted(there, key=lambda place: place != name):  # usually it still has its name
        try:
            found = find(place, data_dir)
        except PhotochromError:
            continue
        if isinstance(found, Pack) and found.checksum == checksum:
            return found
    return None
