"""Jobs: several photos by one or two models, asked for together and fetched one by one."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from photochrom.server.problems import Problem
from photochrom.server.settings import Settings
from photochrom.server.worker import GivenUp, Task

log = logging.getLogger("photochrom.server")
PROCESS = secrets.token_hex(4)  # part of every id, so that a process knows those of another


@dataclass
class Job:
    """Tasks that belong together. Held in memory only."""

    tasks: list[Task]
    id: str = field(default_factory=lambda: f"{PROCESS}.{secrets.token_urlsafe(12)}")
    watchers: int = 0  # open streams of events
    settled_at: float | None = None

    @property
    def settled(self) -> bool:
        """Whether every task is."""
        return all(task.settled for task in self.tasks)

    @property
    def state(self) -> str:
        """waiting, running, done (some may have failed), cancelled or failed (all have)."""
        states = {task.state for task in self.tasks}
        if not self.settled:
            return "running" if states - {"waiting"} else "waiting"
        return "done" if "done" in states else "cancelled" if "cancelled" in states else "failed"

    @property
    def bytes(self) -> int:
        """What its finished pictures take."""
        return sum(
            len(file) for task in self.tasks if task.state == "done" for file in task.outcome.result().files
        )

    def cancel(self) -> None:
        """Give up what is not done."""
        for task in self.tasks:
            task.settle(GivenUp("cancelled"))


class Jobs:
    """The jobs that can still be asked about: what is finished goes after a while, or when newer ones need the room."""

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
                "this process of the server does not know the job: it was started anew since, "
                "or it is one of several (run it as one, without --workers)"
            )
            log.warning("%s: %s", id[:40], text)
            raise Problem(404, text)
        if id not in self._jobs:
            raise Problem(404, "there is no such job, or its pictures were kept long enough")
        return self._jobs[id]

    def remove(self, id: str) -> None:
        """Cancel a job and forget it, with its pictures."""
        self.get(id).cancel()
        del self._jobs[id]

    def _tidy(self) -> None:
        now, taken = time.monotonic(), 0
        for job in self._newest_first():
            if not job.settled:
                continue
            job.settled_at = job.settled_at or now
            # The newest one always stays: somebody is about to fetch it.
            too_much = taken > 0 and taken + job.bytes > self._settings.result_bytes
            taken += job.bytes
            if now - job.settled_at > self._settings.result_seconds or too_much:
                del self._jobs[job.id]

    def _newest_first(self) -> Iterator[Job]:
        return iter(list(self._jobs.values())[::-1])


def task_status(task: Task) -> dict[str, Any]:
    """What a client is told of a task, without its pictures."""
    status: dict[str, Any] = {
        "photo": task.name,
        "model": task.model,
        "state": task.state,
        "step": task.step,
        "steps": task.steps,
    }
    if not task.settled:
        return status
    if error := task.outcome.exception():
        status["problem"] = error.details() if isinstance(error, Problem) else None
    else:
        painted = task.outcome.result()
        status |= {"pictures": len(painted.files), "measures": painted.measures, "timings": painted.timings}
    return status
