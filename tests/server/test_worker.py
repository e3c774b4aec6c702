"""The queue, the thread that runs models, and the models in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
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
    make_model,
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
