"""The packed data set: photos decoded at import, so that training decodes nothing.

A data set is a folder of two files. `photos.npy` holds the pixels, uint8 (N, S, S, 3), and is memory-mapped
for reading. `index.json` holds the split, label, origin and checksum of each photo, and the reason for each
file left out. Photos are in the order of the source, or, with a limit, in the order in which they were drawn.
They are not shuffled on disk, since training draws batches by index. So one pass over the source writes the
whole file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from PIL import Image, ImageDraw, ImageFont

from photochrom.data import lookalikes
from photochrom.data.sources import LeftOut
from photochrom.data.stratification import stratified
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import sync_folder, write_atomically

if TYPE_CHECKING:
    import torch

    from photochrom.randomness import Indices

FORMAT = 1
SPLITS = ("train", "validation", "test")
INDEX_FILES = ("index.json", "shards.json")  # one of them makes a folder a data set: packed, or in shards
FEATURES = "features-*"  # encoder maps of the photos, cached here by `training.features`
PATTERNS = f"look-alikes-{lookalikes.VERSION}.npy"  # see `Pack.patterns`
SCRATCH = ".import"  # suffix of the folder in which a data set is built


@dataclass(frozen=True, eq=False)
class Pack:
    """An opened data set. The split `test` is for the final report only: no choice may use it."""

    folder: Path
    name: str
    size: int  # S, pixels
    source: str  # name of the folder or archive that it was made from
    seed: int
    photos: npt.NDArray[np.uint8]  # (N, S, S, 3), memory-mapped, read-only
    split: npt.NDArray[np.str_]  # (N,) train | validation | test
    label: npt.NDArray[np.int64]  # (N,) index into categories, -1 for none
    origin: list[str]
    categories: list[str]
    left_out: list[LeftOut]
    checksum: str  # of all photos with their order, split and label
    group: npt.NDArray[np.int64] | None = None  # (N,) equal for photos that look alike; None: unknown
    place: str = ""  # see `dataset.DataSet`

    @classmethod
    def open(cls, folder: Path, place: str | None = None) -> Pack:
        """Open a data set without reading its pixels. place: see `dataset.DataSet` (default: the folder).

        Raises PhotochromError if the folder or a file in it is missing, damaged, or of another format.
        """
        remedy = "delete it and import the photos again"
        for name in ("index.json", "photos.npy"):
            if not (folder / name).is_file():
                raise PhotochromError(
                    f"{folder} is no data set: it has no {name}; make one with 'photochrom data import'"
                )
        try:
            index = json.loads((folder / "index.json").read_text())
            if index["format"] != FORMAT:
                raise PhotochromError(f"{folder} has format {index['format']}, not {FORMAT}: {remedy}")
            columns = index["photos"]
            photos = np.lib.format.open_memmap(folder / "photos.npy", mode="r")
            fields = {key: index[key] for key in ("name", "size", "source", "seed", "categories", "checksum")}
            fields["place"] = str(folder) if place is None else place
            fields["left_out"] = [LeftOut(*entry) for entry in index["left_out"]]
            split, label = np.array(columns["split"]), np.array(columns["label"], dtype=np.int64)
            if (group := columns.get("group")) is not None:
                fields["group"] = np.array(group, dtype=np.int64)
            pack = cls(folder, photos=photos, split=split, label=label, origin=columns["origin"], **fields)
            whole = _checksum(columns)
        except (ValueError, KeyError, TypeError, OSError, RecursionError, OverflowError) as error:
            raise PhotochromError(f"{folder} is damaged ({error}): {remedy}") from error
        promised = (len(split), pack.size, pack.size, 3)
        if pack.group is not None and pack.group.shape != split.shape:
            raise PhotochromError(f"{folder} is damaged (its groups do not fit its photos): {remedy}")
        if photos.dtype != np.uint8 or photos.shape != promised:
            fault = f"photos.npy holds {photos.dtype} {photos.shape}, but the index says uint8 {promised}"
            raise PhotochromError(f"{folder} does not fit together ({fault}): {remedy}")
        if whole != pack.checksum:
            raise PhotochromError(f"{folder} was changed: its index does not fit its checksum; {remedy}")
        return pack

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """The indices of the photos of a split, in rising order. Raises UsageError for an unknown split."""
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return self._indices[split]

    @cached_property
    def _indices(self) -> dict[str, Indices]:
        return {split: np.flatnonzero(self.split == split).astype(np.int64) for split in SPLITS}

    def count(self, split: str) -> int:
        """The number of photos in a split."""
        return len(self.indices(split))

    def drawn(self, split: str, count: int | None, seed: int) -> Indices:
        """The indices of `count` photos of a split (None: all), in an order drawn by seed."""
        return np.random.default_rng(seed).permutation(self.indices(split))[:count]

    def photos_of_step(self, seed: int, step: int, batch_size: int, part: slice = slice(None)) -> Indices:
        """The indices of a training step's photos, or of a part of them: see `randomness.photos_of_step`."""
        from photochrom.randomness import photos_of_step  # late, since it imports torch

        return photos_of_step(self.indices("train"), seed, step, batch_size)[part]

    def rgb(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The photos at B indices, contiguous float32 (B, 3, S, S) in [0, 1]."""
        return to_rgb(np.asarray(self.photos)[np.asarray(indices)])

    def origins(self, indices: npt.ArrayLike) -> list[str]:
        """The paths, inside the source, of the photos at B indices."""
        return [self.origin[i] for i in np.asarray(indices)]

    def to_look_at(self) -> Pack:
        """The data set itself."""
        return self

    def patterns(self, progress: lookalikes.Progress = lambda done, total: None) -> npt.NDArray[np.float16]:
        """The `lookalikes.patterns` of the photos, cached in a file beside them.

        The first call computes them, and writes the file if the folder is writable. progress(done, total)
        counts photos.
        """
        file = self.folder / PATTERNS
        with suppress(OSError, ValueError, EOFError):  # missing or damaged
            found = np.load(file, mmap_mode="r", allow_pickle=False)
            if found.dtype == np.float16 and found.shape == (len(self.split), *lookalikes.SHAPE):
                return np.asarray(found)
        made = lookalikes.patterns(self.photos, progress)
        with suppress(PhotochromError):
            write_atomically(file, lambda stream: np.save(stream, made))
        return made

    def summary(self) -> dict[str, Any]:
        """Facts about the data set, as numbers, strings and dicts; `bytes` is its size on disk."""
        labels = Counter(self.label.tolist())
        return {
            "name": self.name,
            "source": self.source,
            "size": self.size,
            "seed": self.seed,
            "photos": len(self.split),
            "counts": {split: self.count(split) for split in SPLITS},
            "categories": {name: labels[label] for label, name in enumerate(self.categories)},
            "left_out": dict(Counter(entry.reason for entry in self.left_out)),
            "look_alikes": None if self.group is None else lookalikes.count_groups(self.group),
            "checksum": self.checksum,
            "bytes": sum(file.stat().st_size for file in self.folder.iterdir()),
            "feature_bytes": sum(file.stat().st_size for file in self.folder.glob(FEATURES)),
        }


def to_rgb(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Pixels (B, S, S, 3) as contiguous float32 (B, 3, S, S) in [0, 1]."""
    import torch  # late, so that `photochrom data list` stays fast

    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return batch.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


@contextmanager
def new_folder(destination: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to build a data set in. It becomes `destination`, or leaves no trace if the body fails.

    Raises PhotochromError if `destination` exists, on a full disk, and without permission. overwrite: replace
    an existing data set, but nothing else.
    """
    destination = destination.absolute()
    _sweep(destination.parent)
    if destination.exists():
        if not overwrite:
            raise PhotochromError(f"{destination} exists: choose another name, or use --overwrite")
        empty = destination.is_dir() and not any(destination.iterdir())
        if not empty and not any((destination / file).is_file() for file in INDEX_FILES):
            raise PhotochromError(f"{destination} is no data set and stays as it is: choose another name")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{destination.name}.", suffix=SCRATCH, dir=destination.parent
            ) as scratch,
            FileLock(Path(scratch, "lock")),
        ):
            built, replaced = Path(scratch, "built"), Path(scratch, "replaced")
            built.mkdir()
            yield built
            for path in (*built.iterdir(), built):
                _sync(path)
            try:
                if overwrite and destination.exists():
                    destination.rename(replaced)
                built.rename(destination)
            finally:
                if replaced.exists() and not destination.exists():  # stopped between the two renames
                    replaced.rename(destination)
            _sync(destination.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "the disk is full; free some space or use another" if full else "use another folder"
        raise PhotochromError(f"cannot write {destination} ({error.strerror or error}): {remedy}") from error


@contextmanager
def new_pack(destination: Path, size: int, *, overwrite: bool) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Build a packed data set in a `new_folder`.

    The body gets an open file and a dict. It writes the pixels of each photo to the file. The dict becomes
    `index.json`; the body adds `source`, `seed`, `categories`, `left_out` and `photos`, which holds one list
    each of `split`, `label`, `origin`, `checksum` and `group` (the number of the first photo that looks the
    same).
    """
    with new_folder(destination, overwrite=overwrite) as folder:
        index: dict[str, Any] = {"format": FORMAT, "name": destination.name, "size": size}
        index |= {"checksum": "", "counts": {}}  # filled in at the end, but placed at the top of the file
        # On a full disk, plain writes raise an error, but a memory map would kill the process.
        with (folder / "photos.npy").open("w+b") as file:
            _write_header(file, 0, size)
            yield file, index
            file.seek(0)
            split = index["photos"]["split"]
            _write_header(file, len(split), size)
        index |= {"checksum": _checksum(index["photos"]), "counts": {s: split.count(s) for s in SPLITS}}
        (folder / "index.json").write_text(json.dumps(index))


def _sweep(data_dir: Path) -> None:
    """Delete the leftovers of killed imports, and restore a data set that one was replacing."""
    for scratch in data_dir.glob(f".*.????????{SCRATCH}"):  # the names that `tempfile` gives
        with suppress(Timeout):
            with FileLock(scratch / "lock").acquire(timeout=0):  # a running import holds it
                destination = data_dir / scratch.name[1 : -len(f".????????{SCRATCH}")]
                if (scratch / "replaced").exists() and not destination.exists():
                    (scratch / "replaced").rename(destination)
            # Windows deletes no open lock, and another import may delete the folder at the same time.
            shutil.rmtree(scratch, ignore_errors=True)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of files, to disk, so that it survives a power failure."""
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("r+b") as file:  # Windows syncs only writable files
        os.fsync(file.fileno())


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    # NumPy pads the header so that the first axis can grow in place.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _checksum(columns: dict[str, list[Any]]) -> str:
    # The origin must exist, but does not count: a renamed file is the same photo.
    rows = zip(*(columns[name] for name in ("checksum", "split", "label", "origin")), strict=True)
    return blake2b(repr([row[:3] for row in rows]).encode(), digest_size=8).hexdigest()


def contact_sheet(pack: Pack, count: int = 64, split: str | None = None, seed: int = 0) -> Image.Image:
    """A picture of about `count` photos drawn by seed, with a block per split and the category of each photo.

    Raises PhotochromError if the split has no photo.
    """
    tile, across, heading = 96, 8, 22
    blocks = []
    for name in [split] if split else SPLITS:
        inside = pack.indices(name)
        drawn = inside[stratified([str(n) for n in pack.label[inside]], [str(i) for i in inside], str(seed))]
        if len(drawn):
            blocks.append((name, drawn))
    if not blocks:
        raise PhotochromError(f"{pack.name} has no photo in {split}: choose another split")
    share = max(1, round(count / len(blocks) / across)) * across if count >= across else count
    rows = [-(-min(share, len(drawn)) // across) for _, drawn in blocks]
    sheet = Image.new("RGB", (across * (tile + 4), sum(rows) * (tile + 16) + heading * len(blocks)), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for (name, drawn), height in zip(blocks, rows, strict=True):
        draw.text((2, top + 4), f"{name}: {len(drawn):,} photos", "black", ImageFont.load_default(13))
        for place, i in enumerate(sorted(drawn[:share], key=lambda i: pack.label[i])):
            x, y = place % across * (tile + 4) + 2, place // across * (tile + 16) + top + heading
            sheet.paste(Image.fromarray(pack.photos[i]).resize((tile, tile)), (x, y))
            caption = pack.categories[pack.label[i]] if pack.label[i] >= 0 else ""
            draw.text((x, y + tile), caption[:16], "black", font)
        top += heading + height * (tile + 16)
    return sheet
