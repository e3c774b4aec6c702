"""Making a data set: every photo of a folder or of Tiny ImageNet read once, judged, and put into a split."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from photochrom.data.pack import new_pack
from photochrom.data.reading import Pixels
from photochrom.data.shards import new_shards
from photochrom.data.sources import LeftOut, Photo, Source, open_source, read_photo
from photochrom.data.stratification import chance_of, stratified
from photochrom.errors import PhotochromError, UsageError

CHUNK = (
    16  # photos that a thread takes at a time: handing over tiny ones singly would take as long as reading
)

Progress = Callable[[int, int], None]  # (done, total)
Read = tuple[Photo, tuple[Pixels, str] | LeftOut]
Collect = Callable[..., tuple[dict[str, Photo], list[LeftOut]]]  # `_collect`, all but where to write
Shares = tuple[float, float, int]  # held out, of these for the last report, and the seed that draws them


@dataclass(frozen=True)
class ImportReport:
    """What an import made, and what it left out."""

    folder: Path
    counts: dict[str, int]  # photos per split
    left_out: dict[str, int]  # files per reason
    left_out_files: list[LeftOut]  # (origin, reason, detail)
    seconds: float


def import_photos(
    source: Path,
    destination: Path,
    *,
    size: int = 64,
    limit: int | None = None,
    categories: Sequence[str] | None = None,
    validation: float = 0.1,
    test: float = 0.5,
    seed: int = 0,
    max_bad: float = 0.01,
    workers: int | None = None,
    shards: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Pack the photos of a folder or of Tiny ImageNet into the data set folder `destination`.

    size: side of the square photos in pixels. limit: how many photos to keep, drawn by seed with a fair share
    of every category. categories: only these, by name, wnid or folder. validation: share of the photos held
    out, where the source holds out none itself. test: share of the held-out photos that becomes the split
    `test`. max_bad: share of the photos that may be broken. workers: threads, by default one a processor.
    shards: write shards (`photochrom.data.shards`) instead of a packed data set.
    progress: called with (done, total) every few photos, and at the end.

    The split is drawn within each category from (seed, checksum of the photo), so that a second run, other
    file names or another order of files do not change it. Gray, broken, too small and too large photos and
    duplicates are left out; of equal photos the one that the source holds out stays, else the first.
    In shards photos lie in random order, each goes into its split on sight, and of equal photos the first stays.

    Raises UsageError for a value out of range or an unknown category, PhotochromError for all else.
    """
    if not 8 <= size <= 1024:
        raise UsageError(f"size {size} is not possible: give 8 to 1024 pixels")
    for name, count in (("limit", limit), ("workers", workers)):
        if count is not None and count < 1:
            raise UsageError(f"{name} {count} is not possible: give 1 or more")
    for name, share in (("validation", validation), ("test", test), ("max-bad", max_bad)):
        if not 0 <= share <= 1:
            raise UsageError(f"{name} {share} is not a share: give a number from 0 to 1, as 0.1 for a tenth")
    started = time.perf_counter()
    with open_source(source) as opened, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of large photos and odd metadata: dealt with here
        chosen = opened.only(categories) if categories else opened
        total = min(limit or len(chosen.photos), len(chosen.photos))
        if shards or limit is not None:
            chosen = _in_drawing_order(chosen, seed)
        with closing(_read_ahead(chosen, size, workers or os.cpu_count() or 1)) as results:
            collect = partial(_collect, chosen, results, total=total, max_bad=max_bad, progress=progress)
            shares = (validation, test, seed)
            write = _write_shards if shards else _write_pack
            index = write(chosen, collect, destination, size, shares, overwrite)
    left_out = [LeftOut(*entry) for entry in index["left_out"]]
    reasons = Counter(entry.reason for entry in left_out)
    return ImportReport(destination, index["counts"], dict(reasons), left_out, time.perf_counter() - started)


def _write_pack(
    source: Source, collect: Collect, destination: Path, size: int, shares: Shares, overwrite: bool
) -> dict[str, Any]:
    with new_pack(destination, size, overwrite=overwrite) as (file, index):
        kept, left_out = collect(write=lambda photo, pixels, digest: file.write(pixels.tobytes()))
        label = _labels(source)
        index |= {"source": source.name, "seed": shares[2], "left_out": left_out}
        index["categories"] = list(source.categories.values())
        index["photos"] = {
            "split": _split(list(kept.values()), list(kept), *shares),
            "label": [label[photo.category] for photo in kept.values()],
            "origin": [photo.origin for photo in kept.values()],
            "checksum": list(kept),
        }
    return index


def _write_shards(
    source: Source, collect: Collect, destination: Path, size: int, shares: Shares, overwrite: bool
) -> dict[str, Any]:
    validation, test, seed = shares
    holds_out = any(photo.held_out for photo in source.photos)
    label = _labels(source)

    def split(photo: Photo, digest: str) -> str:
        """As `_split`, but on sight of this photo alone: the shares are only met on average."""
        drawn = photo.held_out if holds_out else chance_of(f"{seed} validation", digest) < validation
        if not drawn:
            return "train"
        return "test" if chance_of(f"{seed} test", digest) < test else "validation"

    with new_shards(destination, size, overwrite=overwrite) as (writer, index):

        def write(photo: Photo, pixels: Pixels, digest: str) -> None:
            facts = {"origin": photo.origin, "label": label[photo.category], "checksum": digest}
            writer.add(split(photo, digest), pixels, facts)

        _, left_out = collect(write=write, first_stays=True)
        index |= {"source": source.name, "seed": seed, "left_out": left_out}
        index["categories"] = list(source.categories.values())
    return index


def _labels(source: Source) -> dict[str | None, int]:
    return {None: -1} | {key: number for number, key in enumerate(source.categories)}


def _in_drawing_order(source: Source, seed: int) -> Source:
    groups = [f"{photo.held_out} {photo.category}" for photo in source.photos]
    order = stratified(groups, [photo.origin for photo in source.photos], f"{seed} limit")
    return replace(source, photos=[source.photos[i] for i in order])


def _collect(
    source: Source,
    results: Iterable[Read],
    *,
    write: Callable[[Photo, Pixels, str], object],
    first_stays: bool = False,
    total: int,
    max_bad: float,
    progress: Progress | None,
) -> tuple[dict[str, Photo], list[LeftOut]]:
    """Write usable photos until there are `total`; return them by checksum, and what is left out.

    first_stays: of equal photos the first stays, even if the source holds out the second.
    """
    kept: dict[str, Photo] = {}
    left_out, broken = list(source.left_out), list[LeftOut]()
    for looked_at, (photo, result) in enumerate(results, 1):
        if isinstance(result, LeftOut):
            left_out.append(result)
            if result.reason == "broken":
                broken.append(result)
                _check_broken(broken, max_bad * total, f"the first {looked_at} of {source.name}")
        elif twin := kept.get(result[1]):
            better = photo.held_out and not twin.held_out and not first_stays
            stays, goes = (photo, twin) if better else (twin, photo)
            kept[result[1]] = stays  # the same pixels, so the same place in the file
            left_out.append(LeftOut(goes.origin, "duplicate", f"of {stays.origin}"))
        else:
            write(photo, *result)
            kept[result[1]] = photo
        if progress and looked_at % CHUNK == 0:
            progress(min(looked_at, total), total)
        if len(kept) == total:
            break
    if not kept:
        counts = Counter(entry.reason for entry in left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise PhotochromError(f"{source.name} has no usable photo ({reasons or 'no photo at all'})")
    if progress:
        progress(total, total)
    return kept, left_out


def _read_ahead(source: Source, size: int, workers: int) -> Generator[Read, None, None]:
    """Read photos in order, in threads (Pillow decodes outside Python's lock), a few ahead of their use."""

    def read(chunk: list[Photo]) -> list[Read]:
        return [(photo, read_photo(source, photo, size)) for photo in chunk if not stopped.is_set()]

    pool, stopped = ThreadPoolExecutor(workers), Event()
    pending: deque[Future[list[Read]]] = deque()
    try:
        for start in range(0, len(source.photos), CHUNK):
            pending.append(pool.submit(read, source.photos[start : start + CHUNK]))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        stopped.set()  # after Ctrl-C only the photos in hand are finished
        pool.shutdown()


def _check_broken(broken: list[LeftOut], allowed: float, files: str) -> None:
    if len(broken) > allowed:
        some = "; ".join(f"{entry.origin}: {entry.detail}" for entry in broken[:3])
        fault = f"{len(broken)} of {files} are broken ({some})"
        raise PhotochromError(f"{fault}: mend or remove them, or allow more with --max-bad")


def _split(photos: list[Photo], checksums: list[str], validation: float, test: float, seed: int) -> list[str]:
    def drawn(among: Sequence[int], purpose: str) -> list[int]:
        groups = [photos[i].category or "" for i in among]
        return [among[i] for i in stratified(groups, [checksums[i] for i in among], f"{seed} {purpose}")]

    held_out = [i for i, photo in enumerate(photos) if photo.held_out]
    if not held_out and validation > 0:
        count = max(1, round(validation * len(photos)))
        held_out = drawn(range(len(photos)), "validation")[:count]
    split = ["train"] * len(photos)
    for i in held_out:
        split[i] = "validation"
    for i in drawn(held_out, "test")[: int(test * len(held_out))]:
        split[i] = "test"
    return split
