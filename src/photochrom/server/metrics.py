"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """One server's metrics, in their own registry, so that two servers can share a process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.photos = Counter("photochrom_photos", "Photos by outcome", ["outcome"], registry=registry)
        self.refused = Counter(
            "photochrom_refused_photos", "Photos refused because the queue was full", registry=registry
        )
        self.sampling_seconds = Histogram(
            "photochrom_sampling_seconds",
            "Seconds in the model, per batch",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_photos = Histogram(
            "photochrom_batch_photos", "Photos per batch", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.waiting = Gauge("photochrom_waiting_photos", "Photos in the queue", registry=registry)
        self.running = Gauge("photochrom_running_photos", "Photos being coloured now", registry=registry)
        self.models = Gauge("photochrom_loaded_models", "Models in memory", registry=registry)
        self.model_bytes = Gauge("photochrom_loaded_model_bytes", "Weights in memory", registry=registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
