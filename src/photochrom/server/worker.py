"""The one thread that runs models, and the queue before it.

A `Task` is one photo to be coloured by one model. It is settled exactly once, by whoever comes first: the worker with
pictures or a problem, a client that goes away, or the clock. Whatever is settled is passed over, so that giving up a
task is the same as settling it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from PIL import Image

from photochrom import model_folder
from photochrom.errors import PhotochromError, UsageError
from photochrom.server.photos import (
    Choices,
    Format,
    Guides,
    Painted,
    PreviewColorizer,
    open_upload,
    paint,
)
from photochrom.server.problems import Problem
from photochrom.server.settings import Settings

log = logging.getLogger("photochrom.server")
BATCH = 64
GATHER_SECONDS = 0.02  # in which the next photo has to come; the first one alone would cost far more
LONGEST_GATHERING = 0.3
SMALL = 512 * 512  # pixels; of larger photos the network's part is not what takes the time


class GivenUp(Exception):
    """Ends a sampling that nobody waits for any more."""


@dataclass(eq=False)
class Task:
    """One photo to be coloured by one model."""

    model: str
    photo: bytes  # the file as it was sent
    size: tuple[int, int]  # from its header
    choices: Choices
    deadline: float  # of the clock time.monotonic
    name: str = ""
    format: Format = "png"
    guides: Guides = Guides()  # noqa: RUF009 (it is frozen)
    created: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    watched: bool = False  # whether previews are made
    preview: Image.Image | None = None
    waited: float | None = None  # seconds, once it runs
    outcome: Future[Painted] = field(default_factory=Future)

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to be done for it."""
        return self.outcome.done()

    @property
    def state(self) -> str:
        """waiting, running, done, cancelled or failed."""
        if not self.settled:
            return "waiting" if self.waited is None else "running"
        error = self.outcome.exception()
        return "done" if error is None else "cancelled" if isinstance(error, GivenUp) else "failed"

    @property
    def is_plain(self) -> bool:
        """Whether it can be coloured together with others: hints and a mask are places in one photo."""
        return self.choices.samples == 1 and not self.choices.hint and self.guides.keep_gray is None

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Tasks of the same key are coloured together: photos of one shape, by one model, in one way."""
        shorter = min(self.size)
        return self.model, self.choices, self.guides, tuple(round(64 * side / shorter) for side in self.size)

    def settle(self, outcome: Painted | Exception) -> bool:
        """Give it its outcome; False if somebody was faster."""
        try:
            if isinstance(outcome, Exception):
                self.outcome.set_exception(outcome)
            else:
                self.outcome.set_result(outcome)
        except InvalidStateError:
            return False
        self.photo, self.guides, self.preview = (
            b"",
            Guides(),
            None,
        )  # a job is kept for a while, its uploads are not
        return True


class Worker:
    """Runs tasks in the order in which they came, small ones of a kind together."""

    def __init__(
        self, settings: Settings, find: Callable[[str], model_folder.ModelFolder], metrics: Any
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.models = LoadedModels(find, settings)
        self._waiting: deque[Task] = deque()
        self._running: list[Task] = []
        self._changed = threading.Condition()
        self._open = True
        self._batch_seconds = 1.0  # of the last one: when it is over, places become free
        self._finishers = ThreadPoolExecutor(2, "photochrom-finish")  # encode while the next photo is sampled
        self._thread = threading.Thread(target=self._run, name="photochrom-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many tasks have not begun."""
        return sum(not task.settled for task in tuple(self._waiting))

    @property
    def running(self) -> int:
        """How many tasks are in the batch that is worked on."""
        return sum(not task.settled for task in tuple(self._running))

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue all of the tasks or none; raises Problem 503 with Retry-After when there is no room for them."""
        with self._changed:
            self._waiting = deque(task for task in self._waiting if not task.settled)
            if not self._open:
                raise Problem(503, "the server is shutting down", {"Retry-After": "10"})
            bytes_there = sum(len(task.photo) for task in (*self._waiting, *tasks))
            if (
                len(self._waiting) + len(tasks) > self.settings.queue_photos
                or bytes_there > self.settings.queue_bytes
            ):
                self.metrics.refused.inc(len(tasks))
                seconds = min(60, max(1, round(self._batch_seconds)))
                text = f"{len(self._waiting)} photos are waiting and there is no room for {len(tasks)} more"
                raise Problem(503, f"{text}: try again in {seconds} s", {"Retry-After": str(seconds)})
            self._waiting.extend(tasks)
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, and turn away what has not begun; what runs goes on."""
        with self._changed:
            self._open = False
            for task in self._waiting:
                task.settle(Problem(503, "the server is shutting down", {"Retry-After": "10"}))
            self._changed.notify()

    def give_up(self) -> None:
        """Turn away what runs as well, within one step of its sampling."""
        for task in tuple(self._running):
            task.settle(Problem(503, "the server is shutting down", {"Retry-After": "10"}))

    def stop(self) -> None:
        """End the thread, giving up what still runs."""
        self.close()
        self.give_up()
        self._thread.join()
        self._finishers.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._color(batch)
            except GivenUp:
                pass  # all of them are settled: that is why it was raised
            except Exception as error:  # one photo must not end the server
                self._fail(batch, error)
            self._running = []

    def _settle(self, task: Task, outcome: Painted | Exception, counted_as: str | None = None) -> None:
        """Give a task its outcome, and count it, unless it was given up before."""
        if task.settle(outcome):
            self.metrics.photos.labels(counted_as or task.state).inc()

    def _next_batch(self) -> list[Task]:
        """The first task that waits, and those that can be coloured along with it; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or not self._open)
            self._gather()
            live = [task for task in self._waiting if not task.settled]
            batch = live[:1]
            if batch and batch[0].size[0] * batch[0].size[1] <= SMALL and batch[0].is_plain:
                key = batch[0].batch_key
                mates = (t for t in live if t.batch_key == key and t.size[0] * t.size[1] <= SMALL)
                batch = list(islice(mates, BATCH))
            self._waiting = deque(task for task in live if task not in batch)
            for task in batch:
                task.waited = time.monotonic() - task.created
            self._running = batch
            return batch

    def _gather(self) -> None:
        """Wait while photos keep coming, until they fill a batch."""
        end = time.monotonic() + LONGEST_GATHERING
        count = 0
        while self._open and count < self.waiting < BATCH and time.monotonic() < end:
            count = self.waiting
            self._changed.wait(GATHER_SECONDS)

    def _color(self, batch: list[Task]) -> None:
        tasks, photos = [], []
        for task in batch:
            try:
                photos.append(open_upload(task.photo))
                tasks.append(task)
            except Problem as problem:
                self._settle(task, problem)
        if not tasks:
            return
        colorizer = self.models.get(tasks[0].model)
        self.metrics.batch_photos.observe(len(tasks))
        begun = time.monotonic()

        def step_done(step: int, steps: int) -> None:
            self._expire()
            if all(task.settled for task in tasks):
                raise GivenUp
            previews = colorizer.previews() if any(task.watched for task in tasks) else []
            each = tasks[0].choices.average if len(tasks) > 1 else 1
            for place, task in enumerate(tasks):
                task.steps, task.step = steps, step
                if len(previews) >= each * len(tasks):  # of a photo's colourings, the first is shown
                    task.preview = previews[each * place]

        results = paint(colorizer, photos, tasks[0].choices, step_done, tasks[0].guides)
        seconds = time.monotonic() - begun
        self._batch_seconds = seconds
        self.metrics.sampling_seconds.observe(seconds)
        for task, photo, pictures in zip(tasks, photos, results, strict=True):
            painted = Painted(photo, pictures, task.choices, task.waited or 0.0, seconds / len(tasks))
            if not task.settled:
                self._finishers.submit(self._finish, task, painted)

    def _finish(self, task: Task, painted: Painted) -> None:
        """Measure and encode, off the thread that samples."""
        try:
            painted.finish(task.format)
            outcome: Painted | Exception = painted
        except Exception as error:
            log.error("a picture could not be finished", exc_info=error)
            outcome = Problem(500, "the picture could not be written; the server's log says why")
        self._settle(task, outcome)

    def _expire(self) -> None:
        now = time.monotonic()
        for task in (*self._running, *tuple(self._waiting)):
            if now > task.deadline and not task.settled:
                limit = f"{self.settings.job_seconds:g} s"
                problem = Problem(
                    504, f"not done within {limit}: take fewer steps or a smaller photo, or try later"
                )
                self._settle(task, problem, "timeout")

    def _fail(self, batch: Iterable[Task], error: Exception) -> None:
        """Settle a batch with what went wrong."""
        if isinstance(error, Problem):
            problem = error
        elif isinstance(error, UsageError):
            problem = Problem(422, str(error))
        elif isinstance(error, PhotochromError):
            problem = Problem(500, str(error))
        else:
            log.error("colouring failed", exc_info=error)
            problem = Problem(500, "colouring failed; the server's log says why")
        for task in batch:
            self._settle(task, problem)


class LoadedModels:
    """Models in memory, the least recently used of which go when there are too many. For the worker's thread only."""

    def __init__(self, find: Callable[[str], model_folder.ModelFolder], settings: Settings) -> None:
        self._find, self._settings = find, settings
        self._loaded: OrderedDict[str, tuple[int, PreviewColorizer]] = (
            OrderedDict()
        )  # name -> (time of its file, model)

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
