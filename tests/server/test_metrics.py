"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from photochrom.server.problems import Problem
from tests.server.talking import (
    problem,
    send,
)


def test_metrics_are_what_prometheus_reads(serve: Callable[..., TestClient]) -> None:
    client = serve()
    assert send(client).status_code == 200
    families = {
        family.name: family for family in text_string_to_metric_families(client.get("/api/metrics").text)
    }
    samples = {
        sample.name: sample.value
        for family in families.values()
        for sample in family.samples
        if "_bucket" not in sample.name
    }
    assert samples["photochrom_photos_total"] == 1
    assert samples["photochrom_loaded_models"] == 1
    assert samples["photochrom_sampling_seconds_count"] == 1
    assert samples["photochrom_waiting_photos"] == 0


def test_photos_are_counted_whatever_becomes_of_them(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: Any) -> None:
        raise Problem(404, "the model has gone meanwhile")

    client = serve()
    monkeypatch.setattr("photochrom.server.worker.paint", gone)
    assert "gone meanwhile" in problem(send(client), 404)
    assert 'photochrom_photos_total{outcome="failed"} 1.0' in client.get("/api/metrics").text
