"""A job's progress as server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Self

from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from photochrom.server.jobs import Job, JobStatus, TaskStatus
from photochrom.server.photos import encode
from photochrom.server.settings import Settings
from photochrom.server.worker import Task

ASK_SECONDS = 0.05  # between looks at whether there is something new
LAST = "done"  # id of the last event
PREVIEW_SIDE = 256


class EventStream(StreamingResponse):
    """A stream of events."""

    media_type = "text/event-stream"


class EventData(JSONResponse):
    """What is in the events of a stream, for the description of the API."""

    media_type = EventStream.media_type


class TaskEvent(TaskStatus):
    """A task that has come further: the event `task`."""

    task: int = Field(description="Its place in the job, counted from 0.")
    preview: str | None = Field(None, description="What it looks like so far: a small PNG in base64.")

    @classmethod
    def at(cls, number: int, task: Task) -> Self:
        """What is known of a task now, and what it looks like."""
        event = cls(task=number, **dict(TaskStatus.of(task)))
        if not task.settled and task.preview is not None:
            small = task.preview.copy()
            small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            event.preview = base64.b64encode(encode(small, "png")).decode()
        return event


async def events(job: Job, settings: Settings, seen: int = 0) -> AsyncIterator[str]:
    """The text of a stream: `task` events of what changed after `seen`, until all is settled, and `done` at the end.

    seen: the id of the last event that the client knows. A job whose last stream is left before its end is given up, unless
    somebody comes back in time.
    """
    job.watchers += 1
    said = time.monotonic()
    try:
        while True:
            settled = job.settled  # before looking, so that nothing that comes meanwhile is left out
            news = [(task.changed, number) for number, task in enumerate(job.tasks) if task.changed > seen]
            for changed, number in sorted(news):
                seen, said = changed, time.monotonic()
                yield event("task", str(changed), TaskEvent.at(number, job.tasks[number]))
            if settled:
                yield event("done", LAST, JobStatus.of(job))
                return
            if time.monotonic() - said > settings.heartbeat_seconds:
                said = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(ASK_SECONDS)
    finally:
        job.watchers -= 1
        job.left += 1
        if not job.watchers:
            asyncio.get_running_loop().call_later(settings.return_seconds, give_up_unless_back, job, job.left)


def give_up_unless_back(job: Job, left: int) -> None:
    """Cancel a job that nobody follows since its streams were left for the `left`th time."""
    if not job.watchers and job.left == left:
        job.cancel()


def event(name: str, id: str, data: BaseModel) -> str:
    """One server-sent event."""
    return f"event: {name}\nid: {id}\ndata: {data.model_dump_json(exclude_none=True)}\n\n"
