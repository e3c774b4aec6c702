"""What the tests of the server share: models, photos, clients, and servers that really listen."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from photochrom import files, model_folder
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings, create_app, worker
from photochrom.server.photos import paint
from tests.making import make_model

Values = Callable[[], dict[str, Any]]


def photo(size: tuple[int, int] = (16, 16), seed: int = 0, mode: str = "L", format: str = "PNG") -> bytes:
    """A file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def send(client: TestClient, content: bytes | None = None, path: str = "/api/colorize", **fields: Any) -> Any:
    """Post one photo."""
    values = {"model": "old", "steps": "3"} | fields
    return client.post(
        path, files=[("photo", ("photo.png", photo() if content is None else content))], data=values
    )


def create(client: TestClient, photos: int = 1, **fields: Any) -> Any:
    values = {"model": ["old"], "steps": "3"} | fields
    files = [("photo", (f"{n}.png", photo(seed=n))) for n in range(photos)]
    return client.post("/api/jobs", files=files, data=values)


def events_of(text: str) -> list[tuple[str, Any]]:
    """Names and data of the events of a stream, without its comments."""
    events = [dict(re.findall(r"^(\w+): (.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    return [(event["event"], json.loads(event["data"])) for event in events if event]


def problem(response: Any, status: int) -> str:
    """Check that it is a problem of that status as RFC 9457 has it, and answer its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    body = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    assert "Traceback" not in response.text
    return str(body["detail"])


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def worker_of(client: TestClient) -> worker.Worker:
    app: Any = client.app
    return app.state.photochrom_service.worker


class Held:
    """Makes every sampling step wait until it is let go; remembers the batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.steps = threading.Event(), 0
        self.batches: list[int] = []

        def slow(colorizer: Any, photos: Any, choices: Any, step_done: Any, guides: Any) -> Any:
            self.batches.append(len(photos))

            def step(done: int, total: int) -> None:
                self.gate.wait(20)
                self.steps += 1
                step_done(done, total)

            return paint(colorizer, photos, choices, step, guides)

        monkeypatch.setattr("photochrom.server.worker.paint", slow)


class Address(NamedTuple):
    """A server that really listens."""

    host: str
    port: int
    app: FastAPI

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Address]:
    """Run a server on a free port, in a thread."""
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            host, port = listener.getsockname()
            yield Address(host, port, app)
        finally:
            server.should_exit = True
            thread.join()


def multipart(content: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    """A body, and its headers."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="p.png"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    return b"".join(parts), {"Content-Type": "multipart/form-data; boundary=x"}


def make_trained(folder: ModelFolder, values: dict[str, Any], seed: int = 0) -> None:
    """A model folder as a training of two stages leaves it, but with weights that have learnt nothing."""
    make_model(folder, values, seed)
    common = {
        "noise": 0.1,
        "val_noise": 0.1,
        "seconds": 9.0,
        "photos_per_second": 80.0,
        "learning_rate": 1e-4,
        "photos": 720,
        "weights": {"noise": 1.0, "perceptual": 0.1, "adversarial": 0.0},
    }
    record = {"train_loss": 0.3, "val_loss": 0.2, **common}
    history = [
        {"epoch": 1, "stage": "v1", "stage_began": 1, **record},
        {"epoch": 2, "stage": "v2", "stage_began": 2, **record},
    ]
    history[1] |= {"train_loss": 0.2, "perceptual": 0.5}
    files.write_json(folder / model_folder.HISTORY, history)
    (folder / "samples").mkdir()
    for epoch in (1, 2):
        Image.new("RGB", (60, 40), (90 * epoch, 0, 0)).save(folder / "samples" / f"epoch_{epoch:04}.png")
