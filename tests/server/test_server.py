"""The server: what it answers, what it refuses and how, and that it stays well under load."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

import photochrom
from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import DEFAULT_MODEL, build
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings, create_app, router, worker
from photochrom.server.catalogue import Catalogue, is_training
from photochrom.server.photos import Painted, PreviewColorizer, paint
from photochrom.server.problems import Problem

PAGE = Path(photochrom.__file__).parent / "server" / "page"
Values = Callable[[], dict[str, Any]]


def make_model(folder: ModelFolder, values: dict[str, Any], seed: int = 0) -> None:
    """A model folder as a training leaves it, but with weights that learned nothing."""
    values["data"] |= {"size": 16}
    config = build(values)
    torch.manual_seed(seed)
    network = UNet(config.model)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(
                0.05 * torch.randn_like(weight)
            )  # the last layer begins with zeros: all photos would be gray
    folder.path.mkdir(parents=True)
    model_folder.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    folder.save_weights(network.state_dict(), config)
    common = {
        "noise": 0.1,
        "val_noise": 0.1,
        "seconds": 9.0,
        "photos_per_second": 80.0,
        "learning_rate": 1e-4,
    }
    record = {"train_loss": 0.3, "val_loss": 0.2, **common}
    history = [
        {"epoch": 1, "stage": "v1", "stage_began": 1, **record},
        {"epoch": 2, "stage": "v2", "stage_began": 2, **record},
    ]
    history[1] |= {"train_loss": 0.2, "perceptual": 0.5}
    model_folder.write_json(folder / model_folder.HISTORY, history)
    (folder / "samples").mkdir()
    for epoch in (1, 2):
        Image.new("RGB", (60, 40), (90 * epoch, 0, 0)).save(folder / "samples" / f"epoch_{epoch:04}.png")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, new_values: Values) -> Path:
    """old and new can colour, begun has no weights yet, broken has a configuration that cannot be read."""
    models = tmp_path_factory.mktemp("server") / "models"
    for number, name in enumerate(("old", "new")):
        make_model(ModelFolder(models / name), new_values(), number)
        for file in (models / name).iterdir():
            os.utime(file, (1e9 + number, 1e9 + number))
    begun = ModelFolder(models / "begun")
    begun.path.mkdir()
    model_folder.write_json(begun / model_folder.CONFIG, build(new_values()).model_dump(mode="json"))
    (begun / ".trainer").write_text(f"{os.getpid()}\n")
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


def photo(size: tuple[int, int] = (16, 16), seed: int = 0, mode: str = "L", format: str = "PNG") -> bytes:
    """A file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG of that size as its header says, with nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def send(client: TestClient, content: bytes = b"", path: str = "/api/colorize", **fields: Any) -> Any:
    """Post one photo."""
    values = {"model": "old", "steps": "3"} | fields
    return client.post(path, files=[("photo", ("photo.png", content or photo()))], data=values)


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


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.gate.set()


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


# --- Colouring --------------------------------------------------------------------------------------------------------


def test_a_photo_is_coloured_as_the_colorizer_does_it(client: TestClient, models: Path) -> None:
    content = photo((40, 24))
    response = send(
        client, content, seed="5", sampler="dpm++", strength="0.7", temperature="0.5", detail="24"
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert re.fullmatch(
        r"waited;dur=\d+, sampled;dur=\d+, finished;dur=\d+", response.headers["server-timing"]
    )
    expected = Colorizer.load("old", models, "cpu")(
        opened(content), steps=3, seed=5, sampler="dpm++", strength=0.7, temperature=0.5, detail=24
    )
    assert np.array_equal(np.asarray(opened(response.content)), np.asarray(expected))
    assert np.ptp(np.asarray(expected).astype(int), axis=-1).max() > 5  # there is colour to compare


def test_the_answer_can_be_what_several_colourings_agree_on(client: TestClient, models: Path) -> None:
    content = photo((16, 16))
    samples = Colorizer.load("old", models, "cpu").samples(opened(content), 4, steps=3)
    response = send(client, content, average="4")
    assert np.array_equal(np.asarray(opened(response.content)), np.asarray(samples.average()))
    answer = send(client, content, average="4", uncertainty="true", format="json").json()
    assert len(answer["measures"]) == 1
    calm, map = (np.asarray(opened(base64.b64decode(picture))) for picture in answer["pictures"])
    assert np.array_equal(calm, np.asarray(samples.average()))
    assert np.array_equal(map, np.asarray(samples.uncertainty()))


def test_the_answer_can_be_a_jpeg(client: TestClient) -> None:
    response = send(client, photo((40, 24), mode="RGBA"), format="jpeg")
    assert response.headers["content-type"] == "image/jpeg"
    assert (opened(response.content).format, opened(response.content).size) == ("JPEG", (40, 24))


def test_the_answer_can_be_json_with_samples_and_where_they_disagree(
    client: TestClient, models: Path
) -> None:
    content = photo((16, 16))
    answer = send(client, content, format="json", samples="3", uncertainty="true").json()
    assert answer["model"] == "old"
    pictures = [opened(base64.b64decode(picture)) for picture in answer["pictures"]]
    assert [picture.mode for picture in pictures] == ["RGB", "RGB", "RGB", "L"]
    assert len(answer["measures"]) == 3
    assert set(answer["timings"]) == {"waited", "sampled", "finished"}
    samples = Colorizer.load("old", models, "cpu").samples(opened(content), 3, steps=3)
    assert np.array_equal(np.asarray(pictures[2]), np.asarray(samples[2]))
    assert np.array_equal(np.asarray(pictures[3]), np.asarray(samples.uncertainty()))


def test_hints_hold(client: TestClient) -> None:
    gray = io.BytesIO()
    Image.new("L", (32, 32), 128).save(gray, "PNG")
    plain = opened(send(client, gray.getvalue()).content)
    hinted = opened(send(client, gray.getvalue(), hint=["16,16,#f02020"]).content)
    reds = [np.asarray(picture).astype(int)[16, 16] for picture in (plain, hinted)]
    assert reds[1][0] - reds[1][2] > reds[0][0] - reds[0][2] + 40


def test_without_a_name_the_model_that_comes_along_colours(
    client: TestClient, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", tmp_path)
    shutil.copytree(models / "old", tmp_path / DEFAULT_MODEL)
    assert send(client, model="", format="json").json()["model"] == DEFAULT_MODEL
    for file in shutil.copytree(models / "old", tmp_path / "other").iterdir():
        file.touch()  # changed after it
    first, second = client.get("/api/models").json()[:2]
    assert (first["name"], first["shipped"]) == (DEFAULT_MODEL, True)
    assert (second["name"], second["shipped"]) == ("other", True)


def test_measures_are_those_of_the_picture(client: TestClient) -> None:
    """Half of the photo is black: there no colour is legal. The rest is light."""
    pixels = np.full((16, 16), 180, dtype=np.uint8)
    pixels[:8] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (measures,) = send(client, buffer.getvalue(), format="json").json()["measures"]
    assert (measures["dark_share"], measures["dark_chroma"], measures["false_color"]) == (0.5, 0.0, 0.0)
    assert measures["colorfulness"] > 0


def test_no_pickle_is_loaded(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a pickle was loaded")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    client = serve()
    assert send(client).status_code == 200
    assert client.get("/api/models/old").status_code == 200


def test_an_upload_stays_in_memory(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("an upload went to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    content = photo((500, 500), mode="RGB", format="BMP")
    assert 700_000 < len(content) < 2**20
    assert (
        send(client, content + bytes(2 * 2**20)).status_code == 200
    )  # what follows a photo's end does not matter


# --- What is refused --------------------------------------------------------------------------------------------------

BAD_PHOTOS = {
    "text": (b"this is no photo", 415, "not a photo"),
    "nothing": (b"", 415, "not a photo"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", 415, "not a photo"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>", 415, "not a photo"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a photo"),
    "only a header's beginning": (photo()[:20], 415, "not a photo"),
    "cut short": (photo((64, 64), format="JPEG")[:-900], 422, "broken inside, or cut short"),
    "empty inside": (header_only(16, 16), 422, "broken inside, or cut short"),
    "too many pixels": (header_only(700, 600), 413, "more than 0.4 megapixels"),
    "a bomb": (header_only(60_000, 60_000), 413, "more than 0.4 megapixels"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/api/colorize", "/api/jobs"])
@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_a_bad_photo_is_refused(client: TestClient, name: str, path: str) -> None:
    content, status, words = BAD_PHOTOS[name]
    response = client.post(
        path, files=[("photo", ("photo.png", content))], data={"model": "old", "steps": "3"}
    )
    if path == "/api/jobs" and status == 422:  # found when it is decoded, which a job does later
        assert response.status_code == 202
        place = response.headers["location"]
        until(lambda: client.get(place).json()["state"] == "failed")
        assert words in client.get(place).json()["tasks"][0]["problem"]["detail"]
    else:
        assert words in problem(response, status)


BAD_FIELDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an unknown field": ({"stpes": "3"}, 422, "stpes: Extra inputs"),
    "no steps": ({"steps": "0"}, 422, "steps: "),
    "too many steps": ({"steps": "201"}, 422, "steps: "),
    "more steps than the model has": ({"steps": "51"}, 422, "trained with 50, take 1 to 50"),
    "guidance of a model that has none": ({"guidance": "2"}, 422, "leave guidance out"),
    "steps in words": ({"steps": "many"}, 422, "steps: "),
    "a negative seed": ({"seed": "-1"}, 422, "seed: "),
    "a huge seed": ({"seed": str(2**31)}, 422, "seed: "),
    "an unknown sampler": ({"sampler": "euler"}, 422, "sampler: "),
    "a strength that is none": ({"strength": "nan"}, 422, "strength: "),
    "a strength too large": ({"strength": "2.1"}, 422, "strength: "),
    "temperature for ddpm": ({"sampler": "ddpm", "temperature": "0.5"}, 422, "temperature is not for"),
    "too many samples": ({"samples": "9", "format": "json"}, 422, "samples: "),
    "several samples in a PNG": ({"samples": "2"}, 422, "do not fit into one picture"),
    "a map in a PNG": ({"average": "4", "uncertainty": "true"}, 422, "do not fit into one picture"),
    "samples and their average": (
        {"samples": "2", "average": "4", "format": "json"},
        422,
        "take one (N pictures, or what N agree on)",
    ),
    "too much to agree on": ({"average": "9"}, 422, "average: "),
    "uncertainty of one": ({"uncertainty": "true"}, 422, "set samples to 2 or more"),
    "an unknown format": ({"format": "gif"}, 422, "format: "),
    "a hint in words": ({"hint": "red"}, 422, "write x,y,#rrggbb"),
    "a hint outside": ({"hint": "16,3,#ff0000"}, 422, "is outside the photo"),
    "too many hints": ({"hint": ["1,1,#ff0000"] * 65}, 422, "hint: "),
    "a tiny detail": ({"detail": "2"}, 422, "detail: "),
    "an unknown model": ({"model": "best"}, 404, "there are: begun, broken, new, old"),
    "a path as a model": ({"model": "../models/old"}, 404, "no model"),
    "an absolute path as a model": ({"model": "/etc"}, 404, "no model"),
    "a model without weights": ({"model": "begun"}, 409, "has no weights yet"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_refused(client: TestClient, name: str) -> None:
    fields, status, words = BAD_FIELDS[name]
    assert words in problem(send(client, **fields), status)


def test_a_form_without_a_photo_or_without_a_form(client: TestClient) -> None:
    assert "photo" in problem(client.post("/api/colorize", data={"model": "old"}), 422)
    assert "photo" in problem(client.post("/api/colorize", data={"photo": "/etc/passwd"}), 422)
    assert "photo" in problem(client.post("/api/colorize", json={"photo": "http://127.0.0.1/a.png"}), 422)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "form" in problem(client.post("/api/colorize", content=b"--y\r\nnonsense", headers=headers), 400)
    headers = {"Content-Type": "multipart/form-data"}
    assert "form" in problem(client.post("/api/colorize", content=b"", headers=headers), 400)
    assert "model" in problem(client.post("/api/jobs", files=[("photo", ("a.png", photo()))]), 422)
    three = {"model": ["old", "new", "begun"]}
    assert "model" in problem(
        client.post("/api/jobs", files=[("photo", ("a.png", photo()))], data=three), 422
    )


def test_other_paths_and_methods_are_problems_too(client: TestClient) -> None:
    problem(client.get("/api/nothing"), 404)
    problem(client.get("/nothing.html"), 404)
    problem(client.get("/../api.py"), 404)
    problem(client.get("/%2e%2e/api.py"), 404)
    problem(client.get("/api/colorize"), 405)
    problem(client.post("/api/models"), 405)


def test_a_body_that_is_too_large_is_refused(client: TestClient, settings: Settings) -> None:
    content = bytes(settings.max_upload_bytes)
    assert "larger than 3 MiB" in problem(send(client, content), 413)

    def chunks() -> Iterator[bytes]:  # whose length nobody says beforehand
        body, _ = multipart(content)
        yield from (body[i : i + 65536] for i in range(0, len(body), 65536))

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "larger than 3 MiB" in problem(
        client.post("/api/colorize", content=chunks(), headers=headers), 413
    )


def test_names_are_never_paths(client: TestClient) -> None:
    for name in ("..", "%2e%2e%2fmodels%2fold", "old%2f..%2fold", "%00", "old%00", "~root", "C:%5Cold"):
        for path in (f"/api/models/{name}", f"/api/models/{name}/history", f"/api/models/{name}/samples/1"):
            assert client.get(path).status_code in (404, 422)
    problem(client.get("/api/models/old/reports/..%2f..%2fmodels"), 404)
    problem(client.get("/api/models/old/samples/9"), 404)
    problem(client.get("/api/models/old/samples/one"), 422)
    response = client.post(
        "/api/jobs", files=[("photo", ("../../etc/x\\y.png", photo()))], data={"model": "old", "steps": "1"}
    )
    assert response.json()["tasks"][0]["photo"] == "y.png"


def test_a_key_keeps_strangers_out(serve: Callable[..., TestClient]) -> None:
    client = serve(api_key="sésame, ouvre-toi")
    for path in ("/api/models", "/api/metrics", "/api/models/old", "/api/jobs/x", "/api/nothing-of-this"):
        assert client.get(path).status_code == (404 if "nothing" in path else 401)
    assert "X-API-Key" in problem(send(client), 401)
    assert client.get("/api/models", headers={"X-API-Key": "open"}).status_code == 401
    assert (
        client.get("/api/models", headers=[(b"X-API-Key", "sésame, ouvre-toi".encode())]).status_code == 200
    )
    cookie = {"Cookie": "photochrom-key=s%C3%A9same%2C%20ouvre-toi"}
    assert client.get("/api/models", headers=cookie).status_code == 200
    assert client.get("/api/health").json()["key_needed"] is True
    assert client.get("/").status_code == 200  # the page, which asks for the key


def test_other_sites_and_other_names_are_refused(serve: Callable[..., TestClient]) -> None:
    client = serve(hosts=("127.0.0.1", "localhost", "::1"))
    for host, status in (
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("rebound.example:8000", 403),
    ):
        assert client.get("/api/health", headers={"Host": host}).status_code == status
        assert client.get("/", headers={"Host": host}).status_code == status
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"Host": "localhost", "Sec-Fetch-Site": site}
        response = client.post(
            "/api/colorize", files={"photo": photo()}, data={"steps": "1", "model": "old"}, headers=headers
        )
        assert response.status_code == status


# --- Models -----------------------------------------------------------------------------------------------------------


def test_the_models_are_listed_the_newest_first(client: TestClient) -> None:
    facts = {fact["name"]: fact for fact in client.get("/api/models").json()}
    assert list(facts) == ["begun", "new", "old", "broken"]
    assert [fact["usable"] for fact in facts.values()] == [False, True, True, False]
    assert [fact["training"] for fact in facts.values()] == [True, False, False, False]
    assert (facts["new"]["stage"], facts["new"]["epoch"], facts["new"]["best_epoch"]) == ("v2", 2, 2)
    assert "cannot be read" in facts["broken"]["error"]


def test_a_model_has_details_history_samples_and_reports(client: TestClient, models: Path) -> None:
    details = client.get("/api/models/old").json()
    assert (details["samples"], details["reports"]) == ([1, 2], ["old-new"])
    assert details["config"]["model"]["features"] == [8, 16]
    assert client.get("/api/models/old/history").json() == ModelFolder(models / "old").history
    assert client.get("/api/models/begun/history").json() == []
    sheet = client.get("/api/models/old/samples/2")
    assert opened(sheet.content).getpixel((0, 0)) == (180, 0, 0)
    report = client.get("/api/models/old/reports/old-new")
    assert "The report" in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script" not in report.headers["content-security-policy"]
    assert "cannot be read" in problem(client.get("/api/models/broken"), 500)


@pytest.mark.parametrize(
    ("written", "expected"), [(f"{os.getpid()}\n", True), ("999999999\n", False), ("0", False), ("x", False)]
)
def test_a_training_is_one_whose_process_lives(tmp_path: Path, written: str, expected: bool) -> None:
    (tmp_path / ".trainer").write_text(written)
    assert is_training(ModelFolder(tmp_path)) is expected


def test_models_are_loaded_once_and_the_least_used_goes_first(
    models: Path, settings: Settings, new_values: Values, tmp_path: Path
) -> None:
    for name in "abc":
        make_model(ModelFolder(tmp_path / name), new_values())
    one = sum(p.nbytes for p in Colorizer.load(tmp_path / "a").network.parameters())
    loaded = worker.LoadedModels(
        lambda name: ModelFolder(tmp_path / name), replace(settings, model_bytes=2 * one)
    )
    first = loaded.get("a")
    loaded.get("b")
    assert loaded.get("a") is first
    loaded.get("c")
    assert loaded.names == ["a", "c"]
    assert loaded.bytes == 2 * one
    os.utime(tmp_path / "a" / model_folder.WEIGHTS, (1, 1))  # a training has written better ones
    assert loaded.get("a") is not first
    small = worker.LoadedModels(lambda name: ModelFolder(tmp_path / name), replace(settings, model_bytes=1))
    assert isinstance(small.get("a"), PreviewColorizer)  # one model there must be
    small.get("b")
    assert small.names == ["b"]


# --- Jobs -------------------------------------------------------------------------------------------------------------


def create(client: TestClient, photos: int = 1, **fields: Any) -> Any:
    values = {"model": ["old"], "steps": "3"} | fields
    files = [("photo", (f"{n}.png", photo(seed=n))) for n in range(photos)]
    return client.post("/api/jobs", files=files, data=values)


def events_of(text: str) -> list[tuple[str, Any]]:
    found = [
        re.fullmatch(r"event: (\w+)\ndata: (.*)", event, re.DOTALL) for event in text.split("\n\n") if event
    ]
    return [(match[1], json.loads(match[2])) for match in found if match]


def test_a_job_colours_each_photo_by_each_model(client: TestClient, models: Path) -> None:
    response = create(client, 2, model=["old", "new"])
    assert response.status_code == 202
    place = response.headers["location"]
    assert place == f"/api/jobs/{response.json()['id']}"
    events = events_of(client.get(f"{place}/events").text)
    assert {name for name, _ in events[:-1]} == {"task"}
    assert events[-1][0] == "done"
    status = client.get(place).json()
    assert events[-1][1] == status
    assert status["state"] == "done"
    assert [(task["photo"], task["model"]) for task in status["tasks"]] == [
        ("0.png", "old"), ("0.png", "new"), ("1.png", "old"), ("1.png", "new"),
    ]  # fmt: skip
    expected = Colorizer.load("new", models, "cpu")(opened(photo(seed=1)), steps=3)
    found = client.get(f"{place}/tasks/3/pictures/0")
    assert np.abs(np.asarray(opened(found.content)).astype(int) - np.asarray(expected)).max() <= 1
    for part in ("tasks/4/pictures/0", "tasks/0/pictures/1", "tasks/-1/pictures/0"):
        problem(client.get(f"{place}/{part}"), 404)
    assert client.delete(place).status_code == 204
    problem(client.get(place), 404)
    problem(client.delete(place), 404)


def test_events_tell_every_task_its_steps_and_show_previews(client: TestClient, held: Held) -> None:
    place = create(client, steps="5").headers["location"]
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(client.get(f"{place}/events").text))
    reader.start()
    app: Any = client.app
    job = app.state.photochrom_service.jobs.get(place.rsplit("/", 1)[1])
    until(lambda: job.watchers == 1 and job.state == "running")
    assert client.get(place).json()["state"] == "running"
    assert job.tasks[0].watched
    problem(client.get(f"{place}/tasks/0/pictures/0"), 409)
    held.gate.set()
    reader.join()
    tasks = [data for name, data in events_of(seen[0]) if name == "task"]
    assert tasks[-1]["state"] == "done"
    steps = [task["step"] for task in tasks]
    assert steps == sorted(steps)
    assert tasks[-1]["pictures"] == 1
    assert job.tasks[0].photo == b""  # no upload is kept
    previews = [opened(base64.b64decode(task["preview"])) for task in tasks if task["preview"]]
    assert all(preview.size == (16, 16) for preview in previews)


def test_photos_that_wait_are_coloured_together_if_they_can_be(client: TestClient, held: Held) -> None:
    first = create(client)
    until(lambda: held.batches == [1])
    alike = [create(client, 2), create(client, 3)]
    other = [create(client, 1, seed="1"), create(client, 1, model=["new"])]
    large = client.post(
        "/api/jobs", files=[("photo", ("l.png", photo((40, 30))))], data={"model": "old", "steps": "3"}
    )
    held.gate.set()
    for response in (first, *alike, *other, large):
        place = response.headers["location"]
        until(lambda place=place: client.get(place).json()["state"] == "done")  # type: ignore[misc]
    assert held.batches == [1, 5, 1, 1, 1]


def test_a_cancelled_job_gives_its_place_free_within_a_step(client: TestClient, held: Held) -> None:
    place = create(client, steps="50").headers["location"]
    until(lambda: held.batches == [1])
    waiting = create(client, 1).headers["location"]
    assert client.delete(waiting).status_code == 204
    assert client.delete(place).status_code == 204
    held.gate.set()
    until(lambda: not worker_of(client)._running)
    assert held.steps == 1
    assert held.batches == [1]  # the one that waited never began
    assert create(client).status_code == 202


def test_when_too_many_wait_the_next_is_refused_at_once(serve: Callable[..., TestClient], held: Held) -> None:
    client = serve(queue_photos=3)
    running = create(client)
    until(lambda: worker_of(client).running == 1)
    waiting = create(client, 2)
    assert waiting.status_code == 202
    begun = time.monotonic()
    refused = create(client, 2)
    assert time.monotonic() - begun < 5
    assert "2 photos are waiting and there is no room for 2 more" in problem(refused, 503)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "at most 3" in problem(create(client, 4), 422)
    assert create(client, 1).status_code == 202
    assert client.delete(waiting.headers["location"]).status_code == 204
    assert create(client, 2).status_code == 202  # the places of those who went away are free
    held.gate.set()
    until(lambda: client.get(running.headers["location"]).json()["state"] == "done")
    refusals = {
        metric.name: metric for metric in text_string_to_metric_families(client.get("/api/metrics").text)
    }
    assert refusals["photochrom_refused_photos"].samples[0].value == 2


def test_the_files_of_those_who_wait_are_limited_too(serve: Callable[..., TestClient], held: Held) -> None:
    client = serve(queue_bytes=len(photo()))
    create(client)
    until(lambda: worker_of(client).running == 1)
    assert create(client).status_code == 202
    problem(create(client), 503)


def test_what_takes_too_long_is_given_up(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(job_seconds=0.2)
    chroma = PreviewColorizer.chroma

    def slow(self: Any, y: Any, seeds: Any, *, callback: Any, **options: Any) -> Any:
        def step(*done: Any) -> None:
            time.sleep(0.05)
            callback(*done)

        return chroma(self, y, seeds, callback=step, **options)

    monkeypatch.setattr(PreviewColorizer, "chroma", slow)
    place = create(client, steps="50").headers["location"]
    assert "not done within 0.2 s" in problem(send(client, steps="50"), 504)
    status = client.get(place).json()
    assert (status["state"], status["tasks"][0]["problem"]["status"]) == ("failed", 504)
    monkeypatch.undo()
    assert send(client).status_code == 200


def test_a_fault_inside_ends_one_photo_and_not_the_server(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("a secret of the inside")

    with monkeypatch.context() as patch:
        patch.setattr("photochrom.server.worker.paint", fail)
        response = send(client)
        assert "a secret" not in problem(response, 500)
        assert "a secret of the inside" in caplog.text
        patch.undo()
        patch.setattr(Painted, "finish", fail)
        problem(send(client), 500)
    assert send(client).status_code == 200


def test_results_are_kept_for_a_while_and_within_bounds(serve: Callable[..., TestClient]) -> None:
    def finished(client: TestClient) -> str:
        place = str(create(client).headers["location"])
        until(lambda: client.get(place).json().get("state") in ("done", None))
        return place

    client = serve(result_seconds=0.0)
    problem(client.get(finished(client)), 404)
    client = serve(result_bytes=1500)  # one picture of 16x16 pixels of noise
    first, second = finished(client), finished(client)
    problem(client.get(first), 404)
    assert client.get(second).status_code == 200
    client = serve(result_bytes=1)
    alone = finished(client)
    assert client.get(f"{alone}/tasks/0/pictures/0").status_code == 200  # else nobody could ever fetch it


# --- With real connections --------------------------------------------------------------------------------------------


def test_a_client_that_goes_away_frees_its_place_within_a_step(settings: Settings, held: Held) -> None:
    with listening(settings) as server:
        service = server.app.state.photochrom_service
        body, headers = multipart(photo(), model="old", steps="50")
        connection = http.client.HTTPConnection(server.host, server.port)
        connection.request("POST", "/api/colorize", body, headers)
        until(lambda: held.batches == [1])
        connection.close()
        until(lambda: service.worker.running == 0)  # given up, though the step is still held
        held.gate.set()
        until(lambda: not service.worker._running)
        assert held.steps == 1


def test_a_job_whose_events_nobody_follows_any_more_is_given_up(settings: Settings, held: Held) -> None:
    with listening(settings) as server:
        body, headers = multipart(photo(), model="old", steps="50")
        connection = http.client.HTTPConnection(server.host, server.port)
        connection.request("POST", "/api/jobs", body, headers)
        place = connection.getresponse().headers["location"]
        connection.close()
        stream = http.client.HTTPConnection(server.host, server.port)
        stream.request("GET", f"{place}/events")
        answer = stream.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.readline() == b"event: task\n"
        answer.close()
        stream.close()
        job = server.app.state.photochrom_service.jobs.get(place.rsplit("/", 1)[1])
        until(lambda: job.state == "cancelled")
        held.gate.set()


def test_a_slow_body_is_not_waited_for(settings: Settings) -> None:
    with (
        listening(replace(settings, body_seconds=0.2)) as server,
        socket.create_connection(server[:2]) as line,
    ):
        head = "POST /api/colorize HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n--x"
        line.sendall(head.encode())
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
        assert answer.startswith("HTTP/1.1 408 ")
        assert '"status":408' in answer


def test_a_large_body_is_refused_in_a_way_that_is_heard(settings: Settings) -> None:
    with listening(settings) as server:
        body, headers = multipart(bytes(2 * settings.max_upload_bytes))
        connection = http.client.HTTPConnection(server.host, server.port)
        connection.request("POST", "/api/colorize", body, headers)
        assert connection.getresponse().status == 413
        connection.close()


def test_sigterm_finishes_what_runs_and_exits_0(models: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "photochrom",
        "serve",
        "--models",
        str(models),
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stderr
        address = re.search(r"http://127.0.0.1:(\d+)/", process.stderr.readline())
        assert address
        connections = []
        for seed in ("0", "1"):
            body, headers = multipart(photo((120, 90)), model="old", steps="50", detail="160", seed=seed)
            connection = http.client.HTTPConnection("127.0.0.1", int(address[1]))
            connection.request("POST", "/api/colorize", body, headers)
            connections.append(stack.enter_context(contextlib.closing(connection)))
        health = stack.enter_context(
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(address[1])))
        )

        def begun() -> bool:
            health.request("GET", "/api/health")
            facts = json.loads(health.getresponse().read())
            return (facts["running"], facts["waiting"]) == (1, 1)

        until(begun, 60)
        process.send_signal(signal.SIGTERM)
        statuses = sorted(connection.getresponse().status for connection in connections)
        assert statuses == [200, 503]  # what ran is finished, what waited is turned away
        assert process.wait(30) == 0
        assert "stopping" in process.stderr.read()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "photochrom", "serve", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(
        r"error: cannot listen on 127\.0\.0\.1:\d+: .*; choose another with --port\n$", done.stderr
    )


# --- The page, the description, other applications --------------------------------------------------------------------


def test_the_router_serves_inside_another_application(settings: Settings) -> None:
    app = FastAPI()
    app.state.photochrom = settings
    app.include_router(router, prefix="/photos")
    with TestClient(app) as client:
        assert send(client, path="/photos/api/colorize").status_code == 200
        assert "no model" in problem(send(client, path="/photos/api/colorize", model="x"), 404)
        assert create_job_at(client).startswith("/photos/api/jobs/")
        assert "/photos/api/colorize" in client.get("/openapi.json").json()["paths"]


def create_job_at(client: TestClient) -> str:
    response = client.post(
        "/photos/api/jobs", files=[("photo", ("a.png", photo()))], data={"model": "old", "steps": "1"}
    )
    return str(response.headers["location"])


class Links(HTMLParser):
    """What a page loads, and what in it would need an exception from the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [
            value for name in ("src", "href") if (value := values.get(name)) and not value.startswith("#")
        ]
        if (
            tag == "style"
            or (tag == "script" and "src" not in values)
            or any(n == "style" or n.startswith("on") for n in values)
        ):
            self.inline.append(tag)


def test_the_page_comes_with_a_strict_policy_and_keeps_to_it(client: TestClient) -> None:
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    links = Links()
    links.feed(response.text)
    assert not links.inline
    assert "main.js" in links.loads
    for path in links.loads:
        assert "//" not in path
        assert client.get(f"/{path}").headers["x-content-type-options"] == "nosniff"


def test_everything_that_the_page_imports_is_there_and_comes_from_here() -> None:
    for module in PAGE.glob("*.js"):
        text = module.read_text(encoding="utf-8")
        for path in re.findall(r'(?:from|import\()\s*"([^"\s]+)"', text):
            assert (PAGE / path).is_file(), f"{module.name} imports {path}"
        assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert (PAGE / "vendor" / "client-zip.LICENSE.txt").is_file()
    assert "2.5.1" in (PAGE / "README.md").read_text(encoding="utf-8")


def test_nothing_but_the_pages_files_is_served(client: TestClient) -> None:
    assert client.get("/style.css").headers["content-type"].startswith("text/css")
    assert client.get("/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/settings.py", "/../settings.py", "/..%2fsettings.py", "/vendor/"):
        assert client.get(path).status_code == 404


def test_the_description_has_a_summary_a_tag_and_problems_for_every_operation(client: TestClient) -> None:
    description = client.get("/api/openapi.json").json()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    assert len(operations) == 13
    for operation in operations:
        assert operation["summary"]
        assert operation["tags"]
    for path in ("/api/colorize", "/api/jobs"):
        answers = description["paths"][path]["post"]["responses"]
        assert {"413", "415", "422", "503", "504"} <= set(answers)
        assert "application/problem+json" in answers["503"]["content"]
    form = description["components"]["schemas"]["ColorizeForm"]["properties"]
    assert form["steps"]["examples"]
    assert form["hint"]["examples"]


def test_metrics_are_what_prometheus_reads(serve: Callable[..., TestClient]) -> None:
    client = serve()
    assert send(client).status_code == 200
    families = {
        family.name: family for family in text_string_to_metric_families(client.get("/api/metrics").text)
    }
    samples = {
        sample.name: sample.value
        for family in families.values()
        for sample in family.samples
        if "_bucket" not in sample.name
    }
    assert samples["photochrom_photos_total"] == 1
    assert samples["photochrom_loaded_models"] == 1
    assert samples["photochrom_sampling_seconds_count"] == 1
    assert samples["photochrom_waiting_photos"] == 0


def test_photos_are_counted_whatever_becomes_of_them(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: Any) -> None:
        raise Problem(404, "the model has gone meanwhile")

    client = serve()
    monkeypatch.setattr("photochrom.server.worker.paint", gone)
    assert "gone meanwhile" in problem(send(client), 404)
    assert 'photochrom_photos_total{outcome="failed"} 1.0' in client.get("/api/metrics").text


# --- Whatever else a client might send --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_schemathesis_finds_no_answer_that_the_description_does_not_say(settings: Settings) -> None:
    """Each operation with values that fit the description, and with values that do not."""
    schemathesis = pytest.importorskip("schemathesis")
    checks = schemathesis.checks
    wanted = [checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
    with listening(replace(settings, job_seconds=5.0)) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}api/openapi.json")
        tried = dict.fromkeys(schemathesis.GenerationMode, 0)
        for operation in (result.ok() for result in schema.get_all_operations()):
            for mode in schemathesis.GenerationMode:

                @hypothesis.settings(max_examples=12, suppress_health_check=list(hypothesis.HealthCheck))
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def try_it(case: Any) -> None:
                    case.call_and_validate(checks=wanted, timeout=20)

                with contextlib.suppress(
                    hypothesis.errors.Unsatisfiable
                ):  # to some, nothing wrong can be said
                    try_it()
                    tried[mode] += 1
    positive, negative = tried.values()
    assert positive == 13
    assert negative >= 2


def test_a_reference_and_a_mask_guide_the_colours(client: TestClient) -> None:
    """By the API as in Python, for which tests/coloring has the proofs; and refused where they cannot be."""
    gray, like = photo((32, 32)), photo((20, 20), seed=5, mode="RGB")
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")

    def colored(**guides: bytes) -> np.ndarray:
        files = [("photo", ("photo.png", gray)), *((name, (name, file)) for name, file in guides.items())]
        answer = client.post("/api/colorize", files=files, data={"model": "old", "steps": "3"})
        assert answer.status_code == 200, answer.text
        return np.asarray(opened(answer.content)).astype(int)

    model = worker_of(client).models.get("old")
    expected = model(opened(gray), steps=3, like=opened(like))
    assert (colored(like=like) == np.asarray(expected)).all()
    kept = colored(keep_gray=buffer.getvalue())
    assert np.ptp(kept[:, :12], axis=2).max() <= 1
    assert np.ptp(kept[:, 20:], axis=2).max() > 20
    for guides, status, text in (
        ({"like": b"text"}, 415, "not a photo"),
        ({"like": gray}, 422, "has no colours"),
        ({"keep_gray": photo((32, 10))}, 422, "does not fit"),
    ):
        files = [("photo", ("photo.png", gray)), *((name, (name, file)) for name, file in guides.items())]
        assert text in problem(client.post("/api/colorize", files=files, data={"model": "old"}), status)
    files = [
        ("photo", ("1.png", gray)),
        ("photo", ("2.png", gray)),
        ("keep_gray", ("m.png", buffer.getvalue())),
    ]
    answer = client.post("/api/jobs", files=files, data={"model": "old"})
    assert "one photo" in problem(answer, 422)


def test_models_say_what_they_are_what_for_and_how_good() -> None:
    shipped = Path(photochrom.__file__).parent / "weights"
    catalogue = Catalogue(shipped, shipped)
    facts = {model["name"]: model for model in catalogue.all()}["photochrom-v2"]
    assert "20 steps" in facts["about"]
    assert "research" in facts["use"]
    table = (catalogue.find("photochrom-v2") / "README.md").read_text()
    found = facts["quality"]["ciede2000"]
    value, low, high = (f"{found[key]:.2f}" for key in ("value", "low", "high"))
    assert f"| {value} | {low} to {high} | {facts['quality']['gray']:.2f} |" in table
