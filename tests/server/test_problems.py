"""Every error becomes a problem of RFC 9457, and none tells what is not meant for strangers."""

from __future__ import annotations

import http.client
import json
import logging
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from photochrom.errors import PhotochromError, UsageError
from photochrom.server.problems import Problem, as_response


def told(error: Exception, status: int) -> dict[str, Any]:
    """What a client is told: a problem with this status, which no browser takes for anything else."""
    response = as_response(error)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    details: dict[str, Any] = json.loads(bytes(response.body))
    assert (details["type"], details["status"]) == ("about:blank", status)
    assert details["title"] == http.client.responses[status]
    return details


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Problem(404, "no model 'x'"), 404, "no model 'x'"),
        (HTTPException(405, "Method Not Allowed"), 405, "Method Not Allowed"),
        (PhotochromError("the disk is full"), 500, "the disk is full"),
        (UsageError("steps = 0"), 500, "steps = 0"),
        (ClientDisconnect(), 400, "the client disconnected"),
    ],
)
def test_a_known_error_says_what_is_wrong(error: Exception, status: int, detail: str) -> None:
    details = told(error, status)
    assert details["detail"] == detail
    assert "errors" not in details


def test_an_error_that_nobody_foresaw_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "photochrom.server"):
        details = told(KeyError("/home/me/secret"), 500)
    assert "secret" not in json.dumps(details)
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    "error", [Problem(503, "busy", {"Retry-After": "7"}), HTTPException(503, "busy", {"Retry-After": "7"})]
)
def test_headers_of_an_error_are_kept(error: Exception) -> None:
    told(error, 503)
    assert as_response(error).headers["retry-after"] == "7"


def test_a_form_is_told_field_by_field() -> None:
    faults = [
        {"loc": ("body", "steps"), "msg": "Input should be greater than 0", "type": "greater_than"},
        {"loc": ("body", "hint", 2), "msg": "Value error, 'pink' is no colour", "type": "value_error"},
        {"loc": ("body",), "msg": "Field required", "type": "missing"},
    ]
    details = told(RequestValidationError(faults), 422)
    assert details["errors"] == [
        {"field": "steps", "message": "Input should be greater than 0"},
        {"field": "hint.2", "message": "'pink' is no colour"},
        {"field": "", "message": "Field required"},
    ]
    assert details["detail"] == (
        "steps: Input should be greater than 0; hint.2: 'pink' is no colour; body: Field required"
    )
