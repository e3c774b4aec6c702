"""Turns sums per photo into numbers with intervals, and numbers into verdicts.

Every quantity has rows. Row 0 is its value; each other row is its value with other photos (bootstrap: photos
drawn again with replacement; jackknife: without one group of photos). Sums, ratios, interpolation along a
curve and differences of models treat all rows alike, so that an interval covers everything that depends on
the photos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photochrom.evaluation.metrics import (
    ALL_MEASURES,
    CHROMA_BINS,
    LUMA_BINS,
    MEASURES,
    SET_MEASURES,
    Array,
    Moments,
    frechet_distance,
)

STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5)
NODES = np.array([0.0, *STRENGTHS])  # 0 is gray
AS_MADE = STRENGTHS.index(1.0)
TARGETS = (0.70, 0.85, 1.00)  # shares of the truth's colourfulness at which models are compared
EXTRAPOLATED = 1.5  # largest strength that anybody would use; values beyond it are marked
RESAMPLES = 1000
GROUPS = 20  # groups of photos for the jackknife
STUDENT = 2.093  # 97.5 % quantile of Student's t with GROUPS - 1 degrees of freedom
TRUTH, GRAY = "true photos", "gray"
FULL = "full_"  # prefix of columns that were measured at the photos' own size
BETTER, WORSE, EQUAL = "better", "worse", "cannot be told apart"

Columns = dict[str, Array]  # {name: (N,K)}: a row per photo, a column per strength (K = 1: strength 1 only)
Results = dict[str, Columns]
Interval = dict[str, float | None]


def resampling(photos: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """How often each bootstrap resample draws each photo: (1+R,N), row 0 all ones. Source: Efron 1979."""
    drawn = np.random.default_rng(seed).multinomial(photos, np.full(photos, 1 / photos), size=resamples)
    return np.concatenate([np.ones((1, photos)), drawn])


def ratio(columns: Columns, name: str, weights: Array) -> Array:
    """A measure over all photos, by row and strength: weights (1+R,N) -> (1+R,K). NaN if the count is 0."""
    measure = MEASURES[name]
    total = weights @ columns[name]
    count = weights @ columns[measure.count] if measure.count else weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(measure.scale * total / count)


def strength_at(colorfulness: Array, target: Array) -> Array:
    """The strength (1+R,) at which colourfulness first reaches a target, NaN if it never does.

    colorfulness: (1+R,K) at NODES, 0 at the first; between nodes, the parabola of `at_strength`. target:
    (1+R,).
    """
    reached = colorfulness >= target[:, None]
    right = np.maximum(reached.argmax(axis=1), 1)
    low, high = (np.take_along_axis(colorfulness, k[:, None], axis=1)[:, 0] for k in (right - 1, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        per_colorfulness = (NODES[right] - NODES[right - 1]) / (high - low)
        found = NODES[right - 1] + (target - low) * per_colorfulness
        for _ in range(3):  # converges fast, since the secant's slope is nearly the parabola's
            found = found + (target - at_strength(colorfulness, found)) * per_colorfulness
            found = np.clip(found, NODES[right - 1], NODES[right])
    return np.where(reached.any(axis=1), found, np.nan)


def at_strength(values: Array, strength: Array) -> Array:
    """Interpolate values (1+R,K) at strengths (1+R,), by the parabola through the three nearest NODES.

    Errors are curved in strength: linear interpolation would add a bias as large as the differences between
    models.
    """
    middles = (NODES[1:] + NODES[:-1]) / 2
    # NaN sorts last here, and stays NaN below.
    first = np.clip(np.searchsorted(middles, strength) - 1, 0, len(NODES) - 3)
    x = [NODES[first + i] for i in range(3)]
    y = [np.take_along_axis(values, (first + i)[:, None], axis=1)[:, 0] for i in range(3)]
    found = np.zeros_like(strength)
    for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        found = found + y[i] * (strength - x[j]) * (strength - x[k]) / ((x[i] - x[j]) * (x[i] - x[k]))
    return found


def bootstrap_interval(rows: Array) -> Interval:
    """Value and 95 % percentile interval, which needs a value in at least 95 % of the resamples."""
    others = rows[1:]
    if not np.isfinite(rows[0]):
        return {"value": None, "low": None, "high": None}
    finite = others[np.isfinite(others)]
    if len(finite) < 0.95 * len(others) or len(others) == 0:
        return {"value": float(rows[0]), "low": None, "high": None}
    low, high = np.percentile(finite, (2.5, 97.5))
    return {"value": float(rows[0]), "low": float(low), "high": float(high)}


def jackknife_interval(rows: Array) -> Interval:
    """Value and 95 % interval of Student's t, from the values without each of G groups.

    It serves Frechet distances. A bootstrap would overstate them, since they grow when photos are drawn
    twice. Source: Efron & Tibshirani 1993, chapter 11, with groups of photos instead of single photos.
    """
    others = rows[1:]
    value = float(rows[0]) if np.isfinite(rows[0]) else None
    if value is None or len(others) != GROUPS or not np.isfinite(others).all():
        return {"value": value, "low": None, "high": None}
    error = np.sqrt((len(others) - 1) / len(others) * np.square(others - others.mean()).sum())
    reach = float(STUDENT * error)
    return {"value": value, "low": value - reach, "high": value + reach}


def frechet_rows(features: Array, true: Array, scale: float) -> Array:
    """Frechet distance between features (N,D) and the true photos', then without each group: (1+G,)."""
    if len(features) < 2:
        return np.array([np.nan])
    all_found, all_true = Moments(features), Moments(true)
    rows = [frechet_distance(all_true, all_found)]
    # One distance of 2048 channels (FID) takes seconds, and groups of few photos would be single photos.
    if features.shape[1] <= 512 and len(features) >= 2 * GROUPS:
        for group in range(GROUPS):
            found, truth = Moments(features[group::GROUPS]), Moments(true[group::GROUPS])
            rows.append(frechet_distance(all_true.without(truth), all_found.without(found)))
    return scale * np.array(rows)


def verdict(difference: Interval, better: int, least: float) -> str | None:
    """Judge a difference (this model minus the other): None without an interval, EQUAL if below `least`."""
    value, low, high = difference["value"], difference["low"], difference["high"]
    if value is None or low is None or high is None:
        return None
    if (low > 0 or high < 0) and abs(value) > least:
        return BETTER if (low > 0) == (better > 0) else WORSE
    return EQUAL


def overall(verdicts: list[str | None]) -> str:
    """One verdict for several colourfulnesses: better or worse only if all known verdicts agree."""
    known = {v for v in verdicts if v is not None}
    return known.pop() if len(known) == 1 else EQUAL


class Evaluated:
    """A candidate's measures, each with a row per resample."""

    def __init__(self, columns: Columns, true: Columns, gray: Columns, weights: Array) -> None:
        self.weights = weights
        measured = [name for name in MEASURES if name in columns]
        self.curves = {name: ratio(columns, name, weights) for name in measured}  # (1+R, K)
        self.sets = {
            name: frechet_rows(columns[name], true[name], measure.scale)
            for name, measure in SET_MEASURES.items()
            if name in columns
        }
        self.gray, self.photos = gray, columns["ab"].shape[0]
        self.made = AS_MADE if columns["ab"].shape[1] > 1 else 0

    def as_made(self, name: str) -> Array:
        """Rows (1+R,) or (1+G,) of a measure at strength 1."""
        if name in self.sets:
            return self.sets[name]
        curve = self.curves[name]
        return np.asarray(curve[:, self.made if curve.shape[1] > 1 else 0])

    def interval(self, name: str, rows: Array) -> Interval:
        """The jackknife interval of a set measure, else the bootstrap interval; none for a single photo."""
        if self.photos == 1:
            return bootstrap_interval(rows[:1])
        return jackknife_interval(rows) if name in self.sets else bootstrap_interval(rows)

    def at(self, name: str, target: Array) -> Array:
        """Rows of a measure, or of "strength", where colourfulness is `target` (1+R,)."""
        strength = strength_at(np.pad(self.curves["colorfulness"], ((0, 0), (1, 0))), target)
        if name == "strength":
            return strength
        return at_strength(np.hstack([ratio(self.gray, name, self.weights), self.curves[name]]), strength)

    @property
    def on_curve(self) -> list[str]:
        """The measures with a value at every strength."""
        return [name for name, curve in self.curves.items() if curve.shape[1] > 1]


def summary(results: Results, compared: list[str], models: list[str]) -> dict[str, Any]:
    """All numbers of a report: `numbers` (also at full size, if measured), histograms, values by photo.

    compared: the models and tools. models: the models alone, which have a time and a diversity.
    """
    found: dict[str, Any] = {
        "luma_edges": LUMA_BINS.tolist(),
        "chroma_edges": CHROMA_BINS.tolist(),
        "chroma_by_luma": {
            name: columns["chroma_by_luma"].sum(axis=0).astype(int).tolist()
            for name, columns in results.items()
        },
        "by_photo": {name: by_photo(results[name]) for name in compared},
        **numbers(results, compared),
    }
    for name in models:
        seconds = float(results[name]["seconds"].sum())
        found["rows"][name]["seconds_per_photo"] = seconds / len(results[name]["ab"])
    for name, row in found["rows"].items():
        if name not in models:
            del row["diversity"]
    full = {
        name: {key.removeprefix(FULL): values for key, values in columns.items() if key.startswith(FULL)}
        for name, columns in results.items()
    }
    if full[TRUTH]:
        found["full_size"] = numbers(full, compared)
    return found


def numbers(results: Results, compared: list[str]) -> dict[str, Any]:
    """Rows at strength 1, curves, values at equal colourfulness, differences from the first of `compared`."""
    true, gray = results[TRUTH], results[GRAY]
    weights = resampling(len(true["ab"]))
    rows = {name: Evaluated(columns, true, gray, weights) for name, columns in results.items()}
    targets = {f"{share:.0%}": share * rows[TRUTH].as_made("colorfulness") for share in TARGETS}
    return {
        "rows": {name: table_row(row) for name, row in rows.items()},
        "curves": {name: curve(rows[name]) for name in compared},
        "at_equal_colorfulness": {
            name: {share: at_equal(rows[name], target) for share, target in targets.items()}
            for name in compared
        },
        "differences": [
            difference(name, rows[other], rows[compared[0]], rows[TRUTH], targets)
            | {"model": other, "against": compared[0]}
            for other in compared[1:]
            for name in (*rows[other].curves, *rows[other].sets)
            if name != "diversity"
        ],
    }


def by_photo(columns: Columns) -> dict[str, list[float | None]]:
    """Each measure that has a better and a worse, photo by photo, at strength 1.

    None for a photo with hardly any pixel that counts (less than 1 % of the photo with the most).
    """
    found = {}
    for name, measure in MEASURES.items():
        if measure.better and name in columns:
            made = AS_MADE if columns[name].shape[1] > 1 else 0
            counts = columns[measure.count][:, 0] if measure.count else np.ones(len(columns[name]))
            counted = counts >= max(0.01 * counts.max(), 1e-9)
            values = measure.scale * columns[name][:, made] / np.where(counted, counts, 1.0)
            found[name] = [
                round(float(v), 4) if known else None for v, known in zip(values, counted, strict=True)
            ]
    return found


def table_row(row: Evaluated) -> dict[str, Any]:
    """A row's measures at strength 1."""
    return {name: row.interval(name, row.as_made(name)) for name in (*row.curves, *row.sets)}


def curve(row: Evaluated) -> dict[str, Any]:
    """Each measure by strength."""
    measures = {
        name: [row.interval(name, row.curves[name][:, k]) for k in range(len(STRENGTHS))]
        for name in row.on_curve
    }
    return {"strength": list(STRENGTHS), **measures}


def at_equal(row: Evaluated, target: Array) -> dict[str, Any]:
    """The strength that reaches a colourfulness, and every measure there."""
    names = ["strength", *(name for name in row.on_curve if name != "colorfulness")]
    found: dict[str, Any] = {name: row.interval(name, row.at(name, target)) for name in names}
    strength = found["strength"]["value"]
    return {
        **found,
        "reached": strength is not None,
        "extrapolated": strength is not None and strength > EXTRAPOLATED,
    }


def difference(
    name: str, row: Evaluated, other: Evaluated, truth: Evaluated, targets: Mapping[str, Array]
) -> dict[str, Any]:
    """A measure of `row` minus that of `other`, at strength 1 and at equal colourfulness, with verdicts.

    A measure that should be near the truth's (colourfulness, chroma) is compared by its distance to it.
    """
    measure = ALL_MEASURES[name]

    def compared(rows: Array, other_rows: Array) -> dict[str, Any]:
        least = measure.resolution * abs(other_rows[0])
        if measure.better == 0:
            true = truth.as_made(name)
            rows, other_rows = abs(rows - true), abs(other_rows - true)
        found = row.interval(name, rows - other_rows)
        return {**found, "verdict": verdict(found, measure.better or -1, least)}

    found: dict[str, Any] = {"measure": name, "nearer_to_truth": measure.better == 0}
    found["as_made"] = compared(row.as_made(name), other.as_made(name))
    if name in row.on_curve and name in other.on_curve and name != "colorfulness":
        equal = {}
        for share, goal in targets.items():
            strongest = max(row.at("strength", goal)[0], other.at("strength", goal)[0])
            equal[share] = compared(row.at(name, goal), other.at(name, goal))
            equal[share]["extrapolated"] = bool(strongest > EXTRAPOLATED)
        return {**found, "at": equal, "verdict": overall([entry["verdict"] for entry in equal.values()])}
    return {**found, "at": {}, "verdict": overall([found["as_made"]["verdict"]])}
