"""Stratified drawing is fair, and the order of items has no say."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from photochrom.data.stratification import stratified


def test_it_is_fair_for_any_prefix() -> None:
    draw = random.Random(0)
    groups = ["big"] * 600 + ["small"] * 60 + [f"single {i}" for i in range(200)]
    keys = [str(draw.random()) for _ in groups]
    order = stratified(groups, keys, "salt")
    assert sorted(order) == list(range(len(groups)))
    for count in (43, 86, 430, 800):
        share = count / len(groups)
        got = Counter(groups[i].split()[0] for i in order[:count])
        singles = 4 * (200 * share * (1 - share)) ** 0.5
        assert got["single"] == pytest.approx(200 * share, abs=singles)
        assert got["small"] == pytest.approx(60 * share, abs=2 + 60 * singles / 860)
    shuffled = list(range(len(groups)))
    draw.shuffle(shuffled)
    again = stratified([groups[i] for i in shuffled], [keys[i] for i in shuffled], "salt")
    assert [shuffled[i] for i in again] == order
