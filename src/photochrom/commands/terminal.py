"""Progress on the terminal, all on stderr, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from photochrom import processes

if TYPE_CHECKING:
    from photochrom.training.loop import Progress as TrainingProgress

LINE_SECONDS = 30.0  # between lines of progress without a terminal


def duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Display:
    """Progress: a bar on a terminal, else a line every LINE_SECONDS.

    Of several processes only the first prints.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not processes.is_first())
        columns = (
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
        )
        self._bar = Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        self._task = self._bar.add_task("", total=None, text="")
        self._begun = self._last_line = time.monotonic()
        self._done = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def show(self, done: float, total: float, text: str, seconds_left: float | None = None) -> None:
        """Show progress.

        Estimates the time left from the pace so far, unless given. A smaller count starts again.
        """
        now = time.monotonic()
        if done < self._done:
            self._begun = now
        self._done = done
        if seconds_left is None:
            seconds_left = (now - self._begun) / done * (total - done) if done else None
        if seconds_left is not None:
            text += f", {duration(seconds_left)} left"
        self._bar.update(self._task, completed=done, total=total, text=text)
        if not self.console.is_terminal and now - self._last_line > LINE_SECONDS:
            self.say(text)


class TrainingDisplay(Display):
    """Progress of a training: a bar that moves with each step, and a line for each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs_done = 0

    def report(self, progress: TrainingProgress) -> None:
        """The `report` to give to `train`."""
        if progress.preparing:
            text = f"preparing photos, once ({progress.step:,} of {progress.steps:,})"
            self.show(progress.step, progress.steps, text, progress.seconds_left)
            return
        epoch = f"epoch {progress.epoch:{len(str(progress.epochs))}}/{progress.epochs}"
        if record := progress.record:
            self.epochs_done += 1
            losses = f"loss {record['train_loss']:.4f}  validation {record['val_loss']:.4f}"
            best = "  best so far" if progress.best else ""
            self.say(f"{epoch}  {progress.stage}  {losses}  {duration(record['seconds'])}{best}")
        for note in progress.notes:
            self.say(f"  note: {note}")
        if record:
            return
        done = (progress.epoch - 1) * progress.steps + progress.step
        text = f"{epoch} ({progress.step}/{progress.steps}) loss {progress.loss:.3f}"
        text += f", {progress.photos_per_second:.0f} photos/s"
        self.show(done, progress.epochs * progress.steps, text, progress.seconds_left)


@contextmanager
def asked_to_stop(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the number of the first SIGINT or SIGTERM, 0 before.

    A second one quits at once.
    """
    received = 0

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # shows the cursor, which the bar hides
            os._exit(128 + number)
        received = number
        say("stopping once this step is done and saved (again: quit at once)")

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
