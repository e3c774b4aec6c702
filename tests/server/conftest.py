"""Fixtures of the tests of the server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from photochrom import files, model_folder
from photochrom.config import build
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings, create_app
from tests.server.talking import (
    Held,
    Values,
    make_trained,
)


@pytest.fixture(scope="session")
def trainer() -> Iterator[contextlib.ExitStack]:
    """What holds a model folder until the tests end."""
    with contextlib.ExitStack() as held:
        yield held


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, new_values: Values, trainer: contextlib.ExitStack
) -> Path:
    """old and new can colour; begun trains and has no weights yet; broken has an unreadable configuration."""
    models = tmp_path_factory.mktemp("server") / "models"
    for number, name in enumerate(("old", "new")):
        make_trained(ModelFolder(models / name), new_values(), number)
        for file in (models / name).iterdir():
            os.utime(file, (1e9 + number, 1e9 + number))
    begun = ModelFolder(models / "begun")
    begun.path.mkdir()
    files.write_json(begun / model_folder.CONFIG, build(new_values()).model_dump(mode="json"))
    trainer.enter_context(begun.locked())
    (models / "broken").mkdir()
    (models / "broken" / model_folder.CONFIG).write_text("{")
    report = models.parent / "reports" / "old-new"
    report.mkdir(parents=True)
    (report / "report.json").write_text(json.dumps({"subjects": {"old": {}, "new": {}}}))
    (report / "report.html").write_text("<!doctype html><title>r</title><h1>The report</h1>")
    (models.parent / "reports" / "torn").mkdir()
    (models.parent / "reports" / "torn" / "report.json").write_text('{"subj')
    return models


@pytest.fixture(scope="session")
def settings(models: Path) -> Settings:
    return Settings(
        models=models,
        reports=models.parent / "reports",
        device="cpu",
        max_pixels=400_000,
        max_upload_bytes=3 * 2**20,
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """Start further servers, with other settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **changes: stack.enter_context(TestClient(create_app(replace(settings, **changes))))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.gate.set()
