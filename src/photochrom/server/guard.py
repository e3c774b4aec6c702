"""Checks on every request, before it costs anything: sender, size and speed of its body, and a complete form.

All checks hang on the route, none on the application, so the router is as safe inside another FastAPI
application.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from urllib.parse import unquote, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from photochrom.server.problems import HEADERS, Problem, as_response
from photochrom.server.service import Service
from photochrom.server.settings import Settings

SLOWEST = 64 * 2**10  # bytes per second that a body must keep up after its first `body_seconds`
KEY_HEADER, KEY_COOKIE = "X-API-Key", "photochrom-key"


class Route(APIRoute):
    """A route that checks the sender, limits the body, and answers every error as a problem."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        handle = super().get_route_handler()
        is_open = self.path.endswith("/health")  # a probe has no key

        async def guarded(request: Request) -> Response:
            settings = Service.of(request.app).settings
            try:
                check_sender(request, settings, is_open)
                await check_length(request, settings)
                response = await handle(LimitedRequest(request, settings))
            except Exception as error:
                return as_response(error)
            if request.method == "HEAD" and isinstance(response, StreamingResponse):
                response = Response(
                    headers=dict(response.headers)
                )  # streaming would count as following a job
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


def check_sender(request: Request, settings: Settings, is_open: bool) -> None:
    """Raise a Problem for a wrong host name (DNS rebinding), a page of another site, or a missing key."""
    name = host_of(request.headers.get("host", ""))
    if settings.hosts and name not in settings.hosts:
        mend = f"start it with --allow-host {name} (in Python: Settings.hosts)"
        raise Problem(403, f"this server does not answer to the name {name}: {mend}")
    if request.method not in ("GET", "HEAD"):
        check_origin(request, settings)
    if settings.api_key and not is_open:
        sent = request.headers.get(KEY_HEADER, "").encode("latin-1")  # as Starlette decodes headers
        given = sent or unquote(request.cookies.get(KEY_COOKIE, "")).encode()
        if not secrets.compare_digest(given, settings.api_key.encode()):
            raise Problem(
                401, f"this server asks for a key: send it as {KEY_HEADER}", {"WWW-Authenticate": "ApiKey"}
            )


def check_origin(request: Request, settings: Settings) -> None:
    """Raise a Problem if another site's page sent the request for its visitor, unless that site is allowed.

    Browsers say so in Sec-Fetch-Site, but over plain http to another machine only in Origin. Programs send
    neither.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin in settings.origins or site in ("same-origin", "none"):
        return
    if site is None and (origin is None or urlsplit(origin).netloc == request.headers.get("host")):
        return
    mend = f"start it with --allow-origin {origin} (in Python: Settings.origins)"
    raise Problem(403, f"this server does not answer to pages of {origin}: {mend}")


def host_of(netloc: str) -> str | None:
    """The host in a Host header, without its port; None if there is none."""
    try:
        return urlsplit(f"//{netloc}").hostname
    except ValueError:  # an unclosed bracket
        return None


async def check_length(request: Request, settings: Settings) -> None:
    """Raise a Problem if the body's stated length is too large, once the client reads the answer."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) <= settings.max_upload_bytes:
        return
    received = 0
    try:
        async with asyncio.timeout(min(5.0, settings.body_seconds)):
            async for chunk in request.stream():  # a client that is still sending reads no answer
                received += len(chunk)
                if received > 4 * settings.max_upload_bytes:
                    break
    except (TimeoutError, HTTPException, ClientDisconnect):
        pass
    raise too_large(settings)


class LimitedRequest(Request):
    """A request whose body is limited in bytes (413) and in time (408).

    Its form stays in memory, and is complete.
    """

    def __init__(self, request: Request, settings: Settings) -> None:
        super().__init__(request.scope, self._limited(request.receive))
        self._settings = settings
        self._received = 0
        self._deadline = time.monotonic() + settings.body_seconds
        self._whole = False
        self._parsed: FormData | None = None

    async def form(self, **limits: int | float) -> FormData:  # type: ignore[override]  # FastAPI awaits it, once
        """The form that was sent. Raises Problem 400 if it is torn."""
        if self._parsed is None:
            if self.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                self._parsed = await self._multipart(**limits)
            else:
                self._parsed = await super().form(**limits)  # type: ignore[arg-type]
        return self._parsed

    async def _multipart(self, **limits: int | float) -> FormData:
        try:
            return await _InMemory(self.headers, self.stream(), **limits).parse()
        except MultiPartException as error:
            raise Problem(400, f"the form cannot be read: {error.message}") from None

    def _limited(self, receive: Receive) -> Receive:
        async def limited() -> Message:
            if self._whole:  # the only message left is that the client has disconnected
                return await receive()
            try:
                bonus = self._received / SLOWEST  # a large photo over a slow line is not an attack
                async with asyncio.timeout(self._deadline + bonus - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise Problem(
                    408, "the request's body arrived too slowly, or stopped", {"Connection": "close"}
                ) from None
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._received > self._settings.max_upload_bytes:
                raise too_large(self._settings)
            return message

        return limited


class _InMemory(MultiPartParser):
    """A complete form, held in memory: the limit of the body also limits the memory."""

    spool_max_size = sys.maxsize
    ended = False

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int | float) -> None:
        super().__init__(headers, self._to_its_end(stream), **limits)  # type: ignore[arg-type]

    def on_end(self) -> None:
        self.ended = True

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self.ended:  # raised in here, so that the parser closes its files
            raise MultiPartException("it is cut short: its last boundary is missing")


def too_large(settings: Settings) -> Problem:
    """Problem 413, for a body or a form that is too large."""
    limit = f"{settings.max_upload_bytes / 2**20:g} MiB"
    return Problem(
        413, f"the request is larger than {limit}: send fewer or smaller photos", {"Connection": "close"}
    )
