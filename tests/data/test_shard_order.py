"""The order of photos in shards: each once a pass, from few open shards, as a function of the seed."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from photochrom.data.shard_order import PLACES, ShardOrder


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 3))
def test_every_photo_comes_once_in_a_pass(photos: list[int], number: int) -> None:
    order, total = ShardOrder(np.array(photos), seed=7), sum(photos)
    places = min(PLACES, total)
    seen = []
    for place in range(places):
        length = total * (place + 1) // places - total * place // places
        turns = range(number * length, (number + 1) * length)
        seen += [order.photo(turn * places + place) for turn in turns]
    assert sorted(index for _, index in seen) == list(range(total))
    first = np.cumsum([0, *photos])
    assert all(first[shard] <= index < first[shard + 1] for shard, index in seen)


def test_it_is_a_function_of_seed_and_turn() -> None:
    photos = np.full(40, 50)
    whole = [ShardOrder(photos, 3).photo(turn) for turn in range(4000)]
    backwards = ShardOrder(photos, 3)
    assert [backwards.photo(turn) for turn in range(3999, -1, -1)] == whole[::-1]
    other = [ShardOrder(photos, 4).photo(turn) for turn in range(4000)]
    assert np.mean([a == b for a, b in zip(whole, other, strict=True)]) < 0.01
    assert np.mean([a == b for a, b in zip(whole[:2000], whole[2000:], strict=True)]) < 0.01


def test_a_batch_shows_many_shards_but_few_are_open() -> None:
    order = ShardOrder(np.full(200, 64), 0)
    turns = [order.photo(turn)[0] for turn in range(3 * 12_800)]
    batches = np.array(turns).reshape(-1, PLACES)
    assert np.mean([len(set(batch)) for batch in batches]) > PLACES - 0.5
    for begin in range(0, len(turns), 640):
        assert (
            len(set(turns[begin : begin + 16 * PLACES])) <= 2 * PLACES
        )  # while a quarter of each is used up


def test_one_shard_and_few_photos() -> None:
    order = ShardOrder(np.array([3]), 0)
    passes = np.array([order.photo(turn)[1] for turn in range(9)]).reshape(3, 3)
    assert (np.sort(passes) == [0, 1, 2]).all()


def test_memory_is_flat() -> None:
    order = ShardOrder(np.full(20_000, 16), 0)  # with 8 bytes for each photo it would be 2.6 MB
    tracemalloc.start()
    try:
        for turn in range(3_000):
            order.photo(turn)
        early = tracemalloc.get_traced_memory()[0]
        for turn in range(3_000, 9_000):
            order.photo(turn)
        assert tracemalloc.get_traced_memory()[0] < early + 50_000
    finally:
        tracemalloc.stop()
