"""The learning rate: its curve, and that the optimiser follows it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.optimizer import learning_rate
from tests.training.making import Values


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(1e-3, step, 1000, 100) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[49] == pytest.approx(5e-4)
    assert rates[99] == rates[100] == pytest.approx(1e-3)
    assert rates[550] == pytest.approx(5e-4)
    assert rates[100 + 300] == pytest.approx(1e-3 * (1 + math.cos(math.pi / 3)) / 2)
    assert np.all(np.diff(rates[:100]) > 0)
    assert np.all(np.diff(rates[100:]) < 0)
    assert 0 < rates[-1] < 1e-8
    assert learning_rate(1e-3, 1000, 1000, 100) == 0


def test_without_annealing_the_learning_rate_stays() -> None:
    rates = [learning_rate(2.0, step, 100, 5, anneal=False) for step in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert set(rates[5:]) == {2.0}


def test_a_short_training_warms_up_over_a_tenth_of_it() -> None:
    assert learning_rate(1.0, 0, 50, 200) == pytest.approx(0.2)
    assert learning_rate(1.0, 4, 50, 200) == pytest.approx(1.0)
    assert learning_rate(1.0, 0, 1, 200) == 1.0


def test_the_optimiser_gets_that_rate(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["stages"][0]["epochs"] = 8
    config = build(values)
    train(config, ModelFolder(tmp_path / "model"), pack)
    found = [record["learning_rate"] for record in ModelFolder(tmp_path / "model").history]
    assert found == pytest.approx([learning_rate(3e-3, step, 24, 2) for step in range(2, 24, 3)])
