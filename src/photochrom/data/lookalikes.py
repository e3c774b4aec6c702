"""Finds photos that look alike: saved again, resized, mirrored, slightly cropped or lit, or of one burst.

Three tests follow each other; each sees only the pairs that passed the one before.

1. The coarse pattern of luma: its 8 x 8 lowest frequencies (DCT-II) without the mean, weighted by the square
root of the frequency and scaled to length 1, so that light and contrast do not matter. Matrix products
compare the patterns of all pairs. In a mirror image, the odd horizontal frequencies are negated. So with E
and O the products of even and odd frequencies, E + O compares two photos, and E - O compares one with the
mirror image of the other.

2. The same with either photo cut to thirteen windows.

3. The detail, moved and zoomed a little to fit (Lucas and Kanade 1981), and the colours. Two different pairs
of trousers on one floor do not share their detail.

docs/measurements/lookalikes.md measures misses and false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Photos = npt.NDArray[np.uint8]  # (N, S, S, 3), often memory-mapped

ALIKE, WINDOW_ALIKE, DETAIL_ALIKE, COLORS_APART = 0.68, 0.88, 0.35, 0.08
MOST = 500_000  # photos; the time grows with the square, and these take some twenty minutes
KEPT, SEEN, FINE, CELLS = 8, 16, 32, 4  # frequencies; sides of the maps for patterns, detail and colours
ROWS, COLUMNS, AT_ONCE = 512, 4096, 256
VERSION = 1  # of `patterns`, which data sets cache in a file
Progress = Callable[[int, int], None]  # (done, total)

# Left, top and side of each window, as shares of the photo's side. The first is the whole photo.
WINDOWS = [(0.0, 0.0, 1.0)] + [
    (left / 16, top / 16, 1 - most / 16)
    for most in (1, 2)
    for top in range(most + 1)
    for left in range(most + 1)
]
SHAPE = (len(WINDOWS), KEPT * KEPT)  # of a photo's `patterns`
SPANS = sorted({(start, side) for left, top, side in WINDOWS for start in (left, top)})
ODD = np.tile(np.arange(KEPT) % 2 == 1, KEPT)  # horizontal frequencies of a pattern
MIRROR = np.where(ODD, -1, 1).astype(np.float32)


def look_alikes(photos: Photos, progress: Progress = lambda done, total: None) -> Indices:
    """Group photos that look alike, directly or through others: (N,), the lowest number in a photo's group.

    progress(done, total) counts photos. With more than MOST photos there is no search, and each is its own
    group.
    """
    group = list(range(len(photos)))

    def first(i: int) -> int:
        while group[i] != i:
            group[i] = i = group[group[i]]
        return i

    if len(photos) <= MOST:
        all_patterns = patterns(photos)
        for start in range(0, len(photos), ROWS):
            progress(start, len(photos))
            rows = slice(start, start + ROWS)
            for i, j in _pairs(photos, all_patterns, photos, all_patterns, rows, start):
                a, b = sorted((first(i), first(j)))
                group[b] = a
    return np.array([first(i) for i in range(len(group))], np.int64)


def count_groups(group: Indices) -> dict[str, int]:
    """The number of groups of two or more photos, and the number of photos in them."""
    sizes = np.unique(group, return_counts=True)[1]
    return {"groups": int((sizes > 1).sum()), "photos": int(sizes[sizes > 1].sum())}


def seen_in(
    photos: Photos, others: Photos, among: Flags | None = None, theirs: Halves | None = None
) -> Flags:
    """Which photos look like one of `others`: (N,).

    among: which of the others count (default: all). theirs: the others' `patterns`, if known.
    """
    seen = np.zeros(len(photos), bool)
    mine = patterns(photos)
    theirs = patterns(others) if theirs is None else theirs
    for start in range(0, len(photos), ROWS):
        for i, j in _pairs(photos, mine, others, theirs, slice(start, start + ROWS)):
            seen[i] |= among is None or bool(among[j])
    return seen


def patterns(photos: Photos, progress: Progress = lambda done, total: None) -> Halves:
    """The coarse pattern of luma in each window: (N, *SHAPE), of length 1, in half precision."""
    side = photos.shape[1]
    k, place = np.arange(KEPT), np.arange(SEEN)
    cosines = np.cos((2 * place + 1) * k[:, None] * np.pi / (2 * SEEN)) * np.where(k, 1, 0.5**0.5)[:, None]
    rows = np.concatenate([cosines @ _areas(side, start, share, SEEN) for start, share in SPANS])
    rows = rows.astype(np.float32)  # (spans * 8, S)
    weight = np.hypot(k, k[:, None]) ** 0.5
    weight[0, 0] = 0
    found = np.empty((len(photos), *SHAPE), np.float16)
    at_once = max(1, AT_ONCE * 64**2 // side**2)
    for start in range(0, len(photos), at_once):
        progress(start, len(photos))
        part = photos[start : start + at_once]
        all_spans = rows @ _luma(part) @ rows.T  # (B, spans * 8, spans * 8)
        for number, (left, top, share) in enumerate(WINDOWS):
            v, h = (KEPT * SPANS.index((at, share)) for at in (top, left))
            pattern = all_spans[:, v : v + KEPT, h : h + KEPT] * weight
            pattern = pattern.reshape(len(part), -1)
            length = np.linalg.norm(pattern, axis=1, keepdims=True)
            # A uniform area has length 0.
            found[start : start + len(part), number] = pattern / np.maximum(length, 1)
    return found


def _pairs(
    photos: Photos, patterns: Halves, others: Photos, theirs: Halves, rows: slice, after: int | None = None
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) of a photo in `rows` and one of `others` that look alike.

    after: if both lists are the same, the first of the rows; then only pairs with j > i count.
    """
    mine = patterns[rows, 0].astype(np.float32)
    for begin in range(after or 0, len(others), COLUMNS):
        block = theirs[begin : begin + COLUMNS, 0].astype(np.float32)
        odd = mine[:, ODD] @ block[:, ODD].T
        likeness = mine[:, ~ODD] @ block[:, ~ODD].T + np.abs(odd)  # (rows, columns)
        near, far = np.nonzero(likeness > ALIKE)
        mirrored = odd[near, far] < 0
        i, j = near + rows.start, far + begin
        if after is not None:
            i, j, mirrored = i[j > i], j[j > i], mirrored[j > i]
        for part in np.array_split(np.arange(len(i)), -(-len(i) // AT_ONCE)) if len(i) else ():
            a, b, flip = i[part], j[part], mirrored[part]
            window, other_cut, alike = _best_window(patterns[a], theirs[b], flip)
            left = np.flatnonzero(alike > WINDOW_ALIKE)
            if len(left):
                a, b, flip = a[left], b[left], flip[left]
                same = _same_detail(photos, others, a, b, flip, window[left], other_cut[left])
                yield from zip(a[same].tolist(), b[same].tolist(), strict=True)


def _best_window(a: Halves, b: Halves, mirrored: Flags) -> tuple[Indices, Flags, Floats]:
    """For pairs of patterns (P, windows, 64), find the window of one that fits the other's whole best.

    Returns the window's number, whether it cuts b and not a, and the likeness, each (P,).
    """
    mine, theirs = a.astype(np.float32), b.astype(np.float32)
    sign = np.where(mirrored[:, None], MIRROR, 1)
    fits = np.concatenate(
        [
            np.matmul(cut, (whole[:, 0] * sign)[..., None])[..., 0]
            for cut, whole in ((mine, theirs), (theirs, mine))
        ],
        axis=1,
    )
    best = fits.argmax(1)
    return best % len(WINDOWS), best >= len(WINDOWS), fits.max(1)


def _same_detail(
    photos: Photos,
    others: Photos,
    a: Indices,
    b: Indices,
    mirrored: Flags,
    window: Indices,
    b_cut: Flags,
) -> Flags:
    """Whether pairs of photos share detail and colours, with one of each pair cut to a window."""
    cut, whole = np.zeros((2, len(a), FINE, FINE), np.float32)
    apart = np.zeros(len(a))
    for p, number in enumerate(window.tolist()):
        one, other = photos[a[p]], others[b[p]]
        one, other = (other, one) if b_cut[p] else (one, other)
        other = other[:, ::-1] if mirrored[p] else other
        cut[p] = _reduced(_luma(one), number, FINE)
        whole[p] = _reduced(_luma(other), 0, FINE)
        apart[p] = np.abs(_colors(one, number) - _colors(other, 0)).mean()
    return (_shared_detail(cut, whole) > DETAIL_ALIKE) & (apart < COLORS_APART)


def _shared_detail(a: Floats, b: Floats) -> Floats:
    """The share of b's detail that a's explains, moved and zoomed a little; a, b (P,32,32) -> (P,)."""
    dx, dy = np.gradient(a, axis=2), np.gradient(a, axis=1)
    place = (np.arange(FINE, dtype=np.float32) - (FINE - 1) / 2) / FINE * 2
    inside = (..., slice(2, -2), slice(2, -2))
    terms = [_detail(term)[inside] for term in (a, dx, dy, dx * place + dy * place[:, None])]
    causes = np.stack([term.reshape(len(a), -1) for term in terms], axis=1)  # (P, 4, pixels)
    wanted = _detail(b)[inside].reshape(len(b), -1, 1)
    square = causes @ causes.transpose(0, 2, 1) + 1e-3 * np.eye(4, dtype=np.float32)
    product = causes @ wanted  # (P, 4, 1)
    explained = (np.linalg.solve(square, product) * product).sum((1, 2))
    return np.asarray(explained / ((wanted**2).sum((1, 2)) + 1e-3), np.float32)


def _reduced(plane: Floats, window: int, side: int) -> Floats:
    """The means of side x side equal parts of a window of a plane (S, S)."""
    left, top, share = WINDOWS[window]
    down, across = (_areas(len(plane), start, share, side) for start in (top, left))
    return (down @ plane @ across.T).astype(np.float32)


def _areas(side: int, start: float, share: float, parts: int) -> Floats:
    """The matrix (parts, side) that averages equal parts of a stretch of a line of `side` pixels.

    start, share: where the stretch begins and how long it is, as shares of the line.
    """
    ends = (start + np.arange(parts + 1) * share / parts) * side
    pixel = np.arange(side)
    covered = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return (covered.clip(min=0) * parts / (share * side)).astype(np.float32)


def _luma(pixels: Photos) -> Floats:
    """Rec. 601 luma, 0 to 255."""
    red, green, blue = (pixels[..., c].astype(np.float32) for c in range(3))
    return red * 0.299 + green * 0.587 + blue * 0.114


def _colors(pixels: Photos, window: int) -> Floats:
    """Blue minus luma and red minus luma, in [-1,1], averaged in 4 x 4 cells of a window: (2, 4, 4)."""
    y = _luma(pixels)
    return np.stack([_reduced(pixels[..., c] - y, window, CELLS) for c in (2, 0)]) / np.float32(255)


def _detail(planes: Floats) -> Floats:
    """Planes (..., 32, 32) minus their Gaussian blur of 1.5 pixels."""
    return (planes - BLUR @ planes @ BLUR.T).astype(np.float32)


def _gaussian(side: int, sigma: float) -> Floats:
    apart = np.subtract.outer(np.arange(side), np.arange(side))
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


BLUR = _gaussian(FINE, 1.5)
