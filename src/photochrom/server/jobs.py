"""Jobs: several photos by one or two models, sent together and fetched one by one."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from pydantic import BaseModel, Field

from photochrom.server.photos import Measures, Timings
from photochrom.server.problems import Problem, ProblemDetails
from photochrom.server.settings import Settings
from photochrom.server.worker import GivenUp, State, Task

log = logging.getLogger("photochrom.server")
PROCESS = secrets.token_hex(4)  # part of every id, so that a process recognises another's


class TaskStatus(BaseModel):
    """The status of one photo with one model."""

    photo: str = Field(description="Its file name.")
    model: str
    state: State
    step: int
    steps: int
    problem: ProblemDetails | None = Field(None, description="If it failed: why.")
    pictures: int | None = Field(None, description="If it is done: how many pictures there are to fetch.")
    measures: list[Measures] | None = Field(None, description="If it is done: one for each sample.")
    timings: Timings | None = None

    @classmethod
    def of(cls, task: Task) -> Self:
        """The status of a task now."""
        status = cls(photo=task.name, model=task.model, state=task.state, step=task.step, steps=task.steps)
        if not task.settled:
            return status
        if error := task.outcome.exception():
            status.problem = error.details() if isinstance(error, Problem) else None
        else:
            painted = task.outcome.result()
            status.pictures, status.measures = len(painted.files), painted.measures
            status.timings = painted.timings
        return status


class JobStatus(BaseModel):
    """The status of a job.

    Tasks are in the order of the photos; those of one photo are in the order of the models.
    """

    id: str
    state: State = Field(description="`done` even if some tasks failed; `failed` if all did.")
    tasks: list[TaskStatus]

    @classmethod
    def of(cls, job: Job) -> Self:
        """The status of a job now."""
        return cls(id=job.id, state=job.state, tasks=[TaskStatus.of(task) for task in job.tasks])


@dataclass
class Job:
    """Tasks that were sent together. In memory only."""

    tasks: list[Task]
    id: str = field(default_factory=lambda: f"{PROCESS}.{secrets.token_urlsafe(12)}")
    watchers: int = 0  # open streams of events
    left: int = 0  # how often a stream was closed
    settled_at: float | None = None

    @property
    def settled(self) -> bool:
        """Whether all its tasks are settled."""
        return all(task.settled for task in self.tasks)

    @property
    def state(self) -> State:
        """See `JobStatus`."""
        states = {task.state for task in self.tasks}
        if not self.settled:
            return "running" if states - {"waiting"} else "waiting"
        return "done" if "done" in states else "cancelled" if "cancelled" in states else "failed"

    @property
    def bytes(self) -> int:
        """Size of its finished pictures."""
        return sum(
            len(file) for task in self.tasks if task.state == "done" for file in task.outcome.result().files
        )

    def cancel(self) -> None:
        """Cancel the tasks that are not done."""
        for task in self.tasks:
            task.settle(GivenUp("cancelled"))


class Jobs:
    """The jobs that clients can ask for.

    Finished ones go after a while, or when newer ones need their memory.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        """Keep a job."""
        self._tidy()
        self._jobs[job.id] = job

    def get(self, id: str) -> Job:
        """The job, or Problem 404."""
        self._tidy()
        if id not in self._jobs and not id.startswith(f"{PROCESS}."):
            text = (
                "this server process does not know the job: it has restarted since, "
                "or is one of several (run a single one, without --workers)"
            )
            log.warning("%s: %s", id[:40], text)
            raise Problem(404, text)
        if id not in self._jobs:
            raise Problem(404, "there is no such job, or its time to be fetched is over")
        return self._jobs[id]

    def remove(self, id: str) -> None:
        """Cancel a job and delete its pictures."""
        self.get(id).cancel()
        del self._jobs[id]

    def _tidy(self) -> None:
        now, taken = time.monotonic(), 0
        for job in self._newest_first():
            if not job.settled:
                continue
            job.settled_at = job.settled_at or now
            # The newest one always stays: its client is about to fetch it.
            too_much = taken > 0 and taken + job.bytes > self._settings.result_bytes
            taken += job.bytes
            if now - job.settled_at > self._settings.result_seconds or too_much:
                del self._jobs[job.id]

    def _newest_first(self) -> Iterator[Job]:
        return iter(list(self._jobs.values())[::-1])
