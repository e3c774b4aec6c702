"""The description of the API, and whether the API keeps to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
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


def test_the_description_says_what_makers_of_clients_need(client: TestClient) -> None:
    description = client.get("/api/openapi.json").json()
    schemas, paths = description["components"]["schemas"], description["paths"]
    assert schemas["ColorizeForm"]["properties"]["photo"]["format"] == "binary"
    assert schemas["JobForm"]["properties"]["photo"]["items"]["format"] == "binary"
    problem = {"$ref": "#/components/schemas/ProblemDetails"}
    for path, operations in paths.items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/problem+json"]["schema"] == problem
            assert ("security" in operation) == (path != "/api/health")
    assert description["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "X-API-Key"
    for path, operation, status, name in (
        ("/api/jobs", "post", "202", "JobStatus"),
        ("/api/jobs/{id}", "get", "200", "JobStatus"),
        ("/api/health", "get", "200", "Health"),
        ("/api/colorize", "post", "200", "Colored"),
    ):
        answer = paths[path][operation]["responses"][status]["content"]["application/json"]
        assert answer["schema"] == {"$ref": f"#/components/schemas/{name}"}
    events = paths["/api/jobs/{id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"][
        "schema"
    ]
    assert [kind["$ref"].rsplit("/", 1)[1] for kind in events["anyOf"]] == ["TaskEvent", "JobStatus"]
    assert "type" not in events


def test_a_client_made_from_the_description_colours_a_photo(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key: one photo, and a job with a hint and a reference.

    Imports what openapi-python-client writes.
    """
    pytest.importorskip("openapi_python_client")
    with listening(replace(settings, api_key="k")) as server:
        config = tmp_path / "config.json"
        overrides = {"image/png": "application/octet-stream", "image/jpeg": "application/octet-stream"}
        config.write_text(json.dumps({"post_hooks": [], "content_type_overrides": overrides}))
        command = [
            sys.executable,
            "-m",
            "openapi_python_client",
            "generate",
            "--meta",
            "none",
            "--config",
            str(config),
        ]
        source = ["--url", f"{server.url}api/openapi.json", "--output-path", str(tmp_path / "made_client")]
        made = subprocess.run([*command, *source], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        assert "WARNING" not in made.stdout + made.stderr, made.stdout
        script = tmp_path / "use.py"
        script.write_text(USE)
        done = subprocess.run(
            [sys.executable, str(script), server.url.rstrip("/")],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["401", "PNG", "done", "PNG"]


USE = """
import sys
import time
from io import BytesIO

from PIL import Image

from made_client import AuthenticatedClient, Client
from made_client.api.colour import colorize_api_colorize_post as colorize
from made_client.api.colour import create_job_api_jobs_post as create_job
from made_client.api.colour import job_picture_api_jobs_id_tasks_task_pictures_picture_get as job_picture
from made_client.api.colour import job_status_api_jobs_id_get as job_status
from made_client.models import ColorizeForm, JobForm
from made_client.types import File


def photo(mode):
    file = BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert(mode).save(file, "PNG")
    file.seek(0)
    return File(payload=file, file_name="photo.png", mime_type="image/png")


client = AuthenticatedClient(sys.argv[1], token="k", prefix="", auth_header_name="X-API-Key")
form = ColorizeForm(photo=photo("L"), model="old", steps=2)
with Client(sys.argv[1]) as stranger:
    print(int(colorize.sync_detailed(client=stranger, body=form).status_code))
form = ColorizeForm(photo=photo("L"), model="old", steps=2)
answer = colorize.sync_detailed(client=client, body=form)
print(Image.open(BytesIO(answer.content)).format)
form = JobForm(photo=[photo("L")], model=["old"], steps=2, hint=["3,3,#c03020"])
job = create_job.sync(client=client, body=form)
for _ in range(200):
    status = job_status.sync(job.id, client=client)
    if status.state == "done":
        break
    time.sleep(0.05)
print(status.state, Image.open(job_picture.sync(job.id, 0, 0, client=client).payload).format)
"""
