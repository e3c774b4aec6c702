"""In which order training sees photos that lie in shards.

A pass over the data is a long row: the shards in random order, and the photos of each shard in random order. Sixteen
places walk along the row at once, each through its own sixteenth, and batches take from them in turn. So a batch shows
photos of up to sixteen shards, about sixteen shards have to be in memory, and every photo comes once in a pass. All of it
is a function of (seed, step): an interrupted training finds its photos again without reading those that came before.

A process that needs every n-th photo of each batch needs every n-th place, and so only its share of the shards, where n
divides both sixteen and the batch size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from photochrom.randomness import Indices  # which brings torch along

PLACES = 16


class ShardOrder:
    """Endless shuffled passes over photos in shards, of which only the numbers of photos are known."""

    def __init__(self, photos: Indices, seed: int) -> None:
        """photos: how many each shard holds, (K,), all above 0."""
        self.photos, self.seed, self.total = photos, seed, int(photos.sum())
        self.first = np.cumsum(photos) - photos  # (K,) index of the first photo of each shard
        self._row = lru_cache(4)(self._make_row)
        self._inside = lru_cache(4 * PLACES)(self._shuffle_inside)

    def photo(self, turn: int) -> tuple[int, int]:
        """The shard and the index of the photo whose turn it is; `turn` counts from 0 through all batches of all passes."""
        places = min(PLACES, self.total)
        taken, place = divmod(turn, places)
        begin, end = (self.total * n // places for n in (place, place + 1))  # this place's part of the row
        number, way = divmod(taken, end - begin)
        shards, ends = self._row(number)
        at = int(ends.searchsorted(begin + way, side="right"))
        shard = int(shards[at])
        inside = begin + way - int(ends[at] - self.photos[shard])
        return shard, int(self.first[shard] + self._inside(number, shard)[inside])

    def _make_row(self, number: int) -> tuple[Indices, Indices]:
        """The shards of a pass in their order, and where in the row each of them ends."""
        shards = np.random.default_rng((self.seed, number)).permutation(len(self.photos))
        return shards, np.cumsum(self.photos[shards])

    def _shuffle_inside(self, number: int, shard: int) -> Indices:
        """The order of the photos inside a shard in one pass."""
        generator = np.random.default_rng((self.seed, number, shard + 1))
        return generator.permutation(int(self.photos[shard]))
