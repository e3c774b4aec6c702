"""Jobs: cancelled, and kept for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from photochrom.server import jobs
from tests.server.talking import (
    Held,
    create,
    problem,
    until,
    worker_of,
)


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


def test_a_job_of_another_process_is_told_apart(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it comes of `uvicorn --workers 2`, or of a restart."""
    place = create(client).headers["location"]
    assert "its time to be fetched is over" in problem(client.get(f"{place}x"), 404)
    monkeypatch.setattr(jobs, "PROCESS", "00000000")
    other = create(client).headers["location"]
    monkeypatch.undo()
    client.delete(other)
    for answer in (client.get("/api/jobs/11111111.abc"), client.delete("/api/jobs/11111111.abc")):
        assert "run a single one, without --workers" in problem(answer, 404)
