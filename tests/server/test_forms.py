"""Forms: what is missing, torn or sent too often is told by its field."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.server.talking import (
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
    # In the framework's words, which differ between versions.
    assert problem(client.post("/api/colorize", content=b"--y\r\nnonsense", headers=headers), 400)
    headers = {"Content-Type": "multipart/form-data"}
    assert "form" in problem(client.post("/api/colorize", content=b"", headers=headers), 400)
    assert "model" in problem(client.post("/api/jobs", files=[("photo", ("a.png", photo()))]), 422)
    three = {"model": ["old", "new", "begun"]}
    assert "model" in problem(
        client.post("/api/jobs", files=[("photo", ("a.png", photo()))], data=three), 422
    )


def test_a_torn_form_is_told_apart_from_one_that_lacks_something(client: TestClient) -> None:
    body, headers = multipart(photo(), model="old")
    for end in (-4, -9, -30, len(body) // 2, 60):
        assert "form" in problem(client.post("/api/colorize", content=body[:end], headers=headers), 400)
    assert client.post("/api/colorize", content=body, headers=headers).status_code == 200


def test_what_is_taken_once_is_refused_twice(client: TestClient) -> None:
    two = [("photo", ("a.png", photo())), ("photo", ("b.png", photo()))]
    assert "photo was sent 2 times: send one" in problem(
        client.post("/api/colorize", files=two, data={"model": "old"}), 422
    )
    assert "seed was sent 2 times" in problem(send(client, seed=["1", "2"]), 422)
    masks = [*two[:1], ("keep_gray", ("c.png", photo())), ("keep_gray", ("d.png", photo()))]
    assert "keep_gray was sent 2 times" in problem(
        client.post("/api/jobs", files=masks, data={"model": "old"}), 422
    )
    assert send(client, hint=["1,1,#ff0000", "2,2,#00ff00"]).status_code == 200
