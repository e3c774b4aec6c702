"""How much of its fair share a training gets beside other work, and what a photo costs beside a training.

    python benchmarks/waiting.py                           # about 12 minutes on a quiet machine
    python benchmarks/waiting.py --rounds 1 --seconds 2 --out page.md    # only to try the script

It writes docs/measurements/waiting.md.

The fair share is what a scheduler gives that treats all runnable threads alike. On C cores, a training has
C threads. Beside N busy loops it gets C of C + N shares of the cores. So its fair share is C / (C + N) of
what it does alone.

The training takes each batch in two ways. By parts, as `photochrom train` does: each thread takes whole parts
of the batch (`training/workers.py`). By operations, as torch does: all threads share each operation and wait
for each other at its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from PIL import Image

from pages import MEASUREMENTS, parser_for, table, write_figures, written_by

ALONE = {"parts": False, "operations": True}  # by way: what `Workers` is told
LOOPS = {"alone": 0, "beside one busy loop": 1, "beside four busy loops": 4}
CORES = os.cpu_count() or 1
BATCH, WARM_UP = 32, 3  # photos, steps


def train_here(way: str, seconds: float) -> None:
    """Warm up, say so, wait for a line, train so long (0: for ever), and print photos per second."""
    from growth import training_step
    from photochrom.config import PRESETS
    from photochrom.training import state
    from photochrom.training.workers import Workers

    state.Workers = lambda photos, alone: Workers(photos, ALONE[way])  # type: ignore[assignment, misc]
    step = training_step(64, BATCH, PRESETS["small"].features)
    for _ in range(WARM_UP):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, steps = time.perf_counter(), 0
    while not seconds or time.perf_counter() - begun < seconds:
        step()
        steps += 1
    print(steps * BATCH / (time.perf_counter() - begun), flush=True)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this script's Python, for as long as the block lasts."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *arguments], env=kept, stdin=pipe, stdout=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def training(way: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A training in a process of its own, warm, that begins now."""
    with running(__file__, "--way", way, "--seconds", str(seconds)) as process:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the training ended before it began: its error stands above")
        yield process


def begin(process: subprocess.Popen[str]) -> None:
    """Let a warm training begin."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def trained(way: str, loops: int, seconds: float) -> float:
    """Photos per second of a training beside so many busy loops."""
    with ExitStack() as stack:
        process = stack.enter_context(training(way, seconds))
        for _ in range(loops):
            stack.enter_context(running("-c", "while True: pass"))
        begin(process)
        assert process.stdout
        return float(process.stdout.readline())


def colored(photo: Path, way: str | None) -> float:
    """Seconds of `colorize` for one photo, alone or beside a training."""
    with ExitStack() as stack:
        if way:
            begin(stack.enter_context(training(way, 0)))
        begun = time.perf_counter()
        command = ("colorize", str(photo), "-o", str(photo.parent / "out.png"), "--overwrite")
        if stack.enter_context(running("-m", "photochrom", *command)).wait():
            raise SystemExit("the photo could not be coloured: the error stands above")
        return time.perf_counter() - begun


def spread(values: list[float]) -> str:
    """The median with the smallest and the largest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure in turns, print, and write the figures."""
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement of a training")
    parser.add_argument("--out", type=Path, default=MEASUREMENTS / "waiting.md")
    parser.add_argument("--way", choices=ALONE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        train_here(options.way, options.seconds)
        return
    rates: dict[tuple[str, str], list[float]] = {(way, name): [] for way in ALONE for name in LOOPS}
    waits: dict[str, list[float]] = {"": []} | {way: [] for way in ALONE}
    with tempfile.TemporaryDirectory() as work:
        photo = Path(work) / "photo.png"
        Image.effect_noise((640, 480), 60).save(photo)
        for number in range(options.rounds):
            for name, loops in LOOPS.items():
                for way in ALONE:
                    rates[way, name].append(trained(way, loops, options.seconds))
                    print(
                        f"round {number + 1}: by {way}, {name}: {rates[way, name][-1]:.1f} photos/s",
                        flush=True,
                    )
            for way, seconds in waits.items():
                seconds.append(colored(photo, way or None))
                print(
                    f"round {number + 1}: colorize beside {way or 'nothing'}: {seconds[-1]:.1f} s", flush=True
                )

    def against(way: str, name: str) -> list[float]:
        """Of each round: the rate as a share of the one alone."""
        return [rate / alone for rate, alone in zip(rates[way, name], rates[way, "alone"], strict=True)]

    rows, fair_parts = [], {}
    for name, loops in LOOPS.items():
        fair = CORES / (CORES + loops)
        for way in ALONE:
            of_fair = [share / fair for share in against(way, name)]
            fair_parts[way, name] = median(of_fair)
            rates_, shares = rates[way, name], against(way, name)
            rows.append(
                [name, way, f"{median(rates_):.1f}", f"{median(shares):.2f}", f"{fair:.2f}", spread(of_fair)]
            )
    loss = [
        one / other for one, other in zip(rates["parts", "alone"], rates["operations", "alone"], strict=True)
    ]
    colour = []
    for way, seconds in waits.items():
        times = [one / other for one, other in zip(seconds, waits[""], strict=True)]
        name = f"beside a training by {way}" if way else "alone"
        colour.append([name, f"{median(seconds):.1f}", spread(times)])
    one, four = list(LOOPS)[1:]
    figures = f"""
By parts, a training gets {fair_parts["parts", one]:.2f} of its fair share beside one busy loop and
{fair_parts["parts", four]:.2f} beside four. By operations it gets {fair_parts["operations", one]:.2f} and
{fair_parts["operations", four]:.2f}. Alone, by parts is {spread(loss)} times as fast as by operations.

{table(["a training", "by", "photos/s", "of alone", "fair share", "of the fair share"], rows)}

{table(["`colorize`, one photo of 640 x 480", "seconds", "times as long as alone"], colour)}

{written_by("waiting.py")}. Preset `small`, batches of {BATCH}, {options.seconds:g} seconds each. Medians of
{options.rounds} rounds in turns; ratios come from within each round, with range. `colorize` starts up, too.
"""
    write_figures(options.out, figures)
    print(figures)


if __name__ == "__main__":
    main()
