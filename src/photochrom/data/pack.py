"""The packed data set: every photo decoded once, so that training decodes nothing.

A data set is a folder of two files. `photos.npy` holds the pixels, uint8 (N, S, S, 3), memory-mapped when read.
`index.json` says of each photo its split, label, origin and checksum, and of each file left out why.
Photos lie in the order of the source (with a limit: as drawn). They are not shuffled on disk, because training
draws batches by index anyway, and so one pass over the source writes the whole file.
"""

import errno
import json
import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from photochrom.data.sources import LeftOut, Photo, Pixels, Source, open_source, read_photo
from photochrom.errors import PhotochromError, UsageError

if TYPE_CHECKING:
    import torch

FORMAT = 1
SPLITS = ("train", "validation", "test")
CHUNK = 8  # photos that a thread takes at a time: so few that Ctrl-C is answered at once even with large ones

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class ImportReport:
    """What an import made, and what it left out."""

    folder: Path
    counts: dict[str, int]  # photos per split
    left_out: dict[str, int]  # files per reason
    left_out_files: list[LeftOut]  # (origin, reason, detail)
    seconds: float


@dataclass(frozen=True, eq=False)
class Pack:
    """An opened data set. The photos of split `test` are for the last report: no choice may look at them."""

    folder: Path
    name: str
    size: int  # S, pixels
    source: str
    photos: npt.NDArray[np.uint8]  # (N, S, S, 3), memory-mapped, read-only
    split: npt.NDArray[np.str_]  # (N,) train | validation | test
    label: npt.NDArray[np.int64]  # (N,) index into categories, -1 for none
    origin: list[str]
    categories: list[str]
    left_out: list[LeftOut]
    checksum: str  # of all photos with their order, split and label

    @classmethod
    def open(cls, folder: Path) -> "Pack":
        """Open a data set; its pixels stay on disk until they are asked for.

        Raises PhotochromError when the folder or a file of it is missing, torn, or of another format.
        """
        mend = "import it again with --overwrite"
        for name in ("index.json", "photos.npy"):
            if not (folder / name).is_file():
                raise PhotochromError(f"{folder} is not a data set, as it has no {name}: {mend}")
        try:
            index = json.loads((folder / "index.json").read_text())
            if index["format"] != FORMAT:
                raise PhotochromError(f"{folder} is of format {index['format']}, not {FORMAT}: {mend}")
            columns = index["photos"]
            photos = np.lib.format.open_memmap(folder / "photos.npy", mode="r")
            fields = {key: index[key] for key in ("name", "size", "source", "categories", "checksum")}
            fields["left_out"] = [LeftOut(*entry) for entry in index["left_out"]]
            split, label = np.array(columns["split"]), np.array(columns["label"], dtype=np.int64)
            pack = cls(folder, photos=photos, split=split, label=label, origin=columns["origin"], **fields)
            whole = _checksum(columns)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise PhotochromError(f"{folder} is torn ({error}): {mend}") from error
        promised = (len(split), pack.size, pack.size, 3)
        if photos.dtype != np.uint8 or photos.shape != promised:
            fault = f"photos.npy holds {photos.dtype} {photos.shape} where the index says uint8 {promised}"
            raise PhotochromError(f"{folder} does not fit together ({fault}): {mend}")
        if whole != pack.checksum:
            raise PhotochromError(f"{folder} was changed, its index no longer fits its checksum: {mend}")
        return pack

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Where the photos of one split are, in rising order; empty when it has none."""
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == split).astype(np.int64)

    def rgb(self, indices: npt.ArrayLike) -> "torch.Tensor":
        """The photos at B indices, contiguous float32 (B, 3, S, S) in [0, 1]."""
        import torch  # late, so that the command line can show an index without it

        batch = torch.from_numpy(np.asarray(self.photos)[np.asarray(indices)])  # (B, S, S, 3)
        return batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def names(data_dir: Path) -> list[str]:
    """The names of the data sets under `data_dir`, sorted."""
    return sorted(index.parent.name for index in data_dir.glob("[!.]*/index.json"))


def find(name_or_path: str, data_dir: Path) -> Pack:
    """Open the data set of this name under `data_dir`, or at this path. A missing `demo` is made first.

    Raises PhotochromError for an unknown name, listing those there are.
    """
    if (data_dir / name_or_path).is_dir():
        return Pack.open(data_dir / name_or_path)
    if name_or_path == "demo":
        from photochrom.data.demo import make_demo

        return Pack.open(make_demo(data_dir / "demo").folder)
    if Path(name_or_path).is_dir():
        return Pack.open(Path(name_or_path))
    there = ", ".join(sorted({*names(data_dir), "demo"}))
    mend = f"there is {there}; 'photochrom data import' makes another"
    raise PhotochromError(f"there is no data set {name_or_path!r} in {data_dir}: {mend}")


@contextmanager
def new_pack(destination: Path, size: int, *, overwrite: bool) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Build a data set next to `destination` and move it there when the body has ended well; else leave no trace.

    The body gets the open file, to which it writes the pixels of photo after photo, and the dict that becomes
    `index.json`, into which it puts `source`, `seed`, `categories`, `left_out` and the columns `photos`.

    Raises PhotochromError when something is there already or it cannot be written (a full disk, no permission).
    """
    destination = destination.absolute()
    if destination.exists():
        if not overwrite:
            raise PhotochromError(f"{destination} exists: choose another name, or replace it with --overwrite")
        if not (destination / "index.json").is_file() and not _is_empty_folder(destination):
            raise PhotochromError(f"{destination} is no data set and will not be replaced: choose another name")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as scratch:
            built, replaced = Path(scratch, "built"), Path(scratch, "replaced")
            built.mkdir()
            index: dict[str, Any] = {"format": FORMAT, "name": destination.name, "size": size}
            # Plain writes: on a full disk they raise an error, where a memory map would kill the process.
            with (built / "photos.npy").open("wb") as file:
                _write_header(file, 0, size)
                yield file, index
                file.seek(0)
                _write_header(file, len(index["photos"]["split"]), size)
            index["checksum"] = _checksum(index["photos"])
            (built / "index.json").write_text(json.dumps(index))
            try:
                if overwrite and destination.exists():
                    destination.rename(replaced)
                built.rename(destination)
            finally:
                if replaced.exists() and not destination.exists():  # stopped between the two
                    replaced.rename(destination)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "the disk is full, free some space or use another" if full else "use another folder"
        raise PhotochromError(f"cannot write {destination} ({error.strerror or error}): {mend}") from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    # NumPy pads the header so that the first axis can grow in place.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _checksum(columns: dict[str, list[Any]]) -> str:
    rows = zip(columns["checksum"], columns["split"], columns["label"], columns["origin"], strict=True)
    return blake2b(repr([row[:3] for row in rows]).encode(), digest_size=8).hexdigest()


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Pack the photos of a folder or of Tiny ImageNet into the data set folder `destination`.

    size: side of the square photos in pixels. limit: how many photos to keep, drawn by seed with a fair share of
    every category. categories: only these, by name, wnid or folder. validation: share of the photos held out,
    where the source holds out none itself. test: share of the held-out photos that becomes the split `test`.
    max_bad: share of the files that may be broken. workers: threads, by default one for each processor.
    progress: called with (done, total), counting files, or photos kept when there is a limit.

    The split is drawn within each category from (seed, checksum of the photo), so that a second run, other file
    names or another order of files do not change it. Gray, broken, too small and too large photos and duplicates
    are left out. Of equal photos the one that the source holds out stays (so that validation is clean), else the
    first.

    Raises UsageError for a value out of range or an unknown category, PhotochromError for all else.
    """
    shares = {"validation": validation, "test": test, "max-bad": max_bad}
    if wrong := {name: share for name, share in shares.items() if not 0 <= share <= 1}:
        raise UsageError(f"{wrong} is not a share: give a number from 0 to 1, such as 0.1 for a tenth")
    if not 8 <= size <= 1024:
        raise UsageError(f"size {size} is not possible: give 8 to 1024 pixels")
    if min(limit or 1, workers or 1) < 1 or 0 in (limit, workers):
        raise UsageError(f"limit {limit} or workers {workers} is not possible: give 1 or more")
    started = time.perf_counter()
    with open_source(source) as opened, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of large photos and odd metadata: dealt with here
        chosen = opened.only(categories) if categories else opened
        with new_pack(destination, size, overwrite=overwrite) as (file, index):
            with closing(_read_ahead(chosen, *_draw(chosen.photos, limit, seed), size, workers)) as results:
                kept, left_out = _collect(results, file, chosen, limit, max_bad, progress)
            place = {key: number for number, key in enumerate(chosen.categories)}
            split = _split(kept, validation, test, seed)
            index |= {
                "source": chosen.name,
                "seed": seed,
                "counts": {name: split.count(name) for name in SPLITS},
                "categories": list(chosen.categories.values()),
                "left_out": left_out,
                "photos": {
                    "split": split,
                    "label": [place[photo.category] if photo.category else -1 for photo in kept.values()],
                    "origin": [photo.origin for photo in kept.values()],
                    "checksum": list(kept),
                },
            }
    reasons = dict(Counter(entry.reason for entry in left_out))
    return ImportReport(destination, index["counts"], reasons, left_out, time.perf_counter() - started)
