"""Held-out photos of a data set, as the photos of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from photochrom.config import LearntFrom
from photochrom.data.dataset import DataSet
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.at_size import references
from photochrom.evaluation.candidates import Batch, Candidate
from photochrom.evaluation.seen import learnt, still_here

SMALLEST = 16  # pixels, of which VGG16's four halvings leave one


class HeldOut:
    """Photos of one split of a data set, at its size. See `evaluate.Photos`."""

    at_once = 32

    def __init__(
        self,
        pack: DataSet,
        split: str = "validation",
        count: int | None = None,
        seed: int = 0,
        learnt_from: Iterable[LearntFrom] = (),
        data_dir: Path = Path("data"),
    ) -> None:
        """Select photos.

        count: the first so many of a fixed random order (None: all). seed: of the colourings. learnt_from:
        data sets of training; photos that look like their training photos are left out, if the data set is in
        `data_dir`.

        Raises UsageError for a count or seed out of range. Raises PhotochromError if the split has no photos,
        if none is left, or if they are too small for VGG16.
        """
        if count is not None and count < 1:
            raise UsageError(f"photos {count}: give 1 or more")
        if seed < 0:
            raise UsageError(f"seed = {seed}: give 0 or more")
        if pack.size < SMALLEST:
            raise PhotochromError(
                f"photos of {pack.size} pixels are too small for VGG16: import them with --size {SMALLEST}"
            )
        if not pack.count(split):
            raise PhotochromError(
                f"data set {pack.name!r} has no {split} photos: import it again with more photos or a larger "
                f"--{split}"
            )
        self.pack, self.seed = pack, seed
        indices = pack.drawn(split, None, 0)
        training_sets: list[Pack] = []
        seen = np.zeros(len(indices), bool)
        if isinstance(pack, Pack):
            training_sets = still_here(
                learnt_from, data_dir, {pack.checksum}
            )  # its own splits share no photo
            for each in training_sets:
                seen |= learnt(pack.photos[indices], each)
        self.compared = frozenset({pack.checksum, *(each.checksum for each in training_sets)})
        self.indices = indices[~seen][:count]
        if not len(self.indices):
            raise PhotochromError(
                f"a model or its ancestor was trained on all {split} photos of {pack.name!r}: take another "
                "--data"
            )
        self.facts: dict[str, Any] = {
            "name": pack.name,
            "checksum": pack.checksum,
            "split": split,
            "size": pack.size,
            "photos": len(self.indices),
        }
        if seen.any():
            self.facts["seen"] = int(seen.sum())

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, places: Sequence[int]) -> Batch:
        """See `evaluate.Photos`."""
        indices = self.indices[list(places)]
        return Batch(self.pack.rgb(indices), photo_seeds(indices, self.seed))

    def origins(self) -> list[str]:
        """See `evaluate.Photos`."""
        return self.pack.origins(self.indices)

    def shapes(self) -> list[float]:
        """See `evaluate.Photos`."""
        return [1.0] * len(self)

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """See `evaluate.Photos`. True chroma at the candidates' scales shows the best that they can reach."""
        return references(self.pack, sorted({each.facts.get("chroma_scale", 1) for each in candidates}))


def photo_seeds(indices: npt.NDArray[np.int64], seed: int) -> list[int]:
    """One seed per photo, so that no single lucky noise favours all of them."""
    return [int(np.random.SeedSequence((seed, int(i))).generate_state(1)[0]) for i in indices]
