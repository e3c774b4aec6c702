"""The history of a training: its stages, the best epoch of the last one, and what a file of it may hold."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from photochrom.training_history import HISTORY_FILE, best_epoch, stages_of
from tests.making import epoch


def history(*losses: float, stages: tuple[int, ...]) -> list[dict[str, Any]]:
    """Epochs with these validation losses, each with the epoch that its stage began at."""
    return [
        epoch(n, loss, stage_began=began)
        for n, (loss, began) in enumerate(zip(losses, stages, strict=True), 1)
    ]


def test_the_best_epoch_is_one_of_the_last_stage() -> None:
    """The losses of a stage add up other terms than those of the stage before, where they may be lower."""
    found = best_epoch(history(0.1, 0.2, 0.9, 0.7, 0.8, stages=(1, 1, 3, 3, 3)))
    assert (found["epoch"], found["val_loss"]) == (4, 0.7)
    assert (
        best_epoch(history(0.5, 0.5, stages=(1, 1)))["epoch"] == 1
    )  # of two alike, the one that is saved first


def test_stages_are_told_apart_by_where_they_began_whatever_their_names() -> None:
    found = stages_of(history(1, 2, 3, 4, stages=(1, 1, 3, 4)))
    assert [[one["epoch"] for one in stage] for stage in found] == [[1, 2], [3], [4]]
    assert stages_of([]) == []
    earlier = [epoch(1, 0.5), epoch(2, 0.4)]  # by a version that did not write down where a stage began
    assert stages_of(earlier) == [earlier]


@pytest.mark.parametrize(
    "change",
    [{"val_loss": float("nan")}, {"epoch": 0}, {"photos": -1}, {"weights": {"noise": 1.0}}, {"stage": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_file_holds_nothing_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HISTORY_FILE.validate_python([epoch(1, 0.5) | change])


def test_every_term_of_a_loss_is_kept_by_its_name() -> None:
    record = epoch(1, 0.5, weighted_noise=0.25, spread={"samples": 0.1, "data": 0.2})
    assert HISTORY_FILE.validate_python([record]) == [record]
