"""The API under /api: a router for any FastAPI application.

app = FastAPI()
app.state.photochrom = Settings(models=Path("models"))
app.include_router(router)
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from photochrom import __version__
from photochrom.config import DEFAULT_MODEL
from photochrom.server.guard import Route
from photochrom.server.jobs import Job, task_status
from photochrom.server.photos import MEDIA_TYPES, Choices, Painted, encode
from photochrom.server.problems import Problem
from photochrom.server.service import Service, lifespan, the_service
from photochrom.server.worker import GivenUp, Task

ASK_SECONDS = 0.05  # between looks at whether there is something new
MAX_MODELS = 2
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
)


Here = Annotated[Service, Depends(the_service)]
Name = Annotated[str, InPath(description="A model's name.", examples=["model_v1"])]
JobId = Annotated[str, InPath(description="What creating the job returned.", examples=["d1Zg0ZsVYnMJbWqV"])]


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no model 'model_v9'; there are: model_v1, model_v2",
            }
        },
    )
    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's description says of its errors."""
    content = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
    reasons = {
        400: "The form cannot be read", 401: "No key, or a wrong one", 403: "Asked from another site's page, or by a wrong name",
        404: "There is no such thing", 408: "The body came in too slowly", 409: "The model has no weights yet",
        413: "The request or the photo is too large", 415: "Not a photo", 422: "A value that cannot be, or a broken photo",
        500: "The server failed", 503: "Too many photos are waiting: see Retry-After", 504: "Not done within the time limit",
    }  # fmt: skip
    return {status: {"description": reasons[status], "content": content} for status in (401, 403, *statuses)}


PHOTO_PROBLEMS = problems(400, 404, 408, 409, 413, 415, 422, 500, 503, 504)
router = APIRouter(prefix="/api", route_class=Route, lifespan=lifespan)


class GuidedForm(Choices):
    """How to colour, with pictures that say more."""

    like: UploadFile | None = Field(None, description="A colour photo whose colours the result takes on.")
    keep_gray: UploadFile | None = Field(
        None, description="A picture of the photo's shape, white where the photo stays gray; for one photo."
    )


class ColorizeForm(GuidedForm):
    """One photo, and how to colour it."""

    photo: UploadFile = Field(
        description="JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF; colours in it are not looked at."
    )
    model: str | None = Field(
        None,
        description=f"A model's name (default: {DEFAULT_MODEL}, which comes along).",
        examples=["model_v1"],
    )
    format: Literal["png", "jpeg", "json"] = Field(
        "png", description="json: measures, timings and pictures (PNG in base64)."
    )


class JobForm(GuidedForm):
    """Several photos by one or two models."""

    photo: list[UploadFile] = Field(min_length=1, description="The field may occur several times.")
    model: list[str] = Field(
        min_length=1,
        max_length=MAX_MODELS,
        description="One name, or two to compare.",
        examples=[["model_v1"]],
    )


@router.get("/health", summary="Whether the server is well", tags=["server"], responses=problems(503))
async def health(service: Here) -> dict[str, Any]:
    """How busy it is, and what it takes on; 503 when no photo is coloured any more. Needs no key."""
    settings = service.settings
    if trouble := service.worker.trouble:
        raise Problem(503, trouble)
    return {
        "status": "ok",
        "version": __version__,
        "waiting": service.worker.waiting,
        "running": service.worker.running,
        "loaded_models": service.worker.models.names,
        "key_needed": settings.api_key is not None,
        "limits": {
            "upload_bytes": settings.max_upload_bytes,
            "pixels": settings.max_pixels,
            "waiting_photos": settings.queue_photos,
            "seconds": settings.job_seconds,
        },
    }


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    tags=["server"],
    response_class=Response,
    responses=problems(),
)
async def prometheus(service: Here) -> Response:
    """In Prometheus' text format."""
    metrics, worker = service.metrics, service.worker
    metrics.waiting.set(worker.waiting)
    metrics.running.set(worker.running)
    metrics.models.set(len(worker.models.names))
    metrics.model_bytes.set(worker.models.bytes)
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/models", summary="List the models", tags=["models"], responses=problems())
def list_models(service: Here) -> list[dict[str, Any]]:
    """Those that come along, then the one changed last first. `usable` models can colour; `training` ones are being trained right now."""
    return service.catalogue.all()


@router.get(
    "/models/{name}", summary="All about one model", tags=["models"], responses=problems(404, 422, 500)
)
def model_details(name: Name, service: Here) -> dict[str, Any]:
    """Its configuration, the epochs of its sheets of samples, and the names of its evaluation reports."""
    return service.catalogue.details(name)


@router.get(
    "/models/{name}/history",
    summary="Every loss by epoch",
    tags=["models"],
    responses=problems(404, 422, 500),
)
def history(name: Name, service: Here) -> list[dict[str, Any]]:
    """One record for each finished epoch."""
    return service.catalogue.find(name).history


@router.get(
    "/models/{name}/samples/{epoch}",
    summary="The sheet of samples of an epoch",
    tags=["models"],
    response_class=FileResponse,
    responses=problems(404, 422) | {200: {"content": {"image/png": {}}}},
)
def samples(name: Name, epoch: int, service: Here) -> FileResponse:
    """PNG: gray, coloured, true."""
    sheets = service.catalogue.sheets(service.catalogue.find(name))
    if epoch not in sheets:
        raise Problem(404, f"the model {name!r} has no samples of epoch {epoch}")
    return FileResponse(
        sheets[epoch], media_type="image/png", headers={"Cache-Control": "private, max-age=60"}
    )


@router.get(
    "/models/{name}/reports/{report}",
    summary="An evaluation report",
    tags=["models"],
    response_class=FileResponse,
    responses=problems(404, 422) | {200: {"content": {"text/html": {}}}},
)
def report(name: Name, report: str, service: Here) -> FileResponse:
    """The page that `photochrom evaluate` wrote. It carries no script, and may run none."""
    reports = service.catalogue.reports(service.catalogue.find(name).name)
    if report not in reports:
        raise Problem(404, f"there is no report {report!r} in which {name!r} took part")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return FileResponse(reports[report] / "report.html", media_type="text/html", headers=headers)


@router.post(
    "/colorize",
    summary="Colour one photo",
    tags=["colour"],
    response_class=Response,
    responses=PHOTO_PROBLEMS
    | {
        200: {
            "description": "The coloured photo",
            "content": {"image/png": {}, "image/jpeg": {}, "application/json": {}},
        }
    },
)
async def colorize(
    form: Annotated[ColorizeForm, Form(media_type="multipart/form-data")], request: Request, service: Here
) -> Response:
    """The answer is the picture. Going away before it comes gives the work up."""
    if (form.samples > 1 or form.uncertainty) and form.format != "json":
        raise Problem(
            422,
            "several samples, or a map of uncertainty, do not fit into one picture: set format to json, or leave them out",
        )
    model = service.catalogue.usable(form.model or DEFAULT_MODEL).name
    guides = await service.guides(like=form.like, keep_gray=form.keep_gray)
    (task,) = await service.new_tasks(form.photo, [model], choices_of(form), guides)
    task.format = "jpeg" if form.format == "jpeg" else "png"
    service.worker.submit([task])
    painted = await outcome(task, request)
    timing = ", ".join(f"{name};dur={1000 * seconds:.0f}" for name, seconds in painted.timings.items())
    if form.format == "json":
        pictures = [base64.b64encode(file).decode() for file in painted.files]
        facts = {"model": model, "measures": painted.measures, "timings": painted.timings}
        return JSONResponse(facts | {"pictures": pictures})
    return Response(painted.files[0], media_type=MEDIA_TYPES[task.format], headers={"Server-Timing": timing})


@router.post(
    "/jobs", summary="Colour several photos", tags=["colour"], status_code=202, responses=PHOTO_PROBLEMS
)
async def create_job(
    form: Annotated[JobForm, Form(media_type="multipart/form-data")],
    request: Request,
    response: Response,
    service: Here,
) -> dict[str, Any]:
    """Each photo by each model. Answers at once; ask for the job's status, or follow its events."""
    models = [service.catalogue.usable(name).name for name in dict.fromkeys(form.model)]
    wanted = len(form.photo) * len(models)
    if wanted > service.settings.queue_photos:
        raise Problem(
            422, f"{wanted} colourings in one job, at most {service.settings.queue_photos}: make several jobs"
        )
    guides = await service.guides(like=form.like, keep_gray=form.keep_gray)
    if guides.keep_gray is not None and len(form.photo) > 1:
        raise Problem(422, "keep_gray marks places in one photo: send the others separately")
    tasks = [
        task
        for photo in form.photo
        for task in await service.new_tasks(photo, models, choices_of(form), guides)
    ]
    for task in tasks:
        task.watched = True
    service.worker.submit(tasks)
    job = Job(tasks)
    service.jobs.add(job)
    response.headers["Location"] = f"{request.url.path.rstrip('/')}/{job.id}"
    return status_of(job)


@router.get("/jobs/{id}", summary="How far a job is", tags=["colour"], responses=problems(404, 422))
async def job_status(id: JobId, service: Here) -> dict[str, Any]:
    """Its state, and that of each of its tasks, with measures and timings of those done."""
    return status_of(service.jobs.get(id))


@router.delete(
    "/jobs/{id}", summary="Cancel a job", tags=["colour"], status_code=204, responses=problems(404, 422)
)
async def cancel_job(id: JobId, service: Here) -> None:
    """What runs ends within one sampling step; pictures that are done are forgotten."""
    service.jobs.remove(id)


@router.get(
    "/jobs/{id}/events",
    summary="Follow a job",
    tags=["colour"],
    response_class=StreamingResponse,
    responses=problems(404, 422) | {200: {"content": {"text/event-stream": {}}}},
)
async def job_events(id: JobId, service: Here) -> StreamingResponse:
    """Server-sent events: `task` whenever a task has come further (with a small preview), `done` with the job's status at
    the end. A job whose last open stream of events is left before the end is given up."""
    job = service.jobs.get(id)
    return StreamingResponse(events(job), media_type="text/event-stream")


@router.get(
    "/jobs/{id}/tasks/{task}/pictures/{picture}",
    summary="Fetch a picture",
    tags=["colour"],
    response_class=Response,
    responses=problems(404, 409, 422) | {200: {"content": {"image/png": {}}}},
)
async def job_picture(id: JobId, task: int, picture: int, service: Here) -> Response:
    """A finished picture, as PNG. Tasks and pictures are counted from 0, in the order of the job's status."""
    tasks = service.jobs.get(id).tasks
    if not 0 <= task < len(tasks):
        raise Problem(404, f"the job has {len(tasks)} tasks, counted from 0, and no {task}")
    if tasks[task].state != "done":
        raise Problem(409, f"this task is {tasks[task].state}: it has no pictures")
    files = tasks[task].outcome.result().files
    if not 0 <= picture < len(files):
        raise Problem(404, f"the task has {len(files)} pictures, counted from 0, and no {picture}")
    return Response(files[picture], media_type="image/png")


def choices_of(form: Choices) -> Choices:
    """The part of a form that says how to colour."""
    return Choices(**{name: getattr(form, name) for name in Choices.model_fields})


async def outcome(task: Task, request: Request) -> Painted:
    """Wait for a task, giving it up when the client goes away; raises its Problem."""
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    task.outcome.add_done_callback(lambda _: loop.call_soon_threadsafe(finished.set))

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.settle(GivenUp("the client went away"))

    watcher = asyncio.create_task(watch())
    try:
        while not task.settled:
            with suppress(TimeoutError):
                await asyncio.wait_for(finished.wait(), max(ASK_SECONDS, task.deadline - time.monotonic()))
    finally:
        watcher.cancel()
        task.settle(GivenUp("the request was ended"))
    try:
        return task.outcome.result()
    except GivenUp as error:
        raise Problem(503, str(error), {"Retry-After": "10"}) from None


def status_of(job: Job) -> dict[str, Any]:
    """What a client is told of a job."""
    return {"id": job.id, "state": job.state, "tasks": [task_status(task) for task in job.tasks]}


async def events(job: Job) -> AsyncIterator[str]:
    """The text of the stream: what changed since the last look, until all is settled."""
    seen = 0
    job.watchers += 1
    try:
        while True:
            settled = job.settled  # before looking, so that nothing that comes meanwhile is left out
            news = [(task.changed, number) for number, task in enumerate(job.tasks) if task.changed > seen]
            for changed, number in sorted(news):
                seen, task = changed, job.tasks[number]
                yield event("task", task_status(task) | {"task": number, "preview": preview_of(task)})
            if settled:
                yield event("done", status_of(job))
                return
            await asyncio.sleep(ASK_SECONDS)
    finally:
        job.watchers -= 1
        if not job.watchers:
            job.cancel()


def preview_of(task: Task) -> str | None:
    """What a running task looks like so far: a small PNG in base64."""
    if task.settled or task.preview is None:
        return None
    small = task.preview.copy()
    small.thumbnail((256, 256))
    return base64.b64encode(encode(small, "png")).decode()


def event(name: str, data: Any) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
