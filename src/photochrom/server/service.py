"""What one server holds. Made at its first use, wherever the router or the application is mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, UploadFile

from photochrom.server.catalogue import Catalogue
from photochrom.server.jobs import Jobs
from photochrom.server.metrics import Metrics
from photochrom.server.photos import Choices, Guides, read_header
from photochrom.server.settings import Settings
from photochrom.server.worker import Task, Worker


class Service:
    """Models, jobs and the worker of one application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogue = Catalogue(Path(settings.models), Path(settings.reports))
        self.metrics = Metrics()
        self.jobs = Jobs(settings)
        self.worker = Worker(settings, self.catalogue.usable, self.metrics)

    @classmethod
    def of(cls, app: Any) -> Service:
        """The service of a FastAPI or Starlette application, made from the `Settings` in its state."""
        if not hasattr(app.state, "photochrom_service"):
            app.state.photochrom_service = cls(getattr(app.state, "photochrom", Settings()))
        service: Service = app.state.photochrom_service
        return service

    async def new_tasks(
        self, upload: UploadFile, models: Sequence[str], choices: Choices, guides: Guides
    ) -> list[Task]:
        """A task for each model, after a check of the photo's header."""
        photo = await upload.read()
        name = (upload.filename or "photo").replace("\\", "/").rsplit("/", 1)[-1][:200]
        size = read_header(photo, self.settings.max_pixels)
        seconds = self.settings.job_seconds
        steps = [choices.steps or self.catalogue.find(model).config.steps for model in models]
        return [
            Task(model, photo, size, choices, seconds, name, guides=guides, steps=count)
            for model, count in zip(models, steps, strict=True)
        ]

    async def guides(self, **sent: UploadFile | None) -> Guides:
        """A form's other pictures, after a check of their headers."""
        files = {name: await upload.read() for name, upload in sent.items() if upload is not None}
        for file in files.values():
            read_header(file, self.settings.max_pixels)
        return Guides(**files)


async def the_service(request: Request) -> Service:
    """The service of the application that got a request.

    Async, because FastAPI runs other functions in a thread.
    """
    return Service.of(request.app)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Stop the worker with the application.

    A mounted application does not hear of its end; there, atexit does it.
    """
    yield
    await asyncio.to_thread(Service.of(app).worker.stop)
