"""`photochrom serve`: how it starts and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from photochrom.commands.serve import serve
from photochrom.errors import UsageError
from photochrom.model_folder import ModelFolder
from tests.server.talking import (
    Values,
    make_trained,
    multipart,
    photo,
    until,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, new_values: Values) -> Path:
    """One model, named old."""
    models = tmp_path_factory.mktemp("serve") / "models"
    make_trained(ModelFolder(models / "old"), new_values())
    return models


class Served:
    """`photochrom serve` in a process of its own."""

    def __init__(self, models: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "photochrom", "serve", "--models", str(models), "--port", "0"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--device", "cpu", *flags], stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stderr
        self.errors = self.process.stderr
        address = re.search(r"http://127.0.0.1:(\d+)", self.errors.readline())
        assert address
        self.port = int(address[1])
        self.lines: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        for line in self.lines:
            line.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def ask(self, method: str, path: str, *body: Any) -> http.client.HTTPConnection:
        """Send a request, and leave its answer for later."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.lines.append(line)
        line.request(method, path, *body)
        return line

    def busy(self, **fields: str) -> list[http.client.HTTPConnection]:
        """Two photos, of which one runs and one waits, each for some seconds."""
        lines = []
        for seed in ("0", "1"):
            form = multipart(
                photo((120, 90)), model="old", seed=seed, **{"steps": "50", "detail": "160"} | fields
            )
            lines.append(self.ask("POST", "/api/colorize", *form))

        def begun() -> bool:
            facts = json.loads(self.ask("GET", "/api/health").getresponse().read())
            return (facts["running"], facts["waiting"]) == (1, 1)

        until(begun, 60)
        return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_what_runs_and_exits_0(models: Path, number: signal.Signals) -> None:
    with Served(models) as served:
        lines = served.busy()
        served.process.send_signal(number)
        statuses = sorted(line.getresponse().status for line in lines)
        assert statuses == [200, 503]  # what ran is finished, what waited is turned away
        assert served.process.wait(30) == 0
        said = served.errors.read()
        assert "stopping" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(models: Path, number: signal.Signals) -> None:
    with Served(models) as served:
        served.busy(average="8", detail="512")  # a minute's work
        served.process.send_signal(number)
        assert "stopping" in served.errors.readline()
        served.process.send_signal(number)
        assert served.process.wait(15) == 128 + number  # less than the grace that what runs has
        assert served.errors.read() == ""


def test_a_photo_that_takes_longer_than_the_grace_is_given_up(models: Path) -> None:
    with Served(models, "--grace", "0.2") as served:
        lines = served.busy()
        served.process.send_signal(signal.SIGTERM)
        assert [line.getresponse().status for line in lines] == [503, 503]
        assert served.process.wait(30) == 0


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "photochrom", "serve", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"error: cannot listen on 127\.0\.0\.1:\d+: .*; choose another --port\n$", done.stderr)


def test_what_a_proxy_needs_is_a_flag_and_requests_are_logged(models: Path) -> None:
    flags = ("--allow-host", "Photos.example", "--allow-origin", "https://site.example", "--root-path", "/c")
    with Served(models, *flags, "--access-log") as served:
        for host, status in (("photos.example", 200), ("localhost", 200), ("other.example", 403)):
            line = served.ask(
                "GET", "/c/api/health?a=%0Ab", None, {"Host": host, "Origin": "https://site.example"}
            )
            answer = line.getresponse()
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://site.example"
            answer.read()
            logged = served.errors.readline()
            assert re.fullmatch(
                rf"\S+Z? 127.0.0.1 GET /c/api/health {status} \d+ bytes \d+\.\d{{3}} s\n", logged
            )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"allow_origin": ["site.example"]}, "write https://NAME"),
        ({"allow_origin": ["https://site.example/page"]}, "write https://NAME"),
        ({"root_path": "colours"}, "write /NAME"),
        ({"root_path": "/colours/"}, "write /NAME"),
    ],
)
def test_flags_that_cannot_be_are_told(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        serve(**flags)
