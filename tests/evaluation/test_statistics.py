"""Intervals against closed forms, curves read off at equal colourfulness, and the verdicts on them."""

from __future__ import annotations

import numpy as np
import pytest

from photochrom.evaluation import statistics
from photochrom.evaluation.statistics import BETTER, EQUAL, NODES, WORSE


def test_the_bootstrap_of_a_mean_is_the_textbooks_interval() -> None:
    values = np.random.default_rng(5).normal(10, 2, size=(400, 1))
    weights = statistics.resampling(400, resamples=4000)
    rows = statistics.ratio({"ab": values}, "ab", weights)[:, 0]
    found, reach = statistics.bootstrap_interval(rows), 1.96 * values.std() / 20
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert found["high"] == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_a_ratio_is_that_of_the_sums_and_its_interval_the_delta_methods() -> None:
    random = np.random.default_rng(6)
    pixels = random.integers(1, 100, size=(400, 1)).astype(float)
    false = random.binomial(pixels.astype(int), 0.3).astype(float)
    rows = statistics.ratio(
        {"false_color": false, "dark_pixels": pixels}, "false_color", statistics.resampling(400, 4000)
    )
    found, share = statistics.bootstrap_interval(rows[:, 0]), false.sum() / pixels.sum()
    reach = 100 * 1.96 * (false - share * pixels).std() / pixels.mean() / 20
    assert found["value"] == pytest.approx(100 * share)
    assert found["high"] == pytest.approx(100 * share + reach, abs=0.1 * reach)


def test_the_jackknife_of_a_mean_is_students_interval_of_the_group_means() -> None:
    values = np.random.default_rng(7).normal(size=100)
    groups = values.reshape(-1, statistics.GROUPS)
    left_out = [np.delete(groups, g, axis=1).mean() for g in range(statistics.GROUPS)]
    found = statistics.jackknife_interval(np.array([values.mean(), *left_out]))
    reach = 2.093 * groups.mean(axis=0).std(ddof=1) / np.sqrt(statistics.GROUPS)
    assert found["low"] == pytest.approx(values.mean() - reach)
    assert found["high"] == pytest.approx(values.mean() + reach)


def test_frechet_distances_of_photos_that_differ_in_nothing_have_an_interval_round_zero() -> None:
    features = np.random.default_rng(8).normal(size=(80, 3))
    rows = statistics.frechet_rows(features, features, 1.0)
    assert rows == pytest.approx(0, abs=1e-9)
    assert len(rows) == 1 + statistics.GROUPS
    assert (
        statistics.jackknife_interval(statistics.frechet_rows(features[:10], features[:10], 1.0))["low"]
        is None
    )


def test_what_was_never_counted_has_no_value() -> None:
    nothing = {"dark_error": np.zeros((3, 1)), "dark_pixels": np.zeros((3, 1))}
    rows = statistics.ratio(nothing, "dark_error", statistics.resampling(3))[:, 0]
    assert statistics.bootstrap_interval(rows) == {"value": None, "low": None, "high": None}


def test_strength_is_read_off_between_the_nodes() -> None:
    colorfulness = np.stack([30 * NODES, 10 * NODES])
    found = statistics.strength_at(colorfulness, np.array([27.0, 27.0]))
    assert found[0] == pytest.approx(0.9)
    assert np.isnan(found[1])  # 25 is all that it reaches


def test_values_on_a_parabola_are_read_off_exactly() -> None:
    strengths = np.array([0.1, 0.5, 1.05, 1.9, 2.5, np.nan])
    values = np.tile(3 - 2 * NODES + 5 * NODES**2, (6, 1))
    found = statistics.at_strength(values, strengths)
    assert found[:5] == pytest.approx(3 - 2 * strengths[:5] + 5 * strengths[:5] ** 2)
    assert np.isnan(found[5])


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (-2.0, -1.0, -1, BETTER),
        (1.0, 2.0, -1, WORSE),
        (1.0, 2.0, 1, BETTER),
        (-2.0, -1.0, 1, WORSE),
        (-1.0, 1.5, -1, EQUAL),
        (0.01, 0.02, -1, EQUAL),  # certain, but less than the 0.1 that count
        (None, None, -1, None),
    ],
)
def test_verdicts(low: float | None, high: float | None, better: int, expected: str | None) -> None:
    value = None if low is None or high is None else (low + high) / 2
    assert statistics.verdict({"value": value, "low": low, "high": high}, better, 0.1) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([BETTER, BETTER, BETTER], BETTER),
        ([BETTER, BETTER, None], BETTER),
        ([BETTER, EQUAL, BETTER], EQUAL),
        ([BETTER, WORSE, WORSE], EQUAL),
        ([None, None, None], EQUAL),
    ],
)
def test_the_overall_verdict_asks_for_all(verdicts: list[str | None], expected: str) -> None:
    assert statistics.overall(verdicts) == expected
