"""Which photos a model may have learnt from: those that look like a training photo of its data set, or of one before it."""

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
    """Those of the data sets that are under `data_dir` and in which look-alikes can be sought, each once.

    A data set is the same if its checksum is, whatever its name. known: checksums of those that need not be looked through.
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
    """Which photos (N,S,S,3) look like a training photo of a data set: (N,). progress: see `Pack.patterns`."""
    if pack.size < photos.shape[1]:  # detail that the data set has not kept would tell them apart
        smaller = (Image.fromarray(photo).resize((pack.size, pack.size)) for photo in photos)
        photos = np.stack([np.asarray(each) for each in smaller])
    return seen_in(photos, pack.photos, pack.split == "train", pack.patterns(progress))


def _with_checksum(checksum: str, name: str, data_dir: Path) -> Pack | None:
    there = names(data_dir)
    for place in sorted(there, key=lambda place: place != name):  # most often it still has its name
        try:
            found = find(place, data_dir)
        except PhotochromError:
            continue
        if isinstance(found, Pack) and found.checksum == checksum:
            return found
    return None
