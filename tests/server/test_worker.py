"""The queue, the thread that runs models, and the models in memory."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings, worker
from photochrom.server.photos import Painted, PreviewColorizer
from tests.server.talking import (
    Held,
    Values,
    create,
    make_trained,
    opened,
    photo,
    problem,
    send,
    until,
    worker_of,
)


def test_models_are_loaded_once_and_the_least_used_goes_first(
    models: Path, settings: Settings, new_values: Values, tmp_path: Path
) -> None:
    for name in "abc":
        make_trained(ModelFolder(tmp_path / name), new_values())
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


def test_when_too_many_wait_the_next_is_refused_at_once(serve: Callable[..., TestClient], held: Held) -> None:
    client = serve(queue_photos=3)
    running = create(client)
    until(lambda: worker_of(client).running == 1)
    waiting = create(client, 2)
    assert waiting.status_code == 202
    begun = time.monotonic()
    refused = create(client, 2)
    assert time.monotonic() - begun < 5
    assert "2 photos are waiting, and there is no room for 2 more" in problem(refused, 503)
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

    def slow(self: Any, y: Any, seeds: Any, options: Any, *, callback: Any, held: Any) -> Any:
        def step(*done: Any) -> None:
            time.sleep(0.05)
            callback(*done)

        return chroma(self, y, seeds, options, callback=step, held=held)

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


def test_photos_that_are_cancelled_at_once_do_not_end_the_worker(client: TestClient) -> None:
    for _ in range(5):
        assert client.delete(create(client).headers["location"]).status_code == 204
        time.sleep(0.1)  # in which the worker gathers a batch that has become empty
        assert client.get("/api/health").status_code == 200
    place = create(client).headers["location"]
    until(lambda: client.get(place).json()["state"] == "done")


def test_tasks_expire_whatever_the_worker_does(serve: Callable[..., TestClient], held: Held) -> None:
    """While the worker hangs in a step, photos that run or wait still get their answer in time."""
    client = serve(job_seconds=2)
    running = create(client).headers["location"]
    until(lambda: held.batches == [1])
    waiting = create(client).headers["location"]
    assert "not done within 2 s" in problem(send(client), 504)
    for place in (running, waiting):
        assert client.get(place).json()["tasks"][0]["problem"]["status"] == 504
    assert client.get("/api/health").json()["waiting"] == 0
    assert held.steps == 0
    held.gate.set()
    assert send(client).status_code == 200


def test_health_says_when_work_does_not_go_on(serve: Callable[..., TestClient], held: Held) -> None:
    client = serve(stall_seconds=0.3)
    assert client.get("/api/health").status_code == 200
    create(client)
    until(lambda: held.batches == [1])
    until(lambda: client.get("/api/health").status_code == 503)
    assert "has made no progress" in problem(client.get("/api/health"), 503)
    held.gate.set()
    until(lambda: client.get("/api/health").status_code == 200)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_told_and_begins_anew(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(*args: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("photochrom.server.worker.paint", end)
        create(client)
        until(lambda: client.get("/api/health").status_code == 503)
        assert "has died" in problem(client.get("/api/health"), 503)
    assert send(client).status_code == 200
    assert "starting it again" in caplog.text
    assert client.get("/api/health").status_code == 200


def test_what_is_wrong_with_one_photo_does_not_spoil_its_neighbours(
    client: TestClient, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three photos in one batch, of which the model cannot stand one."""
    create(client, 1, seed="9")
    until(lambda: held.batches == [1])
    chroma = PreviewColorizer.chroma

    def picky(self: Any, y: Any, seeds: Any, *options: Any, **places: Any) -> Any:
        if any(float(one.mean()) > 0.9 for one in y):
            raise ZeroDivisionError
        return chroma(self, y, seeds, *options, **places)

    monkeypatch.setattr(PreviewColorizer, "chroma", picky)
    white = io.BytesIO()
    Image.new("L", (16, 16), 255).save(white, "PNG")
    contents = (photo(seed=1), white.getvalue(), photo(seed=2))
    places = [send(client, content, "/api/jobs").headers["location"] for content in contents]
    held.gate.set()
    until(lambda: all(client.get(place).json()["state"] in ("done", "failed") for place in places))
    assert [client.get(place).json()["state"] for place in places] == ["done", "failed", "done"]
    assert client.get(places[1]).json()["tasks"][0]["problem"]["status"] == 500
    assert held.batches == [1, 3, 1, 1, 1]


def test_a_batch_keeps_its_reference_when_its_first_photo_is_given_up(
    client: TestClient, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = photo((20, 20), seed=5, mode="RGB")
    first = create(client)
    until(lambda: held.batches == [1])
    files = [("photo", ("photo.png", photo())), ("like", ("like.png", reference))]
    given_up, kept = (
        client.post("/api/jobs", files=files, data={"model": "old", "steps": "3"}) for _ in "ab"
    )
    get = worker.LoadedModels.get

    def get_late(self: Any, name: str) -> Any:
        client.delete(given_up.headers["location"])  # when both are in the batch
        return get(self, name)

    monkeypatch.setattr(worker.LoadedModels, "get", get_late)
    held.gate.set()
    until(lambda: client.get(kept.headers["location"]).json()["state"] == "done")
    assert held.batches == [1, 2]
    found = opened(client.get(f"{kept.headers['location']}/tasks/0/pictures/0").content)
    model = worker_of(client).models.get("old")
    expected = model(opened(photo()), steps=3, like=opened(reference))
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 1
    assert client.get(first.headers["location"]).json()["state"] == "done"
