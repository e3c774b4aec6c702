"""A browser, a server, and its page. Without a browser these tests are skipped, and say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from photochrom.server import Settings
from photochrom.server.photos import PreviewColorizer
from tests.server.page.browsing import CHROMIUM, QUIET, opened_page
from tests.server.talking import Address, listening


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a closed page leaves open is Playwright's own affair."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(settings: Settings) -> Iterator[Address]:
    with listening(settings) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: Address) -> Iterator[Any]:
    """The page, freshly opened; whatever it complains of in the console fails the test."""
    with opened_page(browser, server.url) as page:
        yield page


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Makes every step wait until it is let go."""
    gate = threading.Event()
    chroma = PreviewColorizer.chroma

    def slow(self: Any, y: Any, seeds: Any, options: Any, *, callback: Any, held: Any) -> Any:
        def step(*done: Any) -> None:
            callback(*done)
            gate.wait(20)

        return chroma(self, y, seeds, options, callback=step, held=held)

    monkeypatch.setattr(PreviewColorizer, "chroma", slow)
    yield gate
    gate.set()


@pytest.fixture
def asked(server: Address, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tasks that the page has the server do."""
    worker, tasks = server.app.state.photochrom_service.worker, []
    submit = worker.submit

    def record(new: Any) -> None:
        tasks.extend([(task.choices, task.guides) for task in new])
        submit(new)

    monkeypatch.setattr(worker, "submit", record)
    return tasks
