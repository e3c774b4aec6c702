"""The application: the page at /, the API under /api."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from photochrom import __version__
from photochrom.server.api import router
from photochrom.server.guard import KEY_HEADER, check_sender
from photochrom.server.problems import HEADERS, as_response
from photochrom.server.service import Service
from photochrom.server.settings import Settings

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)


class Page(StaticFiles):
    """The page's files, with a policy that lets the browser load from this server only."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        request = Request(scope)
        check_sender(request, Service.of(request.app).settings, is_open=True)
        response = await super().get_response(path, scope)
        response.headers.update(
            HEADERS | {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
        )
        return response


class Below:
    """Middleware for an application that a proxy shows under a path, whether the proxy strips it or not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if not path.startswith(f"{self.root_path}/"):
                path = self.root_path + path
            scope = {**scope, "root_path": self.root_path, "path": path}
        await self.app(scope, receive, send)


def create_app(settings: Settings = Settings()) -> FastAPI:  # noqa: B008 (it is frozen)
    """The whole server as an ASGI application."""
    app = FastAPI(
        title="Photochrom",
        version=__version__,
        summary="Colours grayscale photographs with diffusion models",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url="/api/openapi.json",
        docs_url=None,  # both of FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.photochrom_service = Service(settings)
    app.include_router(router)
    if settings.root_path:
        app.add_middleware(Below, root_path=settings.root_path)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=(KEY_HEADER, "Last-Event-ID"),
            expose_headers=("Location", "Retry-After", "Server-Timing"),
        )
    app.add_exception_handler(HTTPException, lambda request, error: as_response(error))
    # As the default, not a mount: that would hide the API's 405.
    app.router.default = Page(directory=Path(__file__).parent / "page", html=True)
    return app
