"""What data in shards costs beside the packed array, and what ten million photos would cost.

    python benchmarks/shards.py --data tiny-imagenet-200      # writes docs/measurements/data-scale.md

Takes some minutes, and a packed data set. Both take turns in one process (A B, A B, ...), so that other work
on the machine hits both. The figures for ten million photos are products of unit costs that this run
measured; nothing of that size was written.
"""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.config import PRESETS, build
from photochrom.data.dataset import DataSet, find
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.data.reading import Pixels
from photochrom.data.shard_order import PLACES, ShardOrder
from photochrom.data.shards import SHARD_BYTES, Shards, checksum_of, new_shards, ppm_header
from photochrom.data.sources import Photo
from photochrom.data.stratification import stratified
from photochrom.precision import for_training
from photochrom.training.state import Training
from photochrom.training.step import train_step

REPORT = MEASUREMENTS / "data-scale.md"
MANY = 10_000_000
BATCH = 32


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def megabytes() -> float:
    """Memory that this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def in_shards(pack: Pack, destination: Path) -> float:
    """Write the photos of a packed data set as shards, in random order. Returns seconds for each photo."""
    order = stratified([""] * len(pack.split), pack.origin, "0")
    begun = time.perf_counter()
    with new_shards(destination, pack.size, overwrite=False) as (writer, index):
        for i in order:
            facts = {"origin": pack.origin[i], "label": int(pack.label[i]), "checksum": ""}
            writer.add(str(pack.split[i]), np.asarray(pack.photos[i]), facts)
        index |= {"source": pack.source, "seed": 0, "left_out": [], "categories": pack.categories}
    return (time.perf_counter() - begun) / len(order)


def reader(data: DataSet, batches: int) -> Iterator[float]:
    """Photos per second over the next batches, again and again."""
    step = 0
    while True:
        begun = time.perf_counter()
        for _ in range(batches):
            data.rgb(data.photos_of_step(0, step, BATCH))
            step += 1
        yield batches * BATCH / (time.perf_counter() - begun)


def trainer(data: DataSet) -> Iterator[float]:
    """Photos per second of training with the preset small."""
    values: dict[str, Any] = {
        "model": {"features": PRESETS["small"].features},
        "training": {"batch_size": BATCH},
    }
    training = Training(build(values | {"stages": [{"perceptual": 0.0}]}), data)
    train_step(training)
    while True:
        yield BATCH / seconds(lambda: train_step(training))


def in_turns(name: str, a: Iterator[float], b: Iterator[float], rounds: int) -> str:
    """A row: both rates, and their ratio within each round."""
    next(a), next(b)
    found = [(next(a), next(b)) for _ in range(rounds)]
    packed, shards = (median(column) for column in zip(*found, strict=True))
    ratios = sorted(y / x for x, y in found)
    row = (
        f"| {name} | {packed:,.0f} | {shards:,.0f} "
        f"| {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )
    print(row, flush=True)
    return row


def forms(photos: Sequence[Pixels]) -> list[str]:
    """A photo in each form: bytes in the tar, time to write and to read, and loss."""
    size = photos[0].shape[0]
    header = ppm_header(size)

    def encoder(form: str, **options: Any) -> Callable[[Pixels], bytes]:
        def encode(pixels: Pixels) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, form, **options)
            return buffer.getvalue()

        return encode

    def decode(data: bytes) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(data)))

    def plain(data: bytes) -> Pixels:
        return np.frombuffer(data, np.uint8, offset=len(header)).reshape(size, size, 3)

    rows = []
    for name, encode, read in (
        ("PPM, the pixels as they are (ours)", lambda pixels: header + pixels.tobytes(), plain),
        ("PNG, level 1", encoder("PNG", compress_level=1), decode),
        ("WebP, lossless", encoder("WEBP", lossless=True, method=0), decode),
        ("JPEG 95, 4:4:4", encoder("JPEG", quality=95, subsampling=0), decode),
    ):
        begun = time.perf_counter()
        files = [encode(pixels) for pixels in photos]
        written = time.perf_counter()
        back = [read(file) for file in files]
        done = time.perf_counter()
        in_tar = np.mean([512 + -(-len(file) // 512) * 512 for file in files])
        lost = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(photos, back, strict=True)])
        times = [1e6 * (b - a) / len(photos) for a, b in ((begun, written), (written, done))]
        rows.append(f"| {name} | {in_tar:,.0f} | {times[0]:,.0f} | {times[1]:,.0f} | {lost:.2f} |")
    return rows


def import_cost(photos: Sequence[Pixels], work: Path) -> tuple[float, float]:
    """Seconds for each photo of `data import`, packed and with --shards, on one thread, from JPEG files."""
    source = work / "files"
    source.mkdir()
    for number, pixels in enumerate(photos):
        Image.fromarray(pixels).save(source / f"{number:06}.jpg", quality=95)
    size = photos[0].shape[0]
    return tuple(  # type: ignore[return-value]
        seconds(lambda kind=kind: import_photos(source, work / f"{kind}", size=size, workers=1, shards=kind))
        / len(photos)  # type: ignore[misc]
        for kind in (False, True)
    )


def import_memory(count: int = 100_000) -> float:
    """Bytes for each photo that an import holds: the list of files, their random order, their checksums."""
    tracemalloc.start()
    photos = [
        Photo(f"category{n % 1000:04}/photo_{n:09}.jpg", f"category{n % 1000:04}") for n in range(count)
    ]
    order = stratified([f"{p.category}" for p in photos], [p.origin for p in photos], "0")
    seen = {f"{n:016x}": photos[n] for n in order}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(seen) == count
    return peak / count


def simulated(entries: int) -> list[str]:
    """An index of this many shards of 64-pixel photos: opening it, and memory while batches are drawn."""
    full = SHARD_BYTES // (3 * 64 * 64)
    table: dict[str, list[Any]] = {"split": ["train"] * entries, "photos": [full] * entries}
    table |= {"bytes": [6_800_000] * entries, "checksum": [f"{n:016x}" for n in range(entries)]}
    index = {"format": 1, "name": "simulated", "size": 64, "categories": [], "seed": 0}
    text = json.dumps(index | {"checksum": checksum_of(table), "shards": table})
    del table
    gc.collect()
    before = megabytes()
    begun = time.perf_counter()
    data = Shards("", json.loads(text))
    opened = time.perf_counter() - begun
    row = (
        f"| {entries:,} | {entries * full:,} | {len(text) / 1e6:,.1f} | {opened:.2f} "
        f"| {megabytes() - before:,.0f} |"
    )
    data.begin = lambda shard: None  # type: ignore[assignment, method-assign, return-value]
    marks = []
    for part in range(3):
        begun = time.perf_counter()
        for step in range(part * 1000, (part + 1) * 1000):
            data.photos_of_step(0, step, BATCH)
        marks.append((megabytes(), 1e6 * (time.perf_counter() - begun) / 1000 / BATCH))
    told = " ".join(f"{memory - before:,.0f} |" for memory, _ in marks)
    return [f"{row} {told} {marks[-1][1]:.1f} |"]


def company(labels: np.ndarray[Any, Any], order: Sequence[int]) -> float:
    """Pairs of one category in a batch, divided by those of a perfect shuffle (1 is perfect)."""
    batches = labels[np.array(order[: len(order) // BATCH * BATCH])].reshape(-1, BATCH)
    same = (batches[:, :, None] == batches[:, None, :]).sum((1, 2)) - BATCH
    shares = np.bincount(labels) / len(labels)
    return float(same.mean() / (BATCH * (BATCH - 1) * (shares**2).sum()))


def shuffling(pack: Pack) -> list[str]:
    """`company` of our order and of its parts."""
    train = pack.indices("train")
    labels = pack.label[train] - pack.label[train].min()
    full = SHARD_BYTES // (3 * pack.size**2)
    counts = np.diff([*range(0, len(train), full), len(train)])
    ours = [ShardOrder(counts, 0).photo(turn)[1] for turn in range(len(train))]
    mixed = np.random.default_rng(0).permutation(labels)  # as an import writes them
    by_category = np.sort(labels)  # as folders list them
    rows = (
        ("a perfect shuffle", company(np.random.default_rng(1).permutation(labels), range(len(train)))),
        ("ours: shuffled by the import, then by shards and inside them", company(mixed, ours)),
        ("without the import's shuffle", company(by_category, ours)),
        ("neither", company(by_category, range(len(train)))),
    )
    return [f"| {name} | {value:.2f} |" for name, value in rows]


def on_paper(per_photo: dict[str, float]) -> list[str]:
    """Ten million photos."""
    shards = -(-MANY // (SHARD_BYTES // (3 * 64 * 64)))
    hours = {key: MANY * per_photo[key] / 3600 for key in ("import", "import_packed")}
    return [
        f"| import, one core, photos of 64 pixels ({per_photo['import'] * 1e3:.2f} ms each) "
        f"| {hours['import']:.1f} hours |",
        f"| the same, packed | {hours['import_packed']:.1f} hours |",
        f"| memory of the import ({per_photo['memory']:.0f} bytes each) "
        f"| {MANY * per_photo['memory'] / 1e9:.1f} GB |",
        f"| size ({per_photo['bytes']:,.0f} bytes each, in {shards:,} shards) "
        f"| {MANY * per_photo['bytes'] / 1e9:,.0f} GB |",
        f"| `photos.npy` of a packed data set (12,288 bytes each) | {MANY * 12_288 / 1e9:,.0f} GB |",
        f"| one pass at the rate above, one core | {MANY / per_photo['rate'] / 60:,.0f} minutes |",
        f"| traffic at 1,000 photos/s of training | {1000 * per_photo['bytes'] / 1e6:.0f} MB/s |",
        f"| first batch and any batch after a resumption "
        f"| {PLACES} shards, {PLACES * per_photo['bytes'] * 512 / 1e6:.0f} MB |",
    ]


def main() -> None:
    """Measure, print and write."""
    parser = parser_for(__doc__, data="demo")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    pack = find(options.data, options.data_dir, typed=True)
    if not isinstance(pack, Pack):
        raise SystemExit(f"{options.data} is in shards: name a packed data set")
    torch.manual_seed(0)
    entries = [row for count in (1_000, 100_000, 1_000_000) for row in simulated(count)]
    print(*entries, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        written = in_shards(pack, work / "shards")
        data = Shards.open(work / "shards")
        reading = in_turns("reading batches", reader(pack, 500), reader(data, 500), options.rounds)
        after = megabytes()
        for _ in islice(reader(data, 500), options.rounds):
            pass
        flat = (
            f"{after:,.0f} MB after {options.rounds + 1} rounds of reading, {megabytes():,.0f} "
            f"MB after as many again"
        )
        training = in_turns("training, preset small", trainer(pack), trainer(data), options.rounds)
        sample = [
            np.asarray(pack.photos[i]) for i in np.random.default_rng(0).permutation(len(pack.split))[:2000]
        ]
        packed_import, shards_import = import_cost(sample, work)
        table = forms(sample[:512])
        per_photo = {
            "import": shards_import,
            "import_packed": packed_import,
            "memory": import_memory(),
            "bytes": sum(data.index["shards"]["bytes"]) / len(pack.split),
            "rate": float(reading.split("|")[3].replace(",", "")),
        }
    parts = {
        "Shards beside the packed array": [
            "| photos/s | packed | shards | ratio |",
            "|---|---|---|---|",
            reading,
            training,
            "",
            f"Medians of {options.rounds} rounds in turns; ratios come from within each round, with "
            f"their range. Writing shards takes "
            f"{written * 1e6:,.0f} µs a photo. The process held {flat}.",
        ],
        "Forms of a photo": [
            "| form | bytes in the tar | µs to write | µs to read | mean error, levels of 255 |",
            "|---|---|---|---|---|",
            *table,
        ],
        "How well the order is shuffled": [
            "| order | pairs of one category in a batch; a perfect shuffle has 1.00 |",
            "|---|---|",
            *shuffling(pack),
        ],
        "Many shards, simulated": [
            "| shards | photos | index, MB | seconds to open | MB once open | after 1,000 batches "
            "| 2,000 | 3,000 | µs to find a photo |",
            "|---|---|---|---|---|---|---|---|---|",
            *entries,
        ],
        "Ten million photos, on paper": [
            "| what | cost |",
            "|---|---|",
            *on_paper(per_photo),
        ],
    }
    text = "".join(f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in parts.items())
    text += f"""{written_by(f"shards.py --data {pack.name}")}, {torch.get_num_threads()} threads, trainings in
{for_training("auto")}, {len(pack.split):,} photos of {pack.size} pixels, batches of {BATCH}.
The load was {os.getloadavg()[0]:.1f} at the end."""
    write_figures(REPORT, text)
    print(text)


if __name__ == "__main__":
    main()
