"""The random choices of training, as functions of (seed, step), so that no generator state can be lost."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]


def random_for(*key: int) -> torch.Generator:
    """A CPU generator that depends only on the key, such as (seed, stream, step)."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def photos_of_step(photos: Indices, seed: int, step: int, batch_size: int) -> Indices:
    """The photos of a step (B,): its part of an endless row of shuffled passes over `photos`."""
    places = [divmod(place, len(photos)) for place in range(step * batch_size, (step + 1) * batch_size)]
    return photos[[_shuffled(len(photos), seed, n)[place] for n, place in places]]


# A batch may end one pass and begin the next. Shuffling again in each step would take longer than the step.
@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, n: int) -> Indices:
    return np.random.default_rng((seed, n)).permutation(count)


def stratified_steps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """One random step in each of `count` equal parts of 0..T-1, in random order: (count,) int64.

    So every batch sees all noise levels, which removes most of the loss's variance. Source: Kingma et al.
    2021, appendix I.1.
    """
    u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (u * timesteps).long().clamp(max=timesteps - 1)
