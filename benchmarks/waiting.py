"""Should threads spin or sleep while they wait for each other, in trainings and in short commands beside one?

    python benchmarks/waiting.py      # writes docs/measurements/waiting.md

Takes minutes, on an otherwise idle machine. libgomp's default is to spin for a while; OMP_WAIT_POLICY=PASSIVE
puts a thread to sleep at once. Both take turns, for several rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from pages import MEASUREMENTS, parser_for, written_by

POLICIES: dict[str, dict[str, str]] = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}
STEPS, BATCH = 24, 32
LOOP = "while True: pass"


def worker(steps: int) -> None:
    """Print a training's photos per second with the preset small, and how busy its threads kept the cores.

    Never ends if `steps` is 0.
    """
    from growth import training_step
    from photochrom.config import PRESETS

    step = training_step(64, BATCH, PRESETS["small"].features)
    for _ in range(5):
        step()
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    while not steps:
        step()
    for _ in range(steps):
        step()
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(steps * BATCH / seconds, used / seconds / (os.cpu_count() or 1))


def started(arguments: Sequence[str], policy: str) -> subprocess.Popen[str]:
    """A process of this script whose threads wait by this policy."""
    kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    return subprocess.Popen(
        [sys.executable, *arguments], env=kept | POLICIES[policy], stdout=subprocess.PIPE, text=True
    )


@contextmanager
def beside(arguments: Sequence[str], policy: str) -> Iterator[None]:
    """While something else runs."""
    process = started(arguments, policy)
    try:
        time.sleep(8)  # until it is busy
        yield
    finally:
        process.kill()
        process.wait()


def trained(policy: str, other: Sequence[str] | None) -> float:
    """Photos per second of a training, alone or beside another process with the same policy."""
    with ExitStack() as stack:
        if other:
            stack.enter_context(beside(other, policy))
        return float(started([__file__, "--worker", str(STEPS)], policy).communicate()[0].split()[0])


def colored(policy: str, photo: Path, training: str | None) -> float:
    """Seconds of `colorize` for one photo, alone or beside a training with some policy."""
    # LONG commands set no policy.
    code = "import sys; from photochrom.commands import cli; cli.LONG += ('colorize',); cli.app(sys.argv[1:])"
    command = ["-c", code, "colorize", str(photo), "-o", str(photo.parent / "out"), "--overwrite"]
    with ExitStack() as stack:
        if training:
            stack.enter_context(beside([__file__, "--worker", "0"], training))
        begun = time.perf_counter()
        if started(command, policy).wait():
            raise SystemExit("the photo could not be coloured")
        return time.perf_counter() - begun


def main() -> None:
    """Measure in turns and write."""
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker)
        return
    with tempfile.TemporaryDirectory() as work:
        photo = Path(work) / "photo.png"
        Image.effect_noise((640, 480), 60).save(photo)
        cases: dict[str, Callable[[str], float]] = {
            "a training, alone: photos/s": lambda policy: trained(policy, None),
            "beside a loop on one core": lambda policy: trained(policy, ["-c", LOOP]),
            "beside another training like it": lambda policy: trained(policy, [__file__, "--worker", "0"]),
            "`colorize`, alone: seconds": lambda policy: colored(policy, photo, None),
            "beside a training that spins": lambda policy: colored(policy, photo, "spinning"),
            "beside a training that sleeps": lambda policy: colored(policy, photo, "sleeping"),
        }
        rows = []
        for name, measure in cases.items():
            found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
            for _ in range(options.rounds):
                for policy in POLICIES:
                    found[policy].append(measure(policy))
            ratios = [spin / sleep for spin, sleep in zip(*found.values(), strict=True)]
            cells = [f"{statistics.median(values):.1f}" for values in found.values()]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append(f"| {name} | {' | '.join(cells)} | {ratio} |")
            print(rows[-1], flush=True)
    (MEASUREMENTS / "waiting.md").write_text(f"""# Threads that wait

{written_by("waiting.py")}. Torch's threads wait for each other many times in a step. They spin, as libgomp
has it where nothing is said, or sleep (`OMP_WAIT_POLICY=PASSIVE`). Medians of {options.rounds} rounds, in
turns; the ratio with its smallest and largest. The preset `small`, batches of {BATCH}; one photo of 640 x
480, four colourings of four steps, start-up included.

| | spinning | sleeping | spinning / sleeping |
|---|---:|---:|---:|
{chr(10).join(rows)}

So `photochrom train` and `demo` let them spin, and all other commands let them sleep. `OMP_WAIT_POLICY` set
by you is kept.
""")


if __name__ == "__main__":
    main()
