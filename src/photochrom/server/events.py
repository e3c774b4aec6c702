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

POLL_SECONDS = 0.05  # between checks for news
LAST = "done"  # id of the last event
PREVIEW_SIDE = 256


class EventStream(StreamingResponse):
    """A stream of server-sent events."""

    media_type = "text/event-stream"


class EventData(JSONResponse):
    """The data of a stream's events, for the API's description."""

    media_type = EventStream.media_type


class TaskEvent(TaskStatus):
    """The event `task`: a task has progressed."""

    task: int = Field(description="Its place in the job, counted from 0.")
    preview: str | None = Field(None, description="The picture so far: a small PNG in base64.")

    @classmethod
    def at(cls, number: int, task: Task) -> Self:
        """The status of a task now, with a preview while it runs."""
        event = cls(task=number, **dict(TaskStatus.of(task)))
        if not task.settled and task.preview is not None:
            small = task.preview.copy()
            small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            event.preview = base64.b64encode(encode(small, "png")).decode()
        return event


async def events(job: Job, settings: Settings, after: int = 0) -> AsyncIterator[str]:
    """The text of a stream: `task` events until all tasks are settled, then `done`.

    after: the id of the last event that the client has had. If all clients leave before the end, and none
    returns in time, the job is cancelled.
    """
    job.watchers += 1
    sent = time.monotonic()
    try:
        while True:
            settled = job.settled  # read first, so that the loop below sees every change before the end
            news = [(task.changed, number) for number, task in enumerate(job.tasks) if task.changed > after]
            for changed, number in sorted(news):
                after, sent = changed, time.monotonic()
                yield event("task", str(changed), TaskEvent.at(number, job.tasks[number]))
            if settled:
                yield event("done", LAST, JobStatus.of(job))
                return
            if time.monotonic() - sent > settings.heartbeat_seconds:
                sent = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(POLL_SECONDS)
    finally:
        job.watchers -= 1
        job.left += 1
        if not job.watchers:
            asyncio.get_running_loop().call_later(settings.return_seconds, cancel_unfollowed, job, job.left)


def cancel_unfollowed(job: Job, left: int) -> None:
    """Cancel a job if no client has followed it since one left for the `left`th time."""
    if not job.watchers and job.left == left:
        job.cancel()


def event(name: str, id: str, data: BaseModel) -> str:
    """The text of one server-sent event."""
    return f"event: {name}\nid: {id}\ndata: {data.model_dump_json(exclude_none=True)}\n\n"
