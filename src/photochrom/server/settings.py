"""The settings of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOST = {"steps": 200, "seed": 2**31 - 1, "strength": 2, "detail": 512, "samples": 8, "average": 8}
"""Limits for clients, where an option's own limit (coloring/options.py) is higher."""
MOST_HINTS = 64


@dataclass(frozen=True)
class Settings:
    """Where the models are, who may use the server, and how much it accepts."""

    models: Path | str = Path("models")
    reports: Path | str = Path("reports")  # where `photochrom evaluate` writes
    device: str | None = None
    api_key: str | None = None  # None: everyone who reaches the server may use it
    hosts: tuple[str, ...] = ()  # host names to answer to; () for all
    origins: tuple[str, ...] = ()  # other sites whose pages may use it, such as https://photos.example
    root_path: str = ""  # path under which a proxy shows this server, such as /photos
    max_upload_bytes: int = 64 * 2**20  # of one request
    max_pixels: int = 120_000_000  # of one photo, read off its header
    body_seconds: float = 30.0  # for a request's body to arrive
    job_seconds: float = 300.0  # from the request to the picture
    stall_seconds: float = 120.0  # without a step, until /api/health says that colouring is stuck
    heartbeat_seconds: float = 15.0  # between comments in a stream of events, so that proxies keep it open
    return_seconds: float = 15.0  # for a client that lost its stream of events to return to its job
    queue_photos: int = 64  # waiting; more are refused
    queue_bytes: int = 256 * 2**20  # of waiting files together
    model_bytes: int = 2 * 2**30  # of the models in memory
    result_bytes: int = 256 * 2**20  # of finished jobs' pictures
    result_seconds: float = 900.0  # until finished pictures are deleted
