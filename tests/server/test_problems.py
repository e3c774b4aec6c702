"""Who may come in, and how large and how slow a request may be."""

from __future__ import annotations

import http.client
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from photochrom.server import Settings
from tests.server.talking import (
    listening,
    multipart,
    photo,
    problem,
    send,
)


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


def test_an_upload_stays_in_memory(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("an upload went to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    content = photo((500, 500), mode="RGB", format="BMP")
    assert 700_000 < len(content) < 2**20
    assert (
        send(client, content + bytes(2 * 2**20)).status_code == 200
    )  # what follows a photo's end does not matter


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
