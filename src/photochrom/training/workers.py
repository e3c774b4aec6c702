"""Threads that each take whole parts of a batch, so that a training gets its share of a busy processor.

Torch's own threads wait for each other at the end of every operation, hundreds of times a step. If another
program takes one core for a moment, all cores wait. Threads with whole parts wait for each other once a step.
The results are summed in order of the parts, so they are the same to the bit for any number of threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

# Photos in a part: small parts cost more per photo, and a batch should have two parts at least.
LEAST, MOST = 8, 16
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """As many threads as torch uses for an operation, for batches of `photos` photos; none if `alone`."""

    def __init__(self, photos: int, alone: bool = False) -> None:
        cores = torch.get_num_threads()
        self.size = photos if alone else min(MOST, max(LEAST, math.ceil(photos / 2)))
        self.parts = math.ceil(photos / self.size)
        self.count = min(cores, self.parts)
        self.threads = max(1, cores // self.parts)  # that torch may use within a part

    def slices(self, photos: int) -> list[slice]:
        """Slices that divide `photos` photos into parts, in order."""
        size = photos if self.parts == 1 else self.size
        return [slice(start, start + size) for start in range(0, photos, size)]

    def shares(self, tensors: Sequence[Tensor]) -> list[list[int]]:
        """Places of tensors, divided so that each worker gets about the same number of values."""
        shares: list[list[int]] = [[] for _ in range(self.count)]
        sizes = [0] * self.count
        for place in sorted(range(len(tensors)), key=lambda place: -tensors[place].numel()):
            worker = sizes.index(min(sizes))
            shares[worker].append(place)
            sizes[worker] += tensors[place].numel()
        return shares

    def map(self, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """do(item) of all items, in order. Waits for all to end, then raises the first error."""
        if self.count == 1:
            yield from map(do, items)
            return
        futures = [self._pool.submit(do, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            wait(futures)

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """In this block, this thread uses no more of torch's threads than each worker does."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # Setting the number affects this thread and all threads started later: so start all of them now.
        begun = threading.Barrier(self.count + 1)

        def begin() -> None:
            torch.set_num_threads(self.threads)
            torch.get_num_threads()  # fixes the number now; else the first operation would read another one
            begun.wait()

        pool = ThreadPoolExecutor(self.count, "part", begin)
        for _ in range(self.count):
            pool.submit(int)
        before = torch.get_num_threads()
        begun.wait()
        torch.set_num_threads(before)
        return pool
