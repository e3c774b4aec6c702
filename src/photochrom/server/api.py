"""The API under /api: a router for any FastAPI application.

app = FastAPI()
app.state.photochrom = Settings(models=Path("models"))
app.include_router(router)
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Form, Header, Request, Security
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response
from fastapi.security import APIKeyCookie, APIKeyHeader
from pydantic import BaseModel, Field

from photochrom import __version__
from photochrom.config import DEFAULT_MODEL
from photochrom.server.events import LAST, EventData, EventStream, TaskEvent, events
from photochrom.server.forms import ColorizeForm, JobForm, refuse_repeated
from photochrom.server.guard import KEY_COOKIE, KEY_HEADER, Route
from photochrom.server.jobs import Job, JobStatus
from photochrom.server.photos import MEDIA_TYPES, Measures, Painted, Timings
from photochrom.server.problems import Problem
from photochrom.server.service import Service, lifespan, the_service
from photochrom.server.worker import GivenUp, Task

BINARY = {"schema": {"type": "string", "format": "binary"}}
Function = TypeVar("Function", bound=Callable[..., Any])
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
)


Here = Annotated[Service, Depends(the_service)]
Name = Annotated[str, InPath(description="A model's name.", examples=["model_v1"])]
JobId = Annotated[str, InPath(description="The id that POST /jobs returned.", examples=["d1Zg0ZsVYnMJbWqV"])]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its description."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}  # defined there as part of a job's status
    content = {"application/problem+json": {"schema": schema}}
    reasons = {
        400: "The form cannot be read",
        401: "No key, or a wrong one",
        403: "Sent from another site's page, or to a wrong host name",
        404: "There is no such thing",
        408: "The body arrived too slowly",
        409: "The model has no weights yet",
        413: "The request or the photo is too large",
        415: "Not a photo",
        422: "An invalid value, or a broken photo",
        500: "The server failed",
        503: "Too many photos are waiting: see Retry-After",
        504: "Not done within the time limit",
    }
    return {status: {"description": reasons[status], "content": content} for status in (401, 403, *statuses)}


PHOTO_PROBLEMS = problems(400, 404, 408, 409, 413, 415, 422, 500, 503, 504)
router = APIRouter(prefix="/api", route_class=Route, lifespan=lifespan)


KEY = [
    Security(APIKeyHeader(name=KEY_HEADER, auto_error=False, description="If the server asks for a key.")),
    Security(APIKeyCookie(name=KEY_COOKIE, auto_error=False, description="The same, percent-encoded.")),
]
keyed = APIRouter(route_class=Route, dependencies=KEY)  # for the description; `Route` checks the key


def reading(on: APIRouter, path: str, **description: Any) -> Callable[[Function], Function]:
    """A route for GET and for HEAD; the description shows GET only."""

    def register(function: Function) -> Function:
        on.add_api_route(path, function, methods=["HEAD"], include_in_schema=False, **description)
        return on.get(path, **description)(function)

    return register


class Limits(BaseModel):
    """The most that a server accepts."""

    upload_bytes: int
    pixels: int
    waiting_photos: int
    seconds: float


class Health(BaseModel):
    """How busy a server is."""

    status: Literal["ok"] = "ok"
    version: str
    waiting: int = Field(description="Photos in the queue.")
    running: int = Field(description="Photos being coloured now.")
    loaded_models: list[str]
    key_needed: bool
    limits: Limits


class Colored(BaseModel):
    """A coloured photo, with measures and timings."""

    model: str
    measures: list[Measures] = Field(description="One for each sample.")
    timings: Timings
    pictures: list[str] = Field(description="PNG in base64: each sample, then the map of uncertainty.")


@reading(router, "/health", summary="Check that the server works", tags=["server"], responses=problems(503))
async def health(service: Here) -> Health:
    """How busy the server is, and its limits; 503 if it can no longer colour. Needs no key."""
    settings = service.settings
    if trouble := service.worker.trouble:
        raise Problem(503, trouble)
    return Health(
        version=__version__,
        waiting=service.worker.waiting,
        running=service.worker.running,
        loaded_models=service.worker.models.names,
        key_needed=settings.api_key is not None,
        limits=Limits(
            upload_bytes=settings.max_upload_bytes,
            pixels=settings.max_pixels,
            waiting_photos=settings.queue_photos,
            seconds=settings.job_seconds,
        ),
    )


@reading(
    keyed,
    "/metrics",
    summary="Get metrics for Prometheus",
    tags=["server"],
    response_class=Response,
    responses=problems(),
)
async def prometheus(service: Here) -> Response:
    """Prometheus' text format."""
    metrics, worker = service.metrics, service.worker
    metrics.waiting.set(worker.waiting)
    metrics.running.set(worker.running)
    metrics.models.set(len(worker.models.names))
    metrics.model_bytes.set(worker.models.bytes)
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@reading(keyed, "/models", summary="List the models", tags=["models"], responses=problems())
def list_models(service: Here) -> list[dict[str, Any]]:
    """The default model, other shipped models, then your own, the last changed first.

    `usable` models can colour; `training` ones are being trained now.
    """
    return service.catalogue.all()


@reading(keyed, "/models/{name}", summary="Get one model", tags=["models"], responses=problems(404, 422, 500))
def model_details(name: Name, service: Here) -> dict[str, Any]:
    """Configuration and evaluation, the epochs of its sample sheets, the names of its evaluation reports."""
    return service.catalogue.details(name)


@reading(
    keyed,
    "/models/{name}/history",
    summary="Get a model's history",
    tags=["models"],
    responses=problems(404, 422, 500),
)
def history(name: Name, service: Here) -> list[dict[str, Any]]:
    """Every loss: one record for each finished epoch."""
    return service.catalogue.find(name).history


@reading(
    keyed,
    "/models/{name}/samples/{epoch}",
    summary="Get an epoch's sheet of samples",
    tags=["models"],
    response_class=FileResponse,
    responses=problems(404, 422) | {200: {"content": {"image/png": BINARY}}},
)
def samples(name: Name, epoch: int, service: Here) -> FileResponse:
    """PNG with gray, coloured and true photos."""
    sheets = service.catalogue.sheets(service.catalogue.find(name))
    if epoch not in sheets:
        raise Problem(404, f"the model {name!r} has no samples of epoch {epoch}")
    return FileResponse(
        sheets[epoch], media_type="image/png", headers={"Cache-Control": "private, max-age=60"}
    )


@reading(
    keyed,
    "/models/{name}/reports/{report}",
    summary="Get an evaluation report",
    tags=["models"],
    response_class=FileResponse,
    responses=problems(404, 422) | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def report(name: Name, report: str, service: Here) -> FileResponse:
    """The page that `photochrom evaluate` wrote. It contains no script, and the browser runs none in it."""
    reports = service.catalogue.reports(service.catalogue.find(name).name)
    if report not in reports:
        raise Problem(404, f"there is no report {report!r} in which {name!r} took part")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return FileResponse(reports[report] / "report.html", media_type="text/html", headers=headers)


@keyed.post(
    "/colorize",
    summary="Colour one photo",
    tags=["colour"],
    response_class=Response,
    responses=PHOTO_PROBLEMS
    | {
        200: {
            "description": "The coloured photo",
            "model": Colored,
            "content": {"image/png": BINARY, "image/jpeg": BINARY},
        }
    },
)
async def colorize(
    form: Annotated[ColorizeForm, Form(media_type="multipart/form-data")], request: Request, service: Here
) -> Response:
    """Returns the picture. If the client disconnects first, the server stops the work."""
    await refuse_repeated(request, form)
    if (form.samples > 1 or form.uncertainty) and form.format != "json":
        raise Problem(
            422,
            "one picture cannot hold several samples or a map of uncertainty: set format to json, "
            "or leave them out",
        )
    model = service.catalogue.usable(form.model or DEFAULT_MODEL).name
    guides = await service.guides(like=form.like, keep_gray=form.keep_gray)
    (task,) = await service.new_tasks(form.photo, [model], form.choices(), guides)
    task.format = "jpeg" if form.format == "jpeg" else "png"
    service.worker.submit([task])
    painted = await outcome(task, request)
    timing = ", ".join(f"{name};dur={1000 * seconds:.0f}" for name, seconds in painted.timings)
    if form.format == "json":
        pictures = [base64.b64encode(file).decode() for file in painted.files]
        facts = Colored(model=model, measures=painted.measures, timings=painted.timings, pictures=pictures)
        return Response(facts.model_dump_json(), media_type="application/json")
    return Response(painted.files[0], media_type=MEDIA_TYPES[task.format], headers={"Server-Timing": timing})


@keyed.post(
    "/jobs",
    summary="Colour several photos",
    tags=["colour"],
    status_code=202,
    response_model_exclude_none=True,
    responses=PHOTO_PROBLEMS,
)
async def create_job(
    form: Annotated[JobForm, Form(media_type="multipart/form-data")],
    request: Request,
    response: Response,
    service: Here,
) -> JobStatus:
    """Colours each photo by each model.

    Answers at once: then ask for the job's status, or follow its events.
    """
    await refuse_repeated(request, form)
    models = [service.catalogue.usable(name).name for name in dict.fromkeys(form.model)]
    wanted = len(form.photo) * len(models)
    if wanted > service.settings.queue_photos:
        raise Problem(
            422, f"{wanted} colourings in one job, at most {service.settings.queue_photos}: send several jobs"
        )
    guides = await service.guides(like=form.like, keep_gray=form.keep_gray)
    if guides.keep_gray is not None and len(form.photo) > 1:
        raise Problem(422, "keep_gray marks places in one photo: send the others separately")
    tasks = [
        task
        for photo in form.photo
        for task in await service.new_tasks(photo, models, form.choices(), guides)
    ]
    for task in tasks:
        task.watched = True
    service.worker.submit(tasks)
    job = Job(tasks)
    service.jobs.add(job)
    response.headers["Location"] = f"{request.url.path.rstrip('/')}/{job.id}"
    return JobStatus.of(job)


@reading(
    keyed,
    "/jobs/{id}",
    summary="Get a job's status",
    tags=["colour"],
    response_model_exclude_none=True,
    responses=problems(404, 422),
)
async def job_status(id: JobId, service: Here) -> JobStatus:
    """The state of the job and of each task. Finished tasks have measures and timings."""
    return JobStatus.of(service.jobs.get(id))


@keyed.delete(
    "/jobs/{id}", summary="Cancel a job", tags=["colour"], status_code=204, responses=problems(404, 422)
)
async def cancel_job(id: JobId, service: Here) -> None:
    """Stops running tasks within one sampling step, and deletes finished pictures."""
    service.jobs.remove(id)


@reading(
    keyed,
    "/jobs/{id}/events",
    summary="Follow a job",
    tags=["colour"],
    response_class=EventData,
    responses=problems(404, 422)
    | {
        200: {"description": "The `data` of each event", "model": TaskEvent | JobStatus},
        204: {"description": "The client has already had the last event"},
    },
)
async def job_events(
    id: JobId,
    service: Here,
    last_event_id: Annotated[str, Header(description="The id of the last event received.")] = "",
) -> Response:
    """Server-sent events: `task` whenever a task has progressed, and `done` with the job's status at the end.
    Comments in between keep proxies from closing the stream. If all clients leave before the end and none
    returns within 15 seconds, the server cancels the job. With Last-Event-ID, only new events are sent.
    """
    job = service.jobs.get(id)
    if last_event_id == LAST:
        return Response(status_code=204)  # tells EventSource not to connect again
    after = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 16 else 0
    headers = {"X-Accel-Buffering": "no"}  # so that nginx passes events on at once
    return EventStream(events(job, service.settings, after), headers=headers)


@reading(
    keyed,
    "/jobs/{id}/tasks/{task}/pictures/{picture}",
    summary="Get a picture",
    tags=["colour"],
    response_class=Response,
    responses=problems(404, 409, 422) | {200: {"content": {"image/png": BINARY}}},
)
async def job_picture(id: JobId, task: int, picture: int, service: Here) -> Response:
    """A finished picture, as PNG. Tasks and pictures count from 0, in the order of the job's status."""
    tasks = service.jobs.get(id).tasks
    if not 0 <= task < len(tasks):
        raise Problem(404, f"the job has no task {task}: it has {len(tasks)}, counted from 0")
    if tasks[task].state != "done":
        raise Problem(409, f"this task is {tasks[task].state}: it has no pictures")
    files = tasks[task].outcome.result().files
    if not 0 <= picture < len(files):
        raise Problem(404, f"the task has no picture {picture}: it has {len(files)}, counted from 0")
    return Response(files[picture], media_type="image/png")


async def outcome(task: Task, request: Request) -> Painted:
    """Wait for a task and return its result, or raise its Problem.

    Gives the task up if the client disconnects.
    """
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
                await asyncio.wait_for(finished.wait(), max(0.05, task.deadline - time.monotonic()))
    finally:
        watcher.cancel()
        task.settle(GivenUp("the request was ended"))
    try:
        return task.outcome.result()
    except GivenUp as error:
        raise Problem(503, str(error), {"Retry-After": "10"}) from None


router.include_router(keyed)
