"""A data set in shards, for photos that fit neither into memory nor onto this machine's disk.

The data set is a folder, or an address such as `https://...`. It holds tar files in the layout of WebDataset,
and an index, `shards.json`. Each tar holds photos of one split in random order, as `000000512.ppm` and so on.

PPM holds raw pixels behind a header of fifteen bytes, and every WebDataset reader knows it. It is lossless
(JPEG would change the chroma that we learn) and needs no decoding. All members have the same length, so a
shard is an array that needs no parsing. Lossless WebP would take 0.6 of the space and a hundred times as long
to read. The last member holds origins, labels and checksums; other readers skip it.

The index holds the split, the number of photos, the number of bytes and the checksum of each shard. A shard
is read whole, checked, and kept in memory while its photos are due; threads read the next ones meanwhile.
`shard_order.ShardOrder` gives the order of photos.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from tarfile import BLOCKSIZE as BLOCK
from tarfile import USTAR_FORMAT, TarError, TarFile, TarInfo
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    UnknownHandler,
)

import numpy as np
import numpy.typing as npt

from photochrom.data.pack import SPLITS, Pack, new_folder, to_rgb
from photochrom.data.reading import Pixels
from photochrom.data.shard_order import PLACES, ShardOrder
from photochrom.errors import PhotochromError, UsageError

if TYPE_CHECKING:
    import torch

    from photochrom.randomness import Indices

FORMAT = 1
INDEX = "shards.json"
LEFT_OUT = "left_out.json"
SHARD_BYTES = 6 * 2**20  # of pixels: 512 photos of 64 pixels, or 32 of 256
COLUMNS = "__photos__/columns"  # a member with a name that WebDataset readers skip
READERS = 4
SECONDS = 60  # longest silence of a server
MOST_INDEX_BYTES = 1 << 28  # of `shards.json`: enough for some million shards
KEPT = 2 * PLACES + 2  # shards in memory: those that are due, the next ones, and two for validation


class Shard(NamedTuple):
    """The content of a shard."""

    pixels: Pixels  # (n, S, S, 3)
    columns: dict[str, list[Any]]  # origin, label, checksum


class Writer:
    """Collects photos of each split, and writes a shard when they fill it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.header = folder, ppm_header(size)
        self.capacity = max(1, SHARD_BYTES // (3 * size * size))
        self.waiting: dict[str, list[tuple[Pixels, dict[str, Any]]]] = {split: [] for split in SPLITS}
        self.labels: Counter[int] = Counter()
        self.rows: dict[str, list[tuple[str, int, int, str]]] = {split: [] for split in SPLITS}

    def add(self, split: str, pixels: Pixels, facts: dict[str, Any]) -> None:
        """Add a photo (S, S, 3) with its `origin`, `label` and `checksum`; write a shard that is full."""
        self.waiting[split].append((pixels, facts))
        self.labels[facts["label"]] += 1
        if len(self.waiting[split]) == self.capacity:
            self.write(split)

    def write(self, split: str) -> None:
        """Write the waiting photos of a split as one shard."""
        photos, self.waiting[split] = self.waiting[split], []
        number, buffer = len(self.rows[split]), BytesIO()
        with TarFile(fileobj=buffer, mode="w", format=USTAR_FORMAT) as tar:
            for place, (pixels, _) in enumerate(photos, number * self.capacity):
                _add(tar, f"{place:09}.ppm", self.header + pixels.tobytes())
            columns = {name: [facts[name] for _, facts in photos] for name in ("origin", "label", "checksum")}
            _add(tar, f"{COLUMNS}.json", json.dumps(columns).encode())
        data = buffer.getvalue()
        (self.folder / file_name(split, number)).write_bytes(data)
        self.rows[split].append((split, len(photos), len(data), digest(data)))

    def finish(self) -> dict[str, list[Any]]:
        """Write the waiting photos of all splits. Returns the table of shards, by split and number."""
        for split in SPLITS:
            if self.waiting[split]:
                self.write(split)
        rows = [row for split in SPLITS for row in self.rows[split]]
        return dict(
            zip(("split", "photos", "bytes", "checksum"), map(list, zip(*rows, strict=True)), strict=True)
        )


def _add(tar: TarFile, name: str, content: bytes) -> None:
    """Add a member without time or owner, so that equal photos give equal files."""
    member = TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


@contextmanager
def new_shards(destination: Path, size: int, *, overwrite: bool) -> Iterator[tuple[Writer, dict[str, Any]]]:
    """Build shards in a `new_folder`.

    The body gets the writer, and a dict that becomes `shards.json`; it adds `source`, `seed`, `categories`,
    `left_out` and `look_alikes`. Raises what `new_folder` raises.
    """
    with new_folder(destination, overwrite=overwrite) as folder:
        writer = Writer(folder, size)
        index: dict[str, Any] = {"format": FORMAT, "name": destination.name, "size": size}
        yield writer, index
        table = writer.finish()
        counts = {
            split: sum(n for s, n in zip(table["split"], table["photos"], strict=True) if s == split)
            for split in SPLITS
        }
        index |= {"checksum": checksum_of(table), "counts": counts}
        kept = index | {
            "category_counts": [writer.labels[label] for label in range(len(index["categories"]))],
            "left_out": dict(Counter(entry.reason for entry in index["left_out"])),
            "shards": table,
        }
        (folder / LEFT_OUT).write_text(json.dumps(index["left_out"]))
        (folder / INDEX).write_text(json.dumps(kept))


class Shards:
    """An opened data set; see `photochrom.data.dataset.DataSet`. The index gives the order of photos."""

    def __init__(self, address: Path | str, index: dict[str, Any], place: str | None = None) -> None:
        """Check an index and prepare to read.

        address: of the folder. index: the content of its `shards.json`. place: see `DataSet.place` (default:
        the address). Raises PhotochromError if the index is damaged.
        """
        self.address, self.index = address, index
        self.place = str(address) if place is None else place
        try:
            table = index["shards"]
            self.name, self.size, self.checksum = index["name"], int(index["size"]), index["checksum"]
            self.categories, self.seed = index["categories"], index["seed"]
            self.photos = np.array(table["photos"], np.int64)  # (K,) number in each shard
            self.split = np.array(table["split"])  # (K,)
            numbers = {split: np.arange(table["split"].count(split)) for split in SPLITS}
            in_order = np.repeat(SPLITS, [len(each) for each in numbers.values()])
            if not 8 <= self.size <= 1024:
                raise ValueError(f"size {self.size}")
            if index["format"] != FORMAT:
                raise ValueError(f"format {index['format']}, not {FORMAT}")
            if checksum_of(table) != self.checksum:
                raise ValueError("it does not fit its checksum")
            if {len(column) for column in table.values()} != {len(in_order)} or not (self.photos > 0).all():
                raise ValueError("its columns do not fit together")
            if not np.array_equal(self.split, in_order):
                raise ValueError("its shards are not in order")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise PhotochromError(f"{place_of(address, INDEX)} is damaged ({fault}): get it again") from error
        self.number = np.concatenate(list(numbers.values()))  # (K,) of each shard in its split
        self.ends = np.cumsum(self.photos)
        self.order: ShardOrder | None = None
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="shards")
        self.kept: OrderedDict[int, Future[Shard]] = OrderedDict()

    @classmethod
    def open(cls, address: Path | str, place: str | None = None) -> Shards:
        """Open shards in a folder, or at an address (`https://` or `http://`). It reads only the index.

        Raises PhotochromError if the index is missing or damaged, or if a folder lacks a shard or has one
        that is cut short.
        """
        if isinstance(address, Path):
            address = address.absolute()
            if not (address / INDEX).is_file():
                remedy = "copy it there too; it was written beside them"
                raise PhotochromError(f"{address} has shards but no {INDEX}: {remedy}")
        try:
            index = json.loads(fetch(address, INDEX, MOST_INDEX_BYTES))
        except (ValueError, RecursionError) as error:
            raise PhotochromError(f"{place_of(address, INDEX)} is damaged ({error}): get it again") from error
        if not isinstance(index, dict):
            raise PhotochromError(f"{place_of(address, INDEX)} is damaged (it holds no table): get it again")
        shards = cls(address, index, place)
        if isinstance(address, Path):
            shards.check_files(address)
        return shards

    def check_files(self, folder: Path) -> None:
        """Raise PhotochromError if this folder lacks a shard, or has one of the wrong length."""
        for shard, length in enumerate(self.index["shards"]["bytes"]):
            path = folder / self.file(shard)
            if not path.is_file():
                raise PhotochromError(f"{path} is missing: copy it there again, or import the photos again")
            if (found := path.stat().st_size) != length:
                raise PhotochromError(wrong_length(path, found, length))

    @property
    def folder(self) -> Path | None:
        """The folder of the shards, or None if they are not on this machine."""
        return self.address if isinstance(self.address, Path) else None

    def file(self, shard: int) -> str:
        """The name of a shard's file. The index does not hold it, so no index can name a file elsewhere."""
        return file_name(str(self.split[shard]), int(self.number[shard]))

    def count(self, split: str) -> int:
        """The number of photos in a split."""
        return int(self.photos[self.shards_of(split)].sum())

    def shards_of(self, split: str) -> Indices:
        """The numbers of a split's shards."""
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == split)

    def drawn(self, split: str, count: int | None, seed: int) -> Indices:
        """The indices of `count` photos of a split (None: all), from as few shards as possible.

        Photos are in random order inside the shards, so the first N of them are a fair sample.
        """
        shards = np.random.default_rng(seed).permutation(self.shards_of(split))
        if count is not None:
            shards = shards[: 1 + int(np.cumsum(self.photos[shards]).searchsorted(count))]
        photos = [np.arange(self.ends[shard] - self.photos[shard], self.ends[shard]) for shard in shards]
        return np.concatenate([np.arange(0), *photos])[:count]

    def photos_of_step(self, seed: int, step: int, batch_size: int, part: slice = slice(None)) -> Indices:
        """The indices of the photos of a training step, or of a part of them; starts to read what follows."""
        if self.order is None or self.order.seed != seed:
            # The shards for training come first, so their photos have the same indices here and there.
            self.order = ShardOrder(self.photos[self.shards_of("train")], seed)
        turns = range(step * batch_size, (step + 1) * batch_size)[part]
        due = [self.order.photo(turn) for turn in turns]
        ahead = PLACES * int(self.photos.max()) // 2  # start reading the next shard half a shard early
        following = [self.order.photo(turn + ahead)[0] for turn in turns[-PLACES:]]  # one turn of each reader
        for shard in dict.fromkeys([shard for shard, _ in due] + following):
            self.begin(shard)
        return np.array([index for _, index in due])

    def rgb(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The photos at B indices, contiguous float32 (B, 3, S, S) in [0, 1].

        Raises PhotochromError for a shard that is missing, damaged, or holds other photos than the index
        says.
        """
        indices = np.asarray(indices, np.int64)
        pixels = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for shard, here in self.by_shard(indices):
            first = self.ends[shard] - self.photos[shard]
            pixels[here] = self.begin(shard).result().pixels[indices[here] - first]
        return to_rgb(pixels)

    def by_shard(self, indices: Indices) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """The shards that hold photos, each with a mask of the photos that it holds."""
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.ends[-1]):
            raise IndexError(f"photos {indices.min()} to {indices.max()} of {self.ends[-1]}")
        shards = self.ends.searchsorted(indices, side="right")
        for shard in np.unique(shards):
            yield int(shard), shards == shard

    def origins(self, indices: npt.ArrayLike) -> list[str]:
        """The paths, inside the source, of the photos at B indices."""
        indices = np.asarray(indices, np.int64)
        found = np.empty(len(indices), object)
        for shard, here in self.by_shard(indices):
            first = self.ends[shard] - self.photos[shard]
            origins = self.begin(shard).result().columns["origin"]
            found[here] = [origins[i - first] for i in indices[here]]
        return found.tolist()

    def begin(self, shard: int) -> Future[Shard]:
        """Start reading a shard in another thread, unless it is in memory."""
        if shard not in self.kept:
            self.kept[shard] = self.readers.submit(self.read, shard)
        self.kept.move_to_end(shard)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return self.kept[shard]

    def read(self, shard: int) -> Shard:
        """Read a shard. Raises PhotochromError if it is missing, damaged, or does not fit the index."""
        table, file = self.index["shards"], self.file(shard)
        path, data = place_of(self.address, file), fetch(self.address, file, table["bytes"][shard])
        if len(data) != table["bytes"][shard]:
            raise PhotochromError(wrong_length(path, len(data), table["bytes"][shard]))
        if digest(data) != table["checksum"][shard]:
            raise PhotochromError(f"{path} was changed: it does not fit its checksum; get it again")
        try:
            return unpack(data, int(self.photos[shard]), self.size)
        except (TarError, ValueError, RecursionError) as error:
            promised = f"{self.photos[shard]:,} photos of {self.size}x{self.size} pixels"
            fault = f"{INDEX} promises {promised}, but it holds something else"
            raise PhotochromError(f"{path} does not fit its index ({fault}): get both again") from error

    def summary(self) -> dict[str, Any]:
        """Facts about the data set, as numbers, strings and dicts; `bytes` is the size of its shards."""
        facts = {key: self.index[key] for key in ("name", "source", "size", "seed")}
        return facts | {
            "photos": int(self.photos.sum()),
            "counts": {split: self.count(split) for split in SPLITS},
            "categories": dict(zip(self.categories, self.index["category_counts"], strict=True)),
            "left_out": self.index["left_out"],
            "look_alikes": self.index.get("look_alikes"),
            "checksum": self.checksum,
            "bytes": sum(self.index["shards"]["bytes"]),
            "feature_bytes": 0,  # encoder maps of shards would be too large to cache
            "shards": len(self.photos),
        }

    def to_look_at(self) -> Pack:
        """The first shard of each split as a packed data set, in memory."""
        chosen = [int(found[0]) for split in SPLITS if len(found := self.shards_of(split))]
        shards = [self.begin(shard).result() for shard in chosen]
        joined = {key: [entry for s in shards for entry in s.columns[key]] for key in ("origin", "label")}
        return Pack(
            folder=self.folder or Path(),
            photos=np.concatenate([shard.pixels for shard in shards]),
            split=np.repeat(self.split[chosen], self.photos[chosen]),
            label=np.array(joined["label"], np.int64),
            origin=joined["origin"],
            left_out=[],
            **{key: self.index[key] for key in ("name", "size", "source", "seed", "categories", "checksum")},
        )


def unpack(data: bytes, count: int, size: int) -> Shard:
    """Unpack a tar of `count` photos as one array, without parsing: all its members have the same length.

    Raises ValueError or TarError if it holds something else.
    """
    header, length = ppm_header(size), 3 * size * size
    # A member is a block with its name, then its content, filled up to whole blocks.
    member = BLOCK - (len(header) + length) // -BLOCK * BLOCK
    rows = np.frombuffer(data, np.uint8, count * member).reshape(count, member)[:, BLOCK:]
    start = np.frombuffer(header, np.uint8)
    if not (rows[:, : len(start)] == start).all():
        raise ValueError("another header")
    pixels = np.ascontiguousarray(rows[:, len(start) : len(start) + length])
    last = TarInfo.frombuf(data[count * member :][:BLOCK], "ascii", "strict")
    if last.name != f"{COLUMNS}.json":
        raise ValueError("another member")
    columns = json.loads(data[count * member + BLOCK :][: last.size])
    kinds = {"origin": str, "label": int, "checksum": str}
    if not isinstance(columns, dict) or any(
        not isinstance(column := columns.get(name), list)
        or len(column) != count
        or not all(isinstance(each, kind) for each in column)
        for name, kind in kinds.items()
    ):
        raise ValueError("other columns")
    return Shard(pixels.reshape(count, size, size, 3), columns)


def ppm_header(size: int) -> bytes:
    """The header of a square photo in PPM (Netpbm's P6)."""
    return f"P6\n{size} {size}\n255\n".encode()


def file_name(split: str, number: int) -> str:
    """The name of a shard's file, such as `train-000017.tar`."""
    return f"{split}-{number:06}.tar"


def digest(data: bytes) -> str:
    """BLAKE2b of bytes, 8 bytes in hexadecimal."""
    return blake2b(data, digest_size=8).hexdigest()


def checksum_of(table: dict[str, list[Any]]) -> str:
    """The checksum of all shards; it covers photos, order, splits and labels."""
    return digest(json.dumps([table[key] for key in ("split", "photos", "bytes", "checksum")]).encode())


def place_of(address: Path | str, file: str) -> Path | str:
    """The path or address of a file of a data set."""
    return address / file if isinstance(address, Path) else f"{address.rstrip('/')}/{file}"


def wrong_length(path: Path | str, found: int, length: int) -> str:
    """The error for a shard of the wrong length."""
    return f"{path} is damaged: it has {found:,} bytes, but {INDEX} says {length:,}; get it again"


def fetch(address: Path | str, file: str, most: int) -> bytes:
    """Read a file of at most `most` bytes from a folder or an http(s) address.

    Raises PhotochromError if it cannot be read, or if it is longer, so that no server can fill the memory.
    """
    place = place_of(address, file)
    try:
        with place.open("rb") if isinstance(place, Path) else WEB.open(place, timeout=SECONDS) as stream:
            data = stream.read(most + 1)
    except (OSError, ValueError, HTTPException) as error:  # a wrong address raises the last two
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        if isinstance(error, HTTPError):  # it is also the server's answer, and holds the connection
            error.close()
        raise PhotochromError(f"{place} cannot be read ({reason}): check that it is there") from error
    if len(data) > most:
        raise PhotochromError(f"{place} is longer than {most:,} bytes: get it again")
    return data


def _web() -> OpenerDirector:
    """An opener for http and https only, redirects included; urllib's own would also open ftp and files."""
    opener = OpenerDirector()
    for handler in (
        *(ProxyHandler, HTTPHandler, HTTPSHandler, UnknownHandler),
        *(HTTPDefaultErrorHandler, HTTPRedirectHandler, HTTPErrorProcessor),
    ):
        opener.add_handler(handler())
    return opener


WEB = _web()
