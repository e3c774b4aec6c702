"""The one thread that runs models, and the queue before it.

A `Task` is one photo for one model. It is settled once, by whoever is first: the worker with a picture or a
problem, a client that disconnects, or the clock. The worker skips settled tasks, so settling a task cancels
it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

from PIL import Image

from photochrom import model_folder
from photochrom.errors import PhotochromError, UsageError
from photochrom.server.metrics import Metrics
from photochrom.server.photos import (
    Choices,
    Format,
    Guides,
    Painted,
    PreviewColorizer,
    paint,
    read_gray,
)
from photochrom.server.problems import Problem
from photochrom.server.settings import Settings

log = logging.getLogger("photochrom.server")
BATCH = 64
GATHER_SECONDS = 0.02  # to wait for another photo: in a batch, each costs far less
LONGEST_GATHERING = 0.3
SMALL = 512 * 512  # pixels; with larger photos, most of the time goes elsewhere than into the network
STOP_SECONDS = 5.0  # for the last step to end
State = Literal["waiting", "running", "done", "cancelled", "failed"]
_changes = count(1)


class GivenUp(Exception):
    """Ends a sampling that nobody waits for."""


class Kind(NamedTuple):
    """What tasks must share to be coloured together."""

    model: str
    choices: Choices
    guides: Guides
    shape: tuple[int, ...]


@dataclass(eq=False)
class Task:
    """One photo for one model."""

    model: str
    photo: bytes  # the file as it was sent
    size: tuple[int, int]  # from its header
    choices: Choices
    seconds: float  # until it expires
    name: str = ""
    format: Format = "png"
    guides: Guides = Guides()  # noqa: RUF009 (it is frozen)
    created: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    watched: bool = False  # whether to make previews
    preview: Image.Image | None = None
    waited: float | None = None  # seconds in the queue; None until it runs
    changed: int = 0  # number of its last change; numbers rise over all tasks
    outcome: Future[Painted] = field(default_factory=Future)
    _settled: bool = False

    def __post_init__(self) -> None:
        self.deadline = self.created + self.seconds  # on the clock of time.monotonic
        self.kind = Kind(self.model, self.choices, self.guides, _shape(self.size))
        self.touch()

    def touch(self) -> None:
        """Note a change."""
        self.changed = next(_changes)

    @property
    def settled(self) -> bool:
        """Whether it has its outcome. Reading this makes a late task expire, whatever the worker is doing."""
        if not self._settled and time.monotonic() > self.deadline:
            mend = "take fewer steps or a smaller photo, or try again later"
            self.settle(Problem(504, f"not done within {self.seconds:g} s: {mend}"))
        return self._settled

    @property
    def state(self) -> State:
        """Its state now."""
        if not self.settled:
            return "waiting" if self.waited is None else "running"
        error = self.outcome.exception()
        return "done" if error is None else "cancelled" if isinstance(error, GivenUp) else "failed"

    @property
    def is_small(self) -> bool:
        """Whether to colour it together with others. Hints and masks are places in one photo."""
        alone = self.choices.samples > 1 or self.choices.hint or self.guides.keep_gray is not None
        return not alone and self.size[0] * self.size[1] <= SMALL

    def settle(self, outcome: Painted | Exception) -> bool:
        """Set its outcome. Returns False if it already has one."""
        try:
            if isinstance(outcome, Exception):
                self.outcome.set_exception(outcome)
            else:
                self.outcome.set_result(outcome)
        except InvalidStateError:
            return False
        # A job stays in memory for a while; the uploaded files need not.
        self.photo, self.guides, self.preview = b"", Guides(), None
        self.kind = self.kind._replace(guides=Guides())
        self.touch()
        self._settled = True  # last, so that whoever sees a settled task also sees its change
        return True


def _shape(size: tuple[int, int]) -> tuple[int, ...]:
    """Equal for photos that have equal sides where the network works."""
    return tuple(round(64 * side / min(size)) for side in size)


class Worker:
    """Colours tasks in order of arrival, small ones of a kind together.

    Its thread starts with the first task, and again should it ever have died.
    """

    def __init__(
        self, settings: Settings, find: Callable[[str], model_folder.ModelFolder], metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.models = LoadedModels(find, settings)
        self._waiting: deque[Task] = deque()
        self._running: list[Task] = []
        self._changed = threading.Condition()
        self._open = True
        self._moved = 0.0  # when the thread last made progress
        self._batch_seconds = 1.0  # of the last batch; when one ends, the queue has room
        self._finishers = ThreadPoolExecutor(
            2, "photochrom-finish"
        )  # encode during the next photo's sampling
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Number of tasks in the queue."""
        with self._changed:
            return sum(not task.settled for task in self._waiting)

    @property
    def running(self) -> int:
        """Number of tasks in the current batch."""
        return sum(not task.settled for task in self._running)

    @property
    def trouble(self) -> str | None:
        """Why the server cannot colour now; None if it can."""
        with self._changed:
            if not self._open:
                return "the server is shutting down"
            if not self._running and not self.waiting:
                return None
            if self._thread is None or not self._thread.is_alive():
                return "the thread that colours has died: restart the server"
            still = time.monotonic() - self._moved
            if still > self.settings.stall_seconds:
                return f"colouring has made no progress for {still:.0f} s: restart the server"
            return None

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue all of the tasks, or none: raises Problem 503 with Retry-After if there is no room."""
        with self._changed:
            if not self._open:
                raise _closing()
            self._waiting = deque(task for task in self._waiting if not task.settled)
            bytes_there = sum(len(task.photo) for task in (*self._waiting, *tasks))
            if (
                len(self._waiting) + len(tasks) > self.settings.queue_photos
                or bytes_there > self.settings.queue_bytes
            ):
                self.metrics.refused.inc(len(tasks))
                seconds = min(60, max(1, round(self._batch_seconds)))
                text = f"{len(self._waiting)} photos are waiting, and there is no room for {len(tasks)} more"
                raise Problem(503, f"{text}: try again in {seconds} s", {"Retry-After": str(seconds)})
            for task in tasks:
                task.outcome.add_done_callback(self._count)
            if not self._running:
                self._moved = time.monotonic()
            self._waiting.extend(tasks)
            self._begin()
            self._changed.notify()

    def close(self) -> None:
        """Refuse new tasks and those in the queue. The current batch goes on."""
        with self._changed:
            self._open = False
            for task in self._waiting:
                task.settle(_closing())
            self._changed.notify()

    def give_up(self) -> None:
        """Stop the current batch too, within one sampling step."""
        for task in self._running:
            task.settle(_closing())

    def stop(self) -> bool:
        """Give everything up and end the thread. Returns False if the thread is stuck."""
        self.close()
        self.give_up()
        if self._thread:
            self._thread.join(STOP_SECONDS)
        self._finishers.shutdown()
        atexit.unregister(self.stop)
        return self._thread is None or not self._thread.is_alive()

    def _begin(self) -> None:
        """Start the thread unless it runs."""
        if self._thread and self._thread.is_alive():
            return
        if self._thread:
            log.error("the thread that colours had died; starting it again")
        else:
            atexit.register(self.stop)  # for applications that do not run our lifespan
        self._thread = threading.Thread(target=self._run, name="photochrom-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._open:
            kind, batch = self._next_batch()
            self._color(kind, batch)
            self._running = []

    def _next_batch(self) -> tuple[Kind | None, list[Task]]:
        """The first waiting task with others to colour together, and their kind; none if all are settled."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or not self._open)
            self._gather()
            live = [task for task in self._waiting if not task.settled]
            batch = live[:1]
            kind = batch[0].kind if batch else None  # read once: settling a task drops its guides
            if batch and batch[0].is_small:
                batch = [task for task in live if task.kind == kind and task.is_small][:BATCH]
            self._waiting = deque(task for task in live if task not in batch)
            for task in batch:
                task.waited = time.monotonic() - task.created
                task.touch()
            self._running = batch
            self._moved = time.monotonic()
            return kind, batch

    def _gather(self) -> None:
        """Wait while photos keep arriving, until they fill a batch."""
        end = time.monotonic() + LONGEST_GATHERING
        count = 0
        while self._open and count < self.waiting < BATCH and time.monotonic() < end:
            count = self.waiting
            self._changed.wait(GATHER_SECONDS)

    def _color(self, kind: Kind | None, tasks: Sequence[Task]) -> None:
        """Colour a batch. An error becomes the outcome of its tasks."""
        if kind is None:
            return
        try:
            self._color_together(kind, tasks)
        except GivenUp:
            pass  # all tasks are settled: `step_done` raised it
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].settle(_problem_of(error))
                return
            for task in tasks:  # one by one, so that a bad photo fails alone
                self._color(kind, [task])

    def _color_together(self, kind: Kind, batch: Sequence[Task]) -> None:
        tasks, photos = [], []
        for task in batch:
            try:
                photos.append(read_gray(task.photo, self.settings.max_pixels))
                tasks.append(task)
            except Problem as problem:
                task.settle(problem)
        if not tasks:
            return
        colorizer = self.models.get(kind.model)
        self._moved = begun = time.monotonic()
        self.metrics.batch_photos.observe(len(tasks))

        def step_done(step: int, steps: int) -> None:
            self._moved = time.monotonic()
            if all(task.settled for task in tasks):
                raise GivenUp
            previews = colorizer.previews() if any(task.watched for task in tasks) else []
            each = kind.choices.average if len(tasks) > 1 else 1
            for place, task in enumerate(tasks):
                task.steps, task.step = steps, step
                if len(previews) >= each * len(tasks):  # show the first of each photo's colourings
                    task.preview = previews[each * place]
                task.touch()

        results = paint(colorizer, photos, kind.choices, step_done, kind.guides)
        self._batch_seconds = seconds = time.monotonic() - begun
        self.metrics.sampling_seconds.observe(seconds)
        for task, pictures in zip(tasks, results, strict=True):
            if not task.settled:
                painted = Painted(
                    task.photo, pictures, kind.choices, task.waited or 0.0, seconds / len(tasks)
                )
                self._finishers.submit(self._finish, task, painted)

    def _finish(self, task: Task, painted: Painted) -> None:
        """Measure and encode, in another thread than sampling."""
        try:
            painted.finish(task.format, self.settings.max_pixels)
        except Problem as problem:
            task.settle(problem)
        except Exception as error:
            log.error("a picture could not be finished", exc_info=error)
            task.settle(Problem(500, "the picture could not be written; the server's log says why"))
        else:
            task.settle(painted)

    def _count(self, outcome: Future[Painted]) -> None:
        error = outcome.exception()
        if error is None:
            word = "done"
        elif isinstance(error, GivenUp):
            word = "cancelled"
        else:
            word = "timeout" if isinstance(error, Problem) and error.status_code == 504 else "failed"
        self.metrics.photos.labels(word).inc()


def _closing() -> Problem:
    return Problem(503, "the server is shutting down", {"Retry-After": "10"})


def _problem_of(error: Exception) -> Problem:
    """The problem to report to a client whose photo ended with this error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UsageError):
        return Problem(422, str(error))
    if isinstance(error, PhotochromError):
        return Problem(500, str(error))
    log.error("colouring failed", exc_info=error)
    return Problem(500, "colouring failed; the server's log says why")


class LoadedModels:
    """Models in memory. When they take too much, the least recently used go. For the worker's thread only."""

    def __init__(self, find: Callable[[str], model_folder.ModelFolder], settings: Settings) -> None:
        self._find, self._settings = find, settings
        # name -> (time of its file, model)
        self._loaded: OrderedDict[str, tuple[int, PreviewColorizer]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Size of the weights of all loaded models."""
        return sum(_bytes(colorizer) for _, colorizer in tuple(self._loaded.values()))

    @property
    def names(self) -> list[str]:
        """Loaded models, the least recently used first."""
        return list(self._loaded)

    def get(self, name: str) -> PreviewColorizer:
        """The model. Loads it if it is not loaded, or if a training has written better weights since."""
        weights = self._find(name) / model_folder.WEIGHTS
        changed = weights.stat().st_mtime_ns
        if name not in self._loaded or self._loaded[name][0] != changed:
            self._loaded.pop(name, None)
            self._loaded[name] = changed, PreviewColorizer.load(weights, device=self._settings.device)
        self._loaded.move_to_end(name)
        while len(self._loaded) > 1 and self.bytes > self._settings.model_bytes:
            self._loaded.popitem(last=False)
        return self._loaded[name][1]


def _bytes(colorizer: PreviewColorizer) -> int:
    return sum(weight.numel() * weight.element_size() for weight in colorizer.network.parameters())
