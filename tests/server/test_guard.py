"""Who may come in, and how large and how slow a request may be."""

from __future__ import annotations

import http.client
import json
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
    until,
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
        head = (
            "POST /api/colorize HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            "Content-Length: 5000\r\n\r\n--x"
        )
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


def test_refusals_name_the_flag_that_mends_them(serve: Callable[..., TestClient]) -> None:
    client = serve(hosts=("localhost",))
    for host in ("photos.example", "photos.example:443", "PHOTOS.example"):
        text = problem(client.get("/api/health", headers={"Host": host}), 403)
        assert "--allow-host photos.example" in text
    problem(client.get("/api/health", headers={"Host": "[::1"}), 403)
    headers = {"Host": "localhost", "Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
    text = problem(client.post("/api/colorize", headers=headers), 403)
    assert "--allow-origin https://other.example" in text


def test_pages_over_plain_http_are_told_by_their_origin(serve: Callable[..., TestClient]) -> None:
    """Browsers send Sec-Fetch-Site only where nobody can listen."""
    client = serve()
    files, data = {"photo": photo()}, {"steps": "1", "model": "old"}
    for origin, status in (
        ("http://192.168.1.5:8000", 200), ("http://192.168.1.5", 403), ("http://other.example", 403),
        ("null", 403),
    ):  # fmt: skip
        headers = {"Host": "192.168.1.5:8000", "Origin": origin}
        assert client.post("/api/colorize", files=files, data=data, headers=headers).status_code == status


def test_a_page_of_an_allowed_origin_may_do_all(serve: Callable[..., TestClient]) -> None:
    client = serve(origins=("https://site.example",), api_key="k")
    headers = {"Origin": "https://site.example", "Sec-Fetch-Site": "cross-site", "X-API-Key": "k"}
    answer = client.post(
        "/api/jobs", files={"photo": photo()}, data={"steps": "1", "model": "old"}, headers=headers
    )
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == "https://site.example"
    assert "Location" in answer.headers["access-control-expose-headers"]
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "x-api-key"}
    preflight = client.options(answer.headers["location"], headers={"Origin": headers["Origin"]} | asked)
    assert preflight.status_code == 200
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    assert client.delete(answer.headers["location"], headers=headers).status_code == 204
    other = headers | {"Origin": "https://other.example"}
    refused = client.post("/api/jobs", headers=other)
    problem(refused, 403)
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("stripped", [True, False])
def test_below_a_path_places_are_right(serve: Callable[..., TestClient], stripped: bool) -> None:
    """Whether the proxy takes the path off or hands it on."""
    client = serve(root_path="/colours")
    before = "" if stripped else "/colours"
    answer = send(client, path=f"{before}/api/jobs")
    place = answer.headers["location"]
    assert place == f"/colours/api/jobs/{answer.json()['id']}"
    assert client.get(place.removeprefix("/colours") if stripped else place).status_code == 200
    assert client.get(f"{before}/").status_code == 200
    assert client.get(f"{before}/api/openapi.json").json()["servers"] == [{"url": "/colours"}]


def test_head_answers_as_get_does_without_the_body(settings: Settings) -> None:
    with listening(settings) as server:
        line = http.client.HTTPConnection(server.host, server.port)
        body, headers = multipart(photo(), model="old", steps="1")
        line.request("POST", "/api/jobs", body, headers)
        answer = line.getresponse()
        answer.read()
        place = answer.headers["location"]

        def ask(method: str, path: str) -> tuple[int, str | None, bytes]:
            line.request(method, path)
            answer = line.getresponse()
            return answer.status, answer.headers["content-type"], answer.read()

        until(lambda: json.loads(ask("GET", place)[2])["state"] == "done")
        paths = [
            *(
                "/",
                "/style.css",
                "/api/health",
                "/api/metrics",
                "/api/models",
                "/api/models/old",
                "/api/models/x",
            ),
            *("/api/models/old/history", "/api/models/old/samples/1", "/api/models/old/reports/old-new"),
            *(place, f"{place}/events", f"{place}/tasks/0/pictures/0", "/api/openapi.json"),
        ]
        for path in paths:
            status, kind, content = ask("GET", path)
            assert content
            assert ask("HEAD", path) == (status, kind, b"")
        assert ask("HEAD", "/api/colorize")[0] == 405
        line.close()
