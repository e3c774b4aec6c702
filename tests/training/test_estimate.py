"""How many epochs fit into the time that a person has."""

from __future__ import annotations

import time
from typing import Any

import pytest

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.training import estimate


@pytest.mark.parametrize(("minutes", "epochs", "photos"), [(2, 35, None), (0.5, 10, 20)])
def test_minutes_choose_as_many_epochs_as_fit(
    pack: Pack,
    values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    epochs: int,
    photos: int | None,
) -> None:
    """Here a step of one photo takes 0.1 s and files take 1 s: 24 photos take 3.4 s.

    Few epochs become more, shorter ones.
    """
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(estimate, "train_step", lambda training: clock.append(clock.pop() + 0.1))
    monkeypatch.setattr(estimate, "validate", lambda training: None)
    values["training"]["batch_size"] = 1
    config = estimate.fit_minutes(build(values), pack, minutes, lambda progress: None)
    assert (config.stages[0].epochs, config.data.photos_per_epoch) == (epochs, photos)
