"""What a training draws is a function of (seed, step), and fair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from photochrom.randomness import photos_of_step, random_for, stratified_steps


@pytest.mark.parametrize("batch_size", [1, 4, 7, 32])
def test_every_photo_is_seen_once_per_pass(batch_size: int) -> None:
    photos = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    steps = [photos_of_step(photos, 0, step, batch_size) for step in range(100)]
    assert all(len(step) == batch_size for step in steps)
    row = np.concatenate(steps)
    passes = row[: len(row) // 10 * 10].reshape(-1, 10)
    assert (np.sort(passes) == photos).all()
    assert len({tuple(one) for one in passes}) == len(passes)  # each in another order


def test_photos_are_a_function_of_seed_and_step() -> None:
    photos = np.arange(100)
    np.testing.assert_array_equal(photos_of_step(photos, 3, 40, 16), photos_of_step(photos, 3, 40, 16))
    assert (photos_of_step(photos, 3, 40, 16) != photos_of_step(photos, 4, 40, 16)).any()
    assert (photos_of_step(photos, 3, 40, 16) != photos_of_step(photos, 3, 41, 16)).any()


def test_random_for_is_a_function_of_its_key() -> None:
    def draw(*key: int) -> Tensor:
        return torch.randn(4, generator=random_for(*key))

    assert torch.equal(draw(0, 1, 2), draw(0, 1, 2))
    keys = [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 1), (0, 12)]
    assert len({tuple(draw(*key).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("count", [1, 7, 16, 50, 64])
def test_time_steps_are_one_in_each_part(count: int) -> None:
    seen = []
    for seed in range(200):
        t = stratified_steps(count, 50, random_for(seed))
        assert t.dtype == torch.int64
        part = torch.arange(count) * 50 / count
        ordered = t.sort().values
        assert (ordered >= part.floor()).all()
        assert (ordered <= (part + 50 / count).ceil() - 1).all()
        seen.append(t)
    assert len(set(torch.cat(seen).tolist())) > 45
    assert count == 1 or any((step.diff() < 0).any() for step in seen)  # in random order
