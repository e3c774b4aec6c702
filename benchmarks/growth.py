"""How cost grows with the size of photos, with batch and width, and with the number of photos.

    python benchmarks/growth.py        # some minutes; writes docs/measurements/growth.md and growth.png there

Fits cost = a * work ** exponent to every row, by least squares of the logarithms; an ideal program's cost is
proportional to the work. So 1 is the ideal exponent; below 1, some cost is fixed; above 1, cost grows faster
than the work. Times are processor times of all threads, and the shortest of several, which other programs
disturb least.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cost import make_model
from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import PRESETS, ModelConfig, build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack, new_pack
from photochrom.diffusion.unet import UNet
from photochrom.files import write_bytes
from photochrom.precision import for_training
from photochrom.training.state import Training
from photochrom.training.step import train_step

mpl.use("Agg")
from matplotlib import pyplot as plt

SIZES = (64, 128, 256, 512)
FASTER = 1.2  # an exponent above it is more than the noise of the fit


@dataclass
class Growth:
    """One thing, measured at several sizes."""

    name: str
    unit: str  # of `at`
    at: Sequence[int]
    work: Sequence[float]
    seconds: Sequence[float]

    @property
    def exponent(self) -> float:
        """The slope of the line through the logarithms."""
        return float(np.polyfit(np.log(self.work), np.log(self.seconds), 1)[0])

    @property
    def last_exponent(self) -> float:
        """The slope between the two largest sizes, where fixed costs hide least."""
        return float(np.diff(np.log(self.seconds[-2:]))[0] / np.diff(np.log(self.work[-2:]))[0])


def best(work: Callable[[], object], times: int) -> float:
    """Processor seconds of the fastest of several runs, after one that does not count."""
    work()
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def grow(
    name: str,
    unit: str,
    at: Sequence[int],
    work: Callable[[int], float],
    make: Callable[[int], Callable[[], object]],
    times: int = 5,
) -> Growth:
    """Measure what `make` returns for each size."""
    growth = Growth(name, unit, at, [work(n) for n in at], [best(make(n), times) for n in at])
    print(line(growth), flush=True)
    return growth


def in_memory(size: int, count: int = 64) -> Pack:
    """A data set of noise, half of it for validation."""
    photos = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    split = np.repeat(["train", "validation"], count // 2)
    names = [str(n) for n in range(count)]
    return Pack(Path(), "noise", size, "", 0, photos, split, np.full(count, -1), names, [], [], "")


def training_step(size: int, batch: int, features: Sequence[int]) -> Callable[[], object]:
    """One step of V1's training."""
    values: dict[str, Any] = {"model": {"features": features}, "training": {"batch_size": batch}}
    training = Training(build(values | {"stages": [{"perceptual": 0.0}]}), in_memory(size))
    return lambda: train_step(training)


def network(
    size: int, batch: int = 1, features: Sequence[int] = PRESETS["small"].features, attention: int = 2
) -> Callable[[], object]:
    """One evaluation of the network, as in sampling."""
    unet = UNet(ModelConfig(features=tuple(features), attention=attention)).eval()
    xt, t, y = torch.randn(batch, 2, size // 2, size // 2), torch.zeros(1), torch.randn(batch, 1, size, size)

    def evaluate() -> None:
        with torch.inference_mode():
            unet(xt, t, y)

    return evaluate


def multiply_adds(work: Callable[[], object]) -> float:
    """Multiply-adds of the network, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


def attention_rows() -> list[str]:
    """Attention's share of an evaluation by photo size: at the two coarsest levels, and at one."""
    rows = []
    for size in (*SIZES, 1024):
        plain, one, two = (network(size, attention=levels) for levels in (0, 1, 2))
        work = [multiply_adds(each) for each in (plain, one, two)]
        seconds = [best(each, 3 if size < 512 else 1) for each in (plain, one, two)]
        shares = [f"{1 - values[0] / values[n]:.0%}" for n in (2, 1) for values in (work, seconds)]
        places = [(size // 2 // 2**level) ** 2 for level in (2, 3)]
        rows.append(
            f"| {size} | {places[0]:,} and {places[1]:,} | {' | '.join(shares)} | {1000 * seconds[2]:,.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def data_sets(work: Path, counts: Sequence[int]) -> list[Growth]:
    """Open a packed data set of N photos, and draw a batch."""
    folders = {}
    for count in counts:
        folders[count] = work / f"{count}"
        with new_pack(folders[count], 8, overwrite=False) as (file, index):
            for _ in range(count // 1000):
                file.write(np.random.default_rng(0).bytes(1000 * 8 * 8 * 3))
            index |= {"source": "noise", "seed": 0, "categories": [], "left_out": []}
            index["photos"] = {
                "split": ["train"] * count,
                "label": [-1] * count,
                "origin": [f"photos/{n:09}.jpg" for n in range(count)],
                "checksum": [f"{n:016x}" for n in range(count)],
            }

    def draw(count: int) -> Callable[[], object]:
        pack, steps = Pack.open(folders[count]), iter(range(10**9))
        return lambda: [pack.rgb(pack.photos_of_step(0, next(steps), 32)) for _ in range(100)]

    return [
        grow(
            "opening a packed data set", "photos", counts, float, lambda n: lambda: Pack.open(folders[n]), 3
        ),
        grow("drawing 100 batches of 32", "photos", counts, lambda n: 1.0, draw),
    ]


def importing(work: Path, counts: Sequence[int], shards: bool) -> Growth:
    """Import N photos of 64 pixels."""
    source = work / "files"

    def make(count: int) -> Callable[[], object]:
        folder = source / f"{count}"
        if not folder.exists():
            folder.mkdir(parents=True)
            random = np.random.default_rng(count)
            for n in range(count):
                colors = random.integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(colors).resize((64, 64)).save(folder / f"{n:06}.jpg")
        return lambda: import_photos(folder, work / f"made{shards}", workers=1, shards=shards, overwrite=True)

    name = "importing into shards" if shards else "importing, packed"
    return grow(name, "photos", counts, float, make, 2)


def colouring(work: Path) -> Growth:
    """One photo through `Colorizer` in one step: the network works at 64 pixels, the rest at full size."""
    make_model(work / "models", "none")
    colorizer = Colorizer.load("none", work / "models")

    def make(side: int) -> Callable[[], object]:
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)).resize(
            (side, side)
        )
        return lambda: colorizer(photo, steps=1)

    return grow(
        "colouring at full size, one step", "pixels a side", (512, 1024, 2048, 4096), lambda n: n * n, make, 3
    )


def line(growth: Growth) -> str:
    """A row of the table."""
    times = " / ".join(f"{1000 * seconds:,.3g}" for seconds in growth.seconds)
    first = f"| {growth.name} | {_sizes(growth)} | {times}"
    if growth.work[0] == growth.work[-1]:
        ratio = growth.seconds[-1] / growth.seconds[0]
        times_larger = growth.at[-1] // growth.at[0]
        return f"{first} | {ratio:.1f} times for {times_larger:,} times as many | |"
    faster = " **faster than the work**" if growth.last_exponent > FASTER else ""
    return f"{first} | {growth.exponent:.2f} | {growth.last_exponent:.2f}{faster} |"


def _sizes(growth: Growth) -> str:
    return f"{', '.join(f'{n:,}' for n in growth.at)} {growth.unit}"


def plot(growths: Sequence[Growth]) -> bytes:
    """Each cost against its size, beside a line of slope 1."""
    import io

    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    units = ("pixels a side", "photos a step", "channels", "photos")
    for axis, unit in zip(axes, units, strict=True):
        for growth in growths:
            if growth.unit == unit:
                relative = np.array(growth.seconds) / growth.seconds[0]
                axis.loglog(growth.at, relative, "o-", label=growth.name)
        lines = [growth for growth in growths if growth.unit == unit]
        ideal = max(lines, key=lambda growth: growth.work[-1] / growth.work[0])
        axis.loglog(ideal.at, np.array(ideal.work) / ideal.work[0], "k:", label="the work")
        axis.set(xlabel=unit, ylabel="times the first")
        axis.set_xticks(ideal.at, [f"{size:,}" for size in ideal.at])
        axis.minorticks_off()
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def main() -> None:
    """Measure, print and write."""
    parser_for(__doc__).parse_args()
    torch.manual_seed(0)
    small = PRESETS["small"].features
    widths = (16, 32, 64, 128)

    def wide(first: int) -> tuple[int, ...]:
        return tuple(first * 2**level for level in range(4))

    growths = [
        grow(
            "training step, 2 photos",
            "pixels a side",
            SIZES,
            lambda n: n * n,
            lambda n: training_step(n, 2, small),
            3,
        ),
        grow("network, one evaluation", "pixels a side", SIZES, lambda n: n * n, network, 3),
        grow(
            "training step",
            "photos a step",
            (1, 4, 16, 64),
            float,
            lambda n: training_step(64, n, small),
            3,
        ),
        grow(
            "network, one evaluation (batch)",
            "photos a step",
            (1, 4, 16, 64),
            float,
            lambda n: network(64, n),
            3,
        ),
        grow(
            "training step, 8 photos",
            "channels",
            widths,
            lambda n: multiply_adds(network(64, 1, wide(n))),
            lambda n: training_step(64, 8, wide(n)),
            3,
        ),
        grow(
            "network, 8 photos",
            "channels",
            widths,
            lambda n: multiply_adds(network(64, 1, wide(n))),
            lambda n: network(64, 8, wide(n)),
            3,
        ),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        growths += data_sets(work, (1_000, 10_000, 100_000, 1_000_000))
        growths += [importing(work, (1000, 2000, 4000), shards) for shards in (False, True)]
        growths.append(colouring(work))
    attention = attention_rows()
    write_bytes(MEASUREMENTS / "growth.png", plot(growths))
    text = f"""
| what | at | milliseconds | exponent | at the end |
|---|---|---|---|---|
{chr(10).join(line(growth) for growth in growths)}

The exponent is that of cost = a * work ** exponent. The work is the number of pixels, of photos, or (for
width) of multiply-adds. 1 is ideal; less means that something fixed is in it. The last column is the
exponent between the two largest sizes, where the fixed part matters least. Times are processor times of all
threads, the shortest of several.

## Attention

Its share of one evaluation, in multiply-adds and in time, at the two coarsest levels (the default) and at
the coarsest alone (`--attention 1`):

| photo | places | multiply-adds | time | `--attention 1`: multiply-adds | time | milliseconds |
|---|---|---|---|---|---|---|
{chr(10).join(attention)}

{written_by("growth.py")}, trainings in {for_training("auto")}, with {torch.get_num_threads()} threads,
preset `small`, 64x64 unless a row says otherwise. Load of the machine at the end: {os.getloadavg()[0]:.1f}
on {os.cpu_count()} cores.
"""
    write_figures(MEASUREMENTS / "growth.md", text)
    print(text)


if __name__ == "__main__":
    main()
