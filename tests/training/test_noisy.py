"""A part of a batch: what belongs to a photo stays with it, and what the whole is stays known."""

from __future__ import annotations

import pytest
import torch

from photochrom.training.noisy import Noisy, WholeBatch

EVERYTHING = ("y", "x0", "eps", "t", "xt", "target", "feature_mask")


def batch() -> Noisy:
    """Six photos. The ones of every number name its photo, the hundreds its tensor."""
    photo = torch.arange(6)
    maps = [photo.reshape(6, 1, 1, 1).expand(6, 2, 3, 3) + 100 * place for place in range(7)]
    y, x0, eps, xt, feature, other, target = maps
    whole = WholeBatch(photo % 2 == 0, photos=24, photos_compared=11)
    return Noisy(y, x0, eps, photo, xt, [feature, other], whole, target, photo)


@pytest.mark.parametrize(
    ("where", "photos"),
    [
        (slice(1, None, 2), [1, 3, 5]),
        (slice(2, 4), [2, 3]),
        (torch.tensor([5, 0]), [5, 0]),
        (torch.tensor([True, False, False, True, False, True]), [0, 3, 5]),
    ],
    ids=["every-second", "in-a-row", "places", "mask"],
)
def test_what_belongs_to_a_photo_stays_with_it(where: slice | torch.Tensor, photos: list[int]) -> None:
    whole, part = batch(), batch().only(where)
    for name in EVERYTHING:
        found, of_all = getattr(part, name), getattr(whole, name)
        assert found.shape == (len(photos), *of_all.shape[1:]), name
        assert (found.reshape(len(photos), -1) % 100 == torch.tensor(photos)[:, None]).all(), name
        assert (found // 100).unique().tolist() == (of_all // 100).unique().tolist(), name
    assert [each[:, 0, 0, 0].tolist() for each in part.features] == [
        [100 * place + photo for photo in photos] for place in (4, 5)
    ]
    assert part.whole is not None
    assert part.whole.compared.tolist() == [photo % 2 == 0 for photo in photos]
    assert part.whole[1:] == (24, 11)


def test_what_is_not_there_is_not_made() -> None:
    part = batch()._replace(features=(), whole=None, target=None, feature_mask=None).only(slice(2))
    assert (list(part.features), *part[6:]) == ([], None, None, None)
    assert part.t.tolist() == [0, 1]
