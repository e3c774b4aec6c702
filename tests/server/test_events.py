"""A job's progress as server-sent events."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from fastapi.testclient import TestClient

from photochrom.server import Settings
from photochrom.server.jobs import Job
from tests.server.talking import Address, Held, create, listening, multipart, photo, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def new_job(server: Address) -> Job:
    body, headers = multipart(photo(), model="old", steps="50")
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port)) as line:
        line.request("POST", "/api/jobs", body, headers)
        place = line.getresponse().headers["location"]
    job: Job = server.app.state.photochrom_service.jobs.get(place.rsplit("/", 1)[1])
    return job


@contextlib.contextmanager
def followed(server: Address, job: Job) -> Iterator[http.client.HTTPResponse]:
    """A job's stream, which is left at the end."""
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as line:
        line.request("GET", f"/api/jobs/{job.id}/events")
        answer = line.getresponse()
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer
        answer.close()


def test_a_job_that_waits_is_heard_of(settings: Settings, held: Held) -> None:
    """So that no proxy takes the stream for dead."""
    with (
        listening(replace(settings, heartbeat_seconds=0.1)) as server,
        followed(server, new_job(server)) as answer,
    ):
        lines = iter(answer.readline, b"")
        beats = [line for line in islice(lines, 30) if line.startswith(b":")]
        assert len(beats) > 5
        held.gate.set()
        assert b"event: done\n" in list(lines)


def test_a_client_that_comes_back_hears_only_what_is_new(client: TestClient) -> None:
    place = create(client, 2).headers["location"]
    until(lambda: client.get(place).json()["state"] == "done")
    whole = client.get(f"{place}/events").text
    ids = [int(id) for id in re.findall(r"^id: (\d+)$", whole, re.MULTILINE)]
    assert ids == sorted(ids)
    assert len(ids) == 2
    again = client.get(f"{place}/events", headers={"Last-Event-ID": str(ids[0])}).text
    assert re.findall(r"^id: (.*)$", again, re.MULTILINE) == [str(ids[1]), "done"]
    assert client.get(f"{place}/events", headers={"Last-Event-ID": "done"}).status_code == 204
    for odd in ("x", "-1", "9" * 500):
        assert client.get(f"{place}/events", headers={"Last-Event-ID": odd}).text == whole


def test_a_job_lives_on_when_its_client_comes_back_in_time(settings: Settings, held: Held) -> None:
    with listening(replace(settings, return_seconds=1.0)) as server:
        job = new_job(server)
        for _ in range(2):
            left = job.left
            with followed(server, job) as answer:
                assert answer.readline() == b"event: task\n"
            until(lambda left=left: job.left > left)  # type: ignore[misc]
            assert not job.settled
        with followed(server, job) as answer:
            answer.readline()
            with pytest.raises(AssertionError, match="did not happen"):
                until(lambda: job.settled, 1.5)  # longer than what those had who left before
        until(lambda: job.state == "cancelled")
        held.gate.set()
