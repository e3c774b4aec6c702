"""The one thread that runs models, and the queue before it.

A `Task` is one photo for one model. Whoever comes first settles it, and only once: the worker with a picture or a problem,
a client that goes away, or the clock. The worker passes over what is settled, so to give a task up is to settle it.
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
GATHER_SECONDS = 0.02  # to wait for the next photo: alone, the first one would cost far more
LONGEST_GATHERING = 0.3
SMALL = 512 * 512  # pixels; with larger photos the network is not what takes the time
STOP_SECONDS = 5.0  # that a step may take at the end
State = Literal["waiting", "running", "done", "cancelled", "failed"]
_changes = count(1)


class GivenUp(Exception):
    """Ends a sampling that nobody waits for any more."""


class Kind(NamedTuple):
    """What tasks must have in common to be coloured together."""

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
    seconds: float  # from now on, within which it is settled
    name: str = ""
    format: Format = "png"
    guides: Guides = Guides()  # noqa: RUF009 (it is frozen)
    created: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    watched: bool = False  # whether previews are made
    preview: Image.Image | None = None
    waited: float | None = None  # seconds, once it runs
    changed: int = 0  # a number, larger than that of every earlier change of any task
    outcome: Future[Painted] = field(default_factory=Future)
    _settled: bool = False

    def __post_init__(self) -> None:
        self.deadline = self.created + self.seconds  # of the clock time.monotonic
        self.kind = Kind(self.model, self.choices, self.guides, _shape(self.size))
        self.touch()

    def touch(self) -> None:
        """Note that there is news of this task."""
        self.changed = next(_changes)

    @property
    def settled(self) -> bool:
        """Whether there is no more to do for it. To look is enough for it to expire, whatever the worker does meanwhile."""
        if not self._settled and time.monotonic() > self.deadline:
            mend = "take fewer steps or a smaller photo, or try later"
            self.settle(Problem(504, f"not done within {self.seconds:g} s: {mend}"))
        return self._settled

    @property
    def state(self) -> State:
        """How far it is."""
        if not self.settled:
            return "waiting" if self.waited is None else "running"
        error = self.outcome.exception()
        return "done" if error is None else "cancelled" if isinstance(error, GivenUp) else "failed"

    @property
    def is_small(self) -> bool:
        """Whether it gains from being coloured together with others: hints and a mask are places in one photo."""
        alone = self.choices.samples > 1 or self.choices.hint or self.guides.keep_gray is not None
        return not alone and self.size[0] * self.size[1] <= SMALL

    def settle(self, outcome: Painted | Exception) -> bool:
        """Give it its outcome; False if somebody was faster."""
        try:
            if isinstance(outcome, Exception):
                self.outcome.set_exception(outcome)
            else:
                self.outcome.set_result(outcome)
        except InvalidStateError:
            return False
        # A job is kept for a while; the files that were sent are not.
        self.photo, self.guides, self.preview = b"", Guides(), None
        self.kind = self.kind._replace(guides=Guides())
        self.touch()
        self._settled = True  # after the change was noted, so that whoever sees the end has seen the change
        return True


def _shape(size: tuple[int, int]) -> tuple[int, ...]:
    """The same for photos that become equally large where the network works."""
    return tuple(round(64 * side / min(size)) for side in size)


class Worker:
    """Colours tasks in the order in which they came, small ones of a kind together.

    Its thread begins with the first task, and anew if it should ever have ended.
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
        self._moved = 0.0  # when the thread last came further
        self._batch_seconds = 1.0  # of the last one: when it is over, places become free
        self._finishers = ThreadPoolExecutor(2, "photochrom-finish")  # encode while the next photo is sampled
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many tasks have not begun."""
        with self._changed:
            return sum(not task.settled for task in self._waiting)

    @property
    def running(self) -> int:
        """How many tasks are in the batch that is worked on."""
        return sum(not task.settled for task in self._running)

    @property
    def trouble(self) -> str | None:
        """Why no photo can be coloured now; None where work goes on, or would."""
        with self._changed:
            if not self._open:
                return "the server is shutting down"
            if not self._running and not self.waiting:
                return None
            if self._thread is None or not self._thread.is_alive():
                return "the thread that colours has ended: start the server anew"
            still = time.monotonic() - self._moved
            if still > self.settings.stall_seconds:
                return f"the colouring has not come further for {still:.0f} s: start the server anew"
            return None

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue all of the tasks or none; raises Problem 503 with Retry-After when there is no room for them."""
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
                text = f"{len(self._waiting)} photos are waiting and there is no room for {len(tasks)} more"
                raise Problem(503, f"{text}: try again in {seconds} s", {"Retry-After": str(seconds)})
            for task in tasks:
                task.outcome.add_done_callback(self._count)
            if not self._running:
                self._moved = time.monotonic()
            self._waiting.extend(tasks)
            self._begin()
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, and turn away what has not begun; what runs goes on."""
        with self._changed:
            self._open = False
            for task in self._waiting:
                task.settle(_closing())
            self._changed.notify()

    def give_up(self) -> None:
        """Turn away what runs as well, within one step of its sampling."""
        for task in self._running:
            task.settle(_closing())

    def stop(self) -> bool:
        """End the thread, giving up what still runs; False if it is stuck and lives on."""
        self.close()
        self.give_up()
        if self._thread:
            self._thread.join(STOP_SECONDS)
        self._finishers.shutdown()
        atexit.unregister(self.stop)
        return self._thread is None or not self._thread.is_alive()

    def _begin(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread and self._thread.is_alive():
            return
        if self._thread:
            log.error("the thread that colours had ended, and is started anew")
        else:
            atexit.register(self.stop)  # in an application that does not tell us when it ends
        self._thread = threading.Thread(target=self._run, name="photochrom-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._open:
            kind, batch = self._next_batch()
            self._color(kind, batch)
            self._running = []

    def _next_batch(self) -> tuple[Kind | None, list[Task]]:
        """The first task that waits, with those that can be coloured along with it, and their kind; none if all are settled."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or not self._open)
            self._gather()
            live = [task for task in self._waiting if not task.settled]
            batch = live[:1]
            kind = batch[0].kind if batch else None  # once: what is settled meanwhile forgets its guides
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
        """Wait while photos keep coming, until they fill a batch."""
        end = time.monotonic() + LONGEST_GATHERING
        count = 0
        while self._open and count < self.waiting < BATCH and time.monotonic() < end:
            count = self.waiting
            self._changed.wait(GATHER_SECONDS)

    def _color(self, kind: Kind | None, tasks: Sequence[Task]) -> None:
        """Colour a batch; whatever goes wrong in it is the outcome of its tasks."""
        if kind is None:
            return
        try:
            self._color_together(kind, tasks)
        except GivenUp:
            pass  # all of them are settled: that is why it was raised
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].settle(_problem_of(error))
                return
            for task in tasks:  # what is wrong with one photo is no reason to refuse the others
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
                if len(previews) >= each * len(tasks):  # of a photo's colourings, the first is shown
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
        """Measure and encode, off the thread that samples."""
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
    """What a client is told of an error that ended its photo."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UsageError):
        return Problem(422, str(error))
    if isinstance(error, PhotochromError):
        return Problem(500, str(error))
    log.error("colouring failed", exc_info=error)
    return Problem(500, "colouring failed; the server's log says why")


class LoadedModels:
    """Models in memory, the least recently used of which go when there are too many. For the worker's thread only."""

    def __init__(self, find: Callable[[str], model_folder.ModelFolder], settings: Settings) -> None:
        self._find, self._settings = find, settings
        # name -> (time of its file, model)
        self._loaded: OrderedDict[str, tuple[int, PreviewColorizer]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What the weights of all loaded models take."""
        return sum(_bytes(colorizer) for _, colorizer in tuple(self._loaded.values()))

    @property
    def names(self) -> list[str]:
        """Loaded models, the one that goes first in front."""
        return list(self._loaded)

    def get(self, name: str) -> PreviewColorizer:
        """The model, loaded if need be, and anew when a training has written better weights."""
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
