"""The description of the API, and whether the API keeps to it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from fastapi.testclient import TestClient

from photochrom.server import Settings
from tests.server.talking import (
    listening,
)


def test_the_description_has_a_summary_a_tag_and_problems_for_every_operation(client: TestClient) -> None:
    description = client.get("/api/openapi.json").json()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    assert len(operations) == 13
    for operation in operations:
        assert operation["summary"]
        assert operation["tags"]
    for path in ("/api/colorize", "/api/jobs"):
        answers = description["paths"][path]["post"]["responses"]
        assert {"413", "415", "422", "503", "504"} <= set(answers)
        assert "application/problem+json" in answers["503"]["content"]
    form = description["components"]["schemas"]["ColorizeForm"]["properties"]
    assert form["steps"]["examples"]
    assert form["hint"]["examples"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_schemathesis_finds_no_answer_that_the_description_does_not_say(settings: Settings) -> None:
    """Each operation with values that fit the description, and with values that do not."""
    schemathesis = pytest.importorskip("schemathesis")
    checks = schemathesis.checks
    wanted = [checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
    with listening(replace(settings, job_seconds=5.0)) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}api/openapi.json")
        tried = dict.fromkeys(schemathesis.GenerationMode, 0)
        for operation in (result.ok() for result in schema.get_all_operations()):
            for mode in schemathesis.GenerationMode:

                @hypothesis.settings(max_examples=12, suppress_health_check=list(hypothesis.HealthCheck))
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def try_it(case: Any) -> None:
                    case.call_and_validate(checks=wanted, timeout=20)

                with contextlib.suppress(
                    hypothesis.errors.Unsatisfiable
                ):  # to some, nothing wrong can be said
                    try_it()
                    tried[mode] += 1
    positive, negative = tried.values()
    assert positive == 13
    assert negative >= 2
