"""The service: there when it is first needed, wherever the router or the application stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from photochrom.server import Settings, create_app, router
from tests.server.talking import create, opened, photo, problem, send, until


def test_an_application_works_mounted_in_another(settings: Settings) -> None:
    outer = FastAPI()
    outer.mount("/photos", create_app(settings))
    client = TestClient(outer)  # which tells the inner one neither its beginning nor its end
    content = photo()
    assert opened(send(client, content, "/photos/api/colorize").content).size == (16, 16)
    assert client.get("/photos/api/health").json()["status"] == "ok"
    assert client.get("/photos/").status_code == 200
    answer = send(client, content, "/photos/api/jobs")
    place = answer.headers["location"]
    assert place == f"/photos/api/jobs/{answer.json()['id']}"
    until(lambda: client.get(place).json()["state"] == "done")


def test_the_router_works_in_any_application(settings: Settings) -> None:
    """In a router of a router, and in a mounted application, even one of Starlette."""
    nested = APIRouter()
    nested.include_router(router, prefix="/b")
    included, inner, outer = FastAPI(), FastAPI(), FastAPI()
    included.include_router(nested, prefix="/a")
    inner.include_router(router)
    outer.mount("/a/b", inner)
    starlette = Starlette(routes=[Mount("/a/b", inner)])
    for app, holder in ((included, included), (outer, inner), (starlette, inner)):
        holder.state.photochrom = settings
        client = TestClient(app)
        assert send(client, path="/a/b/api/colorize").status_code == 200
        assert "no model" in problem(send(client, path="/a/b/api/colorize", model="x"), 404)


def test_the_end_of_an_application_ends_its_worker(settings: Settings) -> None:
    app = create_app(settings)
    with TestClient(app) as client:
        assert send(client).status_code == 200
    problem(create(client), 503)
    problem(client.get("/api/health"), 503)


def test_without_settings_the_folder_models_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    app.include_router(router)
    assert TestClient(app).get("/api/models").json() == []
