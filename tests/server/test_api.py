"""What the API answers, and what it refuses and how."""

from __future__ import annotations

import base64
import http.client
import io
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import DEFAULT_MODEL
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings, router
from tests.server.talking import (
    Held,
    create,
    events_of,
    listening,
    multipart,
    opened,
    photo,
    problem,
    send,
    until,
    worker_of,
)


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


BAD_FIELDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an unknown field": ({"stpes": "3"}, 422, "stpes: Extra inputs"),
    "no steps": ({"steps": "0"}, 422, "steps: "),
    "too many steps": ({"steps": "201"}, 422, "steps: "),
    "more steps than the model has": ({"steps": "51"}, 422, "trained with 50; take 1 to 50"),
    "guidance of a model that has none": ({"guidance": "2"}, 422, "leave guidance out"),
    "steps in words": ({"steps": "many"}, 422, "steps: "),
    "a negative seed": ({"seed": "-1"}, 422, "seed: "),
    "a huge seed": ({"seed": str(2**31)}, 422, "seed: "),
    "an unknown sampler": ({"sampler": "euler"}, 422, "sampler: "),
    "a strength that is none": ({"strength": "nan"}, 422, "strength: "),
    "a strength too large": ({"strength": "2.1"}, 422, "strength: "),
    "temperature for ddpm": (
        {"sampler": "ddpm", "temperature": "0.5"}, 422, "temperature scales the initial noise"
    ),
    "too many samples": ({"samples": "9", "format": "json"}, 422, "samples: "),
    "several samples in a PNG": ({"samples": "2"}, 422, "one picture cannot hold several samples"),
    "a map in a PNG": ({"average": "4", "uncertainty": "true"}, 422, "one picture cannot hold"),
    "samples and their average": (
        {"samples": "2", "average": "4", "format": "json"},
        422,
        "samples gives N pictures, average merges N into one",
    ),
    "too much to agree on": ({"average": "9"}, 422, "average: "),
    "uncertainty of one": ({"uncertainty": "true"}, 422, "set samples or average to 2 or more"),
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


def test_other_paths_and_methods_are_problems_too(client: TestClient) -> None:
    problem(client.get("/api/nothing"), 404)
    problem(client.get("/nothing.html"), 404)
    problem(client.get("/../api.py"), 404)
    problem(client.get("/%2e%2e/api.py"), 404)
    problem(client.get("/api/colorize"), 405)
    problem(client.post("/api/models"), 405)


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
    previews = [opened(base64.b64decode(task["preview"])) for task in tasks if "preview" in task]
    assert all(preview.size == (16, 16) for preview in previews)


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
    with listening(replace(settings, return_seconds=0.1)) as server:
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
