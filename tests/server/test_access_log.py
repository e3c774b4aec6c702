"""A line for every request, whoever asks and whatever becomes of it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photochrom.server.access_log import AccessLog


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers 404 in two parts, of three and four bytes."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    await send({"type": "http.response.body", "body": b"defg"})


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ConnectionResetError("the client has gone")


def ask(app: ASGIApp, **scope: Any) -> list[Message]:
    """Send a request through the log; returns what the application answered."""
    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    request = {"type": "http", "method": "GET", "path": "/", "client": ("192.0.2.7", 5000)} | scope
    asyncio.run(AccessLog(app)(request, receive, send))
    return answers


def test_a_line_says_who_asked_for_what_and_what_was_answered(capsys: pytest.CaptureFixture[str]) -> None:
    answers = ask(answering, method="POST", path="/api/colorize")
    assert [len(answer.get("body", b"")) for answer in answers] == [0, 3, 4]
    said = capsys.readouterr()
    form = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 "
        r"192\.0\.2\.7 POST /api/colorize 404 7 bytes \d\.\d{3} s\n"
    )
    assert re.fullmatch(form, said.err)
    assert said.out == ""


def test_a_path_with_a_new_line_forges_no_entry(capsys: pytest.CaptureFixture[str]) -> None:
    ask(answering, path="/a\n2026-01-01 127.0.0.1 GET /admin 200", client=None)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert " - GET /a%0A2026-01-01%20127.0.0.1%20GET%20/admin%20200 404 " in said


def test_who_gets_no_answer_is_written_down_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConnectionResetError):
        ask(failing)
    assert " GET / 0 0 bytes " in capsys.readouterr().err


def test_the_start_of_a_server_is_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    ask(answering, type="lifespan")
    assert capsys.readouterr().err == ""
