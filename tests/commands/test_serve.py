"""`photochrom serve`: how it starts and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from photochrom.model_folder import ModelFolder
from tests.server.talking import (
    Values,
    make_model,
    multipart,
    photo,
    until,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, new_values: Values) -> Path:
    """One model, named old."""
    models = tmp_path_factory.mktemp("serve") / "models"
    make_model(ModelFolder(models / "old"), new_values())
    return models


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
