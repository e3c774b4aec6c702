"""What a training draws, as functions of (seed, step): no generator has a state that could be lost."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]


def random_for(*key: int) -> torch.Generator:
    """A CPU generator that is a function of the key alone, such as (seed, stream, step)."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def photos_of_step(photos: Indices, seed: int, step: int, batch_size: int) -> Indices:
    """The indices of a step's photos: the part of an endless row of shuffled passes over `photos`."""
    places = [divmod(place, len(photos)) for place in range(step * batch_size, (step + 1) * batch_size)]
    return photos[[_shuffled(len(photos), seed, n)[place] for n, place in places]]


# A batch may end one pass and begin the next. Shuffling anew in each step would take longer than the step.
@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, n: int) -> Indices:
    return np.random.default_rng((seed, n)).permutation(count)


def stratified_steps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """One time step in each of `count` equal parts of 0..T-1, in random order: (count,) int64.

    Every batch then sees all noise levels, which takes most of the variance out of the loss (Kingma et al. 2021,
    appendix I.1).
    """
    u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (u * timesteps).long().clamp(max=timesteps - 1)
