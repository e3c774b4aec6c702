"""Errors as problem details (RFC 9457), and the route that limits what a request may bring.

All of it hangs on the route and none on the application, so that the router behaves the same in any FastAPI application.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive

from photochrom.errors import PhotochromError
from photochrom.server.settings import Settings

log = logging.getLogger("photochrom.server")
SLOWEST = 64 * 2**10  # bytes per second that a body has to keep up, once its first seconds are over
KEY_HEADER, KEY_COOKIE = "X-API-Key", "photochrom-key"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Problem(HTTPException):
    """An error for the one who asked: a status, and a sentence that says what is wrong and how to mend it."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(status, detail, headers)
        self.members = members

    def details(self) -> dict[str, Any]:
        """The members of the problem: type, title, status, detail and those of its own."""
        title = HTTPStatus(self.status_code).phrase
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status_code,
            "detail": self.detail,
        } | self.members


def as_response(error: Exception) -> Response:
    """Any error as `application/problem+json`; one that nobody foresaw is logged, and its text kept from the client."""
    if isinstance(error, RequestValidationError):
        faults = [
            {
                "field": ".".join(map(str, fault["loc"][1:])),
                "message": fault["msg"].removeprefix("Value error, "),
            }
            for fault in error.errors()
        ]
        text = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in faults)
        problem = Problem(422, text, errors=faults)
    elif isinstance(error, Problem):
        problem = error
    elif isinstance(error, StarletteHTTPException):
        problem = Problem(error.status_code, str(error.detail), dict(error.headers or {}))
    elif isinstance(error, PhotochromError):
        problem = Problem(500, str(error))
    else:
        log.error("a request failed", exc_info=error)
        problem = Problem(500, "the server failed at this; its log says why")
    return JSONResponse(
        problem.details(),
        problem.status_code,
        HEADERS | dict(problem.headers or {}),
        media_type="application/problem+json",
    )


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # the body's limit is the limit; nothing of it goes to the disk


class LimitedRequest(Request):
    """A request whose body has a limit in bytes (413) and in time (408), and stays in memory."""

    def __init__(self, request: Request, settings: Settings) -> None:
        super().__init__(request.scope, self._limited(request.receive))
        self._settings = settings
        self._received = 0
        self._deadline = time.monotonic() + settings.body_seconds
        self._whole = False

    def _limited(self, receive: Receive) -> Receive:
        async def limited() -> Message:
            if self._whole:  # what comes now is only whether the client is still there
                return await receive()
            try:
                bonus = self._received / SLOWEST  # a large photo over a slow line is no attack
                left = max(0.0, self._deadline + bonus - time.monotonic())
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                raise Problem(
                    408, "the body came in too slowly, or stopped", {"Connection": "close"}
                ) from None
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._received > self._settings.max_upload_bytes:
                raise too_large(self._settings)
            return message

        return limited

    async def _get_form(
        self, *, max_files: float = 1000, max_fields: float = 1000, max_part_size: int = 2**20
    ) -> FormData:
        if self._form is None and self.headers.get("content-type", "").startswith("multipart/form-data"):
            parser = _InMemory(
                self.headers,
                self.stream(),
                max_files=max_files,
                max_fields=max_fields,
                max_part_size=max_part_size,
            )
            try:
                self._form = await parser.parse()
            except MultiPartException as error:
                raise Problem(400, f"the form cannot be read: {error.message}") from None
        return await super()._get_form(
            max_files=max_files, max_fields=max_fields, max_part_size=max_part_size
        )


def too_large(settings: Settings) -> Problem:
    """413, which every client understands: send less."""
    limit = f"{settings.max_upload_bytes / 2**20:g} MiB"
    return Problem(
        413, f"the request is larger than {limit}: send fewer or smaller photos", {"Connection": "close"}
    )


class Route(APIRoute):
    """A route that asks for the key, limits the body, and answers every error as a problem."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        is_open = self.path.endswith("/health")  # a probe has no key

        async def limited(request: Request) -> Response:
            settings: Settings = request.state.photochrom.settings
            try:
                check_sender(request, settings, is_open)
                length = request.headers.get("content-length", "0")
                if length.isdigit() and int(length) > settings.max_upload_bytes:
                    await _read_away(request, settings)
                    raise too_large(settings)
                response = await handle(LimitedRequest(request, settings))
            except Exception as error:
                return as_response(error)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return limited


def check_sender(request: Request, settings: Settings, is_open: bool) -> None:
    """Raise a Problem for a wrong name (DNS rebinding), another site's page, or a missing key."""
    if settings.hosts and request.url.hostname not in settings.hosts:
        raise Problem(403, f"this server does not answer to the name {request.url.hostname}")
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") in (
        "cross-site",
        "same-site",
    ):
        raise Problem(403, "requests from other sites' pages are refused")
    if settings.api_key and not is_open:
        sent = request.headers.get(KEY_HEADER, "").encode("latin-1")  # as Starlette decodes headers
        given = sent or unquote(request.cookies.get(KEY_COOKIE, "")).encode()
        if not secrets.compare_digest(given, settings.api_key.encode()):
            raise Problem(
                401, f"this server asks for a key: send it as {KEY_HEADER}", {"WWW-Authenticate": "ApiKey"}
            )


async def _read_away(request: Request, settings: Settings) -> None:
    """Take in, for a while, a body that is refused: a client that is still sending does not hear the answer."""
    received = 0
    try:
        async with asyncio.timeout(min(5.0, settings.body_seconds)):
            async for chunk in request.stream():
                received += len(chunk)
                if received > 4 * settings.max_upload_bytes:
                    break
    except (TimeoutError, HTTPException):
        return
