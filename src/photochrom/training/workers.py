"""Threads that each take whole parts of a batch, so that a training gets its share of a processor beside other work.

Torch lets the threads of one operation wait for each other at its end, hundreds of times a step. Where another program takes
one core for a moment, all cores wait. Threads that take whole parts meet once a step. Parts are added up in their order, so
that the sums are the same to the bit, however many threads there are and whoever is first.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch

LEAST, MOST = (
    8,
    16,
)  # photos of a part: fewer cost more, and there are at least two parts where that leaves enough
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """As many threads as torch takes for an operation, for batches of so many photos; with `alone` there are none."""

    def __init__(self, photos: int, alone: bool = False) -> None:
        cores = torch.get_num_threads()
        self.size = photos if alone else min(MOST, max(LEAST, math.ceil(photos / 2)))
        self.parts = math.ceil(photos / self.size)
        self.count = min(cores, self.parts)
        self.threads = max(1, cores // self.parts)  # of torch, within a part

    def slices(self, photos: int) -> list[slice]:
        """The parts of so many photos, in their order."""
        size = photos if self.parts == 1 else self.size
        return [slice(start, start + size) for start in range(0, photos, size)]

    def map(self, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """do(item) of all items, in their order. Raises what the first of them has raised, once all have ended."""
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
        """In this block, this thread too takes no more of torch's threads than one of the others."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # Each thread sets the number for itself, and for all that begin later: so let all of them begin now.
        begun = threading.Barrier(self.count + 1)

        def begin() -> None:
            torch.set_num_threads(self.threads)
            torch.get_num_threads()  # takes the number, which the first look would else do, and find another one
            begun.wait()

        pool = ThreadPoolExecutor(self.count, "part", begin)
        for _ in range(self.count):
            pool.submit(int)
        before = torch.get_num_threads()
        begun.wait()
        torch.set_num_threads(before)
        return pool
