"""The order in which training sees photos from shards.

A pass over the data is a long row: the shards in random order, with the photos of each shard in random order.
Sixteen readers walk along the row at once, each through its own sixteenth, and batches take photos from them
in turn. So a batch has photos from up to sixteen shards, memory holds about sixteen shards, and every photo
comes once per pass. The order is a function of (seed, step), so a resumed training finds its photos without
reading the earlier ones.

A process that needs every n-th photo of each batch needs every n-th reader. If n divides both sixteen and the
batch size, it reads only its share of the shards.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from photochrom.randomness import Indices  # imports torch

PLACES = 16


class ShardOrder:
    """Endless shuffled passes over photos in shards; needs only the number of photos in each shard."""

    def __init__(self, photos: Indices, seed: int) -> None:
        """photos: the number of photos in each shard, (K,), all above 0."""
        self.photos, self.seed, self.total = photos, seed, int(photos.sum())
        self.first = np.cumsum(photos) - photos  # (K,) index of the first photo of each shard
        self._row = lru_cache(4)(self._make_row)
        self._inside = lru_cache(4 * PLACES)(self._shuffle_inside)

    def photo(self, turn: int) -> tuple[int, int]:
        """The shard and the index of the photo at a turn. Turns count from 0 over all batches and passes."""
        places = min(PLACES, self.total)
        taken, place = divmod(turn, places)
        begin, end = (self.total * n // places for n in (place, place + 1))  # this reader's part of the row
        number, way = divmod(taken, end - begin)
        shards, ends = self._row(number)
        at = int(ends.searchsorted(begin + way, side="right"))
        shard = int(shards[at])
        inside = begin + way - int(ends[at] - self.photos[shard])
        return shard, int(self.first[shard] + self._inside(number, shard)[inside])

    def _make_row(self, number: int) -> tuple[Indices, Indices]:
        """The shards of a pass in their order, and the position in the row where each ends."""
        shards = np.random.default_rng((self.seed, number)).permutation(len(self.photos))
        return shards, np.cumsum(self.photos[shards])

    def _shuffle_inside(self, number: int, shard: int) -> Indices:
        """The order of the photos inside a shard in one pass."""
        generator = np.random.default_rng((self.seed, number, shard + 1))
        return generator.permutation(int(self.photos[shard]))
