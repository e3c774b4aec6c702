"""Which photos of a data set a model may have learnt from: its own, or a model before it, on another data set or split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from photochrom.config import LearntFrom
from photochrom.data.dataset import DataSet, find, names
from photochrom.data.lookalikes import MOST, seen_in
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError


class Seen(NamedTuple):
    """What is known of the photos that are to be measured on."""

    indices: npt.NDArray[np.int64]  # photos that look like one that was learnt from
    compared: frozenset[str]  # checksums of the data sets that were looked through


def seen_before(
    learnt_from: Iterable[LearntFrom], pack: DataSet, indices: npt.NDArray[np.int64], data_dir: Path
) -> Seen:
    """Which of a data set's photos look like a training photo of one of these data sets, if they are still here.

    A data set is the same if its checksum is, wherever it lies; the very one that is measured on keeps its parts apart.
    """
    seen = np.zeros(len(indices), bool)
    compared = {pack.checksum}
    for each in learnt_from:
        if each.checksum is None or each.checksum in compared:
            continue
        other = _with_checksum(each.checksum, each.name, data_dir)
        if other is None or not isinstance(pack, Pack) or len(other.split) > MOST:
            continue
        seen |= seen_in(pack.photos[indices], other.photos, other.split == "train")
        compared.add(each.checksum)
    return Seen(indices[seen], frozenset(compared))


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
