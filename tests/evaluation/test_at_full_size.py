"""Whole pictures are measured in strips."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from photochrom.evaluation import at_full_size
from tests.evaluation.making import soft_photo


def test_strips_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Image.fromarray(soft_photo(seed)) for seed in (0, 1))
    whole = at_full_size.full_sums(one, other, (0.5, 1.0))
    monkeypatch.setattr(at_full_size, "STRIP_PIXELS", 90 * 7)
    strips = at_full_size.full_sums(one, other, (0.5, 1.0))
    for name, values in whole.items():
        assert strips[name] == pytest.approx(values, rel=1e-6), name
