"""Stratified drawing: the first N items are a fair share of every group. Hashes decide the order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b


def stratified(groups: Sequence[str], keys: Sequence[str], salt: str) -> list[int]:
    """The order in which to draw items so that the first N are a fair share of every group, for any N.

    It is systematic sampling with a random start in each group: small groups get their share on average. All
    chance comes from hashes of (salt, key) and (salt, group), so the order of the items does not matter.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    chance = [chance_of(salt, key) for key in keys]
    turn = [0.0] * len(keys)
    for group, inside in members.items():
        start = chance_of(salt, group)
        for rank, i in enumerate(sorted(inside, key=chance.__getitem__)):
            turn[i] = (rank + start) / len(inside)
    return sorted(range(len(keys)), key=lambda i: (turn[i], chance[i]))


def chance_of(salt: str, key: str) -> float:
    """A number in [0,1) from a hash of (salt, key)."""
    digest = blake2b(f"{salt}/{key}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
