"""Makes a data set of a folder or Tiny ImageNet: reads every photo once, judges it, and gives it a split."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from photochrom.data.lookalikes import count_groups, look_alikes
from photochrom.data.pack import new_pack
from photochrom.data.reading import Pixels
from photochrom.data.shards import new_shards
from photochrom.data.sources import LeftOut, Photo, Source, open_source, read_photo
from photochrom.data.stratification import chance_of, stratified
from photochrom.errors import PhotochromError, UsageError

# Photos that a thread takes at a time. Handing over tiny photos one by one would take as long as reading
# them.
CHUNK = 16
FIRST = 300  # if most of these first files are broken, so is the source

Progress = Callable[[int, int, str], None]  # (done, total, what is done)
Read = tuple[Photo, tuple[Pixels, str] | LeftOut]
Collect = Callable[[BinaryIO], tuple[list[Photo], list[str], npt.NDArray[np.int64], list[LeftOut]]]
Shares = tuple[float, float, int]  # share held out, share of these for the split test, seed


@dataclass(frozen=True)
class ImportReport:
    """The result of an import, with the files that it left out."""

    folder: Path
    counts: dict[str, int]  # photos per split
    left_out: dict[str, int]  # files per reason
    left_out_files: list[LeftOut]
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
    workers: int | None = None,
    shards: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import the photos of a folder or of Tiny ImageNet into the data set folder `destination`.

    size: side of the square photos in pixels. limit: number of photos to keep, drawn by seed with a fair
    share of every category. categories: only these, by name, wnid or folder. validation: share of the photos
    to hold out, if the source itself holds out none. test: share of the held-out photos that becomes the
    split `test`. workers: number of threads (default: one per CPU core). shards: write shards
    (`photochrom.data.shards`) instead of a packed data set. overwrite: replace an existing data set.
    progress: called with (done, total, what is done) every few photos, and at the end.

    The split is drawn within each category from (seed, checksum of the photo), so that a second run, other
    file names or another order of files do not change it. Photos that look alike
    (`photochrom.data.lookalikes`) get the same split: a held-out one if the source holds out one of them.
    Gray, broken, too small and too large photos and duplicates are left out; of equal photos, the one that
    the source holds out stays, or else the first. In shards, photos are in random order, and the shares are
    met only on average.

    Raises UsageError for a value out of range or an unknown category. Raises PhotochromError for other
    problems, such as a source in which more than half of the first files are broken.
    """
    if not 8 <= size <= 1024:
        raise UsageError(f"size {size} is not possible: give 8 to 1024 pixels")
    for name, count in (("limit", limit), ("workers", workers)):
        if count is not None and count < 1:
            raise UsageError(f"{name} {count} is not possible: give 1 or more")
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share <= 1:
            raise UsageError(
                f"{name} {share} is not a share: give a number from 0 to 1, such as 0.1 for a tenth"
            )
    started = time.perf_counter()
    with open_source(source) as opened, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # about large photos and odd metadata, handled here
        chosen = opened.only(categories) if categories else opened
        total = min(limit or len(chosen.photos), len(chosen.photos))
        if shards or limit is not None:
            chosen = _in_drawing_order(chosen, seed)
        with closing(_read_ahead(chosen, size, workers or os.cpu_count() or 1)) as results:
            collect = partial(_collect, chosen, results, size=size, total=total, progress=progress)
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
        photos, checksums, group, left_out = collect(file)
        label = _labels(source)
        index |= {"source": source.name, "seed": shares[2], "left_out": left_out}
        index["categories"] = list(source.categories.values())
        index["photos"] = {
            "split": _split(photos, checksums, group, shares),
            "label": [label[photo.category] for photo in photos],
            "origin": [photo.origin for photo in photos],
            "checksum": checksums,
            "group": group.tolist(),
        }
    return index


def _write_shards(
    source: Source, collect: Collect, destination: Path, size: int, shares: Shares, overwrite: bool
) -> dict[str, Any]:
    with (
        new_shards(destination, size, overwrite=overwrite) as (writer, index),
        tempfile.TemporaryFile(dir=writer.folder.parent) as file,
    ):
        photos, checksums, group, left_out = collect(file)
        pixels, label = _mapped(file, 0, len(photos), size), _labels(source)
        for i, split in enumerate(_split(photos, checksums, group, shares, by_chance=True)):
            facts = {"origin": photos[i].origin, "label": label[photos[i].category], "checksum": checksums[i]}
            writer.add(split, pixels[i], facts)
        del pixels  # Windows deletes no file that is mapped
        index |= {"source": source.name, "seed": shares[2], "left_out": left_out}
        index |= {"categories": list(source.categories.values()), "look_alikes": count_groups(group)}
    return index


def _mapped(file: BinaryIO, start: int, count: int, size: int) -> npt.NDArray[np.uint8]:
    """Map photos from a file into memory: (count, size, size, 3)."""
    file.flush()
    return np.memmap(file, np.uint8, "r", start, (count, size, size, 3))


def _labels(source: Source) -> dict[str | None, int]:
    return {None: -1} | {key: number for number, key in enumerate(source.categories)}


def _in_drawing_order(source: Source, seed: int) -> Source:
    groups = [f"{photo.held_out} {photo.category}" for photo in source.photos]
    order = stratified(groups, [photo.origin for photo in source.photos], f"{seed} limit")
    return replace(source, photos=[source.photos[i] for i in order])


def _collect(
    source: Source,
    results: Iterable[Read],
    file: BinaryIO,
    *,
    size: int,
    total: int,
    progress: Progress | None,
) -> tuple[list[Photo], list[str], npt.NDArray[np.int64], list[LeftOut]]:
    """Write usable photos until there are `total`. Returns them, checksums, groups and the left-out files."""
    kept: dict[str, Photo] = {}  # by checksum
    left_out, broken = list(source.left_out), list[LeftOut]()
    start = file.tell()
    for looked_at, (photo, result) in enumerate(results, 1):
        if isinstance(result, LeftOut):
            left_out.append(result)
            if result.reason == "broken":
                broken.append(result)
        elif twin := kept.get(result[1]):
            stays, goes = (photo, twin) if photo.held_out and not twin.held_out else (twin, photo)
            kept[result[1]] = stays  # equal pixels, so the place in the file stays
            left_out.append(LeftOut(goes.origin, "duplicate", f"of {stays.origin}"))
        else:
            file.write(result[0].tobytes())
            kept[result[1]] = photo
        if looked_at % 100 == 0 and looked_at <= FIRST and 2 * len(broken) > looked_at:
            _refuse_broken(broken, f"the first {looked_at} files of {source.name}")
        if progress and looked_at % CHUNK == 0:
            progress(min(looked_at, total), total, "read")
        if len(kept) == total:
            break
    if not kept:
        counts = Counter(entry.reason for entry in left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise PhotochromError(f"{source.name} has no usable photo ({reasons or 'no photo at all'})")
    if progress:
        progress(total, total, "read")
    group = look_alikes(
        _mapped(file, start, len(kept), size),
        (lambda done, total: progress(done, total, "compared")) if progress else (lambda done, total: None),
    )
    return list(kept.values()), list(kept), group, left_out


def _read_ahead(source: Source, size: int, workers: int) -> Generator[Read, None, None]:
    """Read photos in order, in threads, a few ahead of their use. Pillow decodes outside Python's lock."""

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
        stopped.set()  # after Ctrl-C, threads finish only the photo in hand
        pool.shutdown()


def _refuse_broken(broken: list[LeftOut], files: str) -> None:
    some = "; ".join(f"{entry.origin}: {entry.detail}" for entry in broken[:3])
    raise PhotochromError(
        f"{len(broken)} of {files} are broken ({some}): the copy may be incomplete, or a download may have "
        "saved error pages instead of photos; get the photos again, or remove the broken ones"
    )


def _split(
    photos: list[Photo],
    checksums: list[str],
    group: npt.NDArray[np.int64],
    shares: Shares,
    by_chance: bool = False,
) -> list[str]:
    """The split of each photo. All photos of a group of look-alikes have the same split.

    by_chance: decide about each group by itself, so that a photo keeps its split when others come or go. The
    shares are then met only on average.
    """
    validation, test, seed = shares
    members: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(group.tolist()):
        members[number].append(i)

    def drawn(among: Sequence[int], purpose: str, share: float, count: int) -> list[int]:
        """A share of the photos, in whole groups: by chance, or `count` photos or slightly fewer."""
        chosen: dict[int, None] = {}
        if by_chance:
            for number in dict.fromkeys(group[i] for i in among):
                key = min(checksums[i] for i in members[number])
                if chance_of(f"{seed} {purpose}", key) < share:
                    chosen |= dict.fromkeys(members[number])
            return list(chosen)
        categories = [photos[i].category or "" for i in among]
        order = [among[i] for i in stratified(categories, [checksums[i] for i in among], f"{seed} {purpose}")]
        for i in order:
            if i not in chosen and len(chosen) + len(members[group[i]]) <= count:
                chosen |= dict.fromkeys(members[group[i]])
        return list(chosen)

    held_out = [
        i for number in {group[i] for i, p in enumerate(photos) if p.held_out} for i in members[number]
    ]
    if not held_out and validation > 0:
        count = max(1, round(validation * len(photos)))
        held_out = drawn(range(len(photos)), "validation", validation, count)
        if not held_out and not by_chance and len(members) > 1:
            held_out = min(members.values(), key=len)  # with few photos, every group can be too large
    split = ["train"] * len(photos)
    for i in held_out:
        split[i] = "validation"
    for i in drawn(sorted(held_out), "test", test, int(test * len(held_out))):
        split[i] = "test"
    return split
