"""What a server can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOST = {"steps": 200, "seed": 2**31 - 1, "strength": 2, "detail": 512, "samples": 8, "average": 8}
"""What strangers may ask for: highest values of options whose own limits (coloring/options.py) are higher."""
MOST_HINTS = 64


@dataclass(frozen=True)
class Settings:
    """Where the models are, who may come in, and how much is taken on."""

    models: Path | str = Path("models")
    reports: Path | str = Path("reports")  # where `photochrom evaluate` writes
    device: str | None = None
    api_key: str | None = None  # None: everyone who reaches the server may use it
    hosts: tuple[str, ...] = ()  # names in the Host header that are answered; () for all
    origins: tuple[str, ...] = ()  # other sites whose pages may ask, such as https://photos.example
    root_path: str = ""  # below which a proxy shows this server, such as /photos
    max_upload_bytes: int = 64 * 2**20  # of one request
    max_pixels: int = 120_000_000  # of one photo, read off its header
    body_seconds: float = 30.0  # in which a request's body has to arrive
    job_seconds: float = 300.0  # from the request to the picture
    stall_seconds: float = 120.0  # without a step, after which /api/health says that the colouring is stuck
    heartbeat_seconds: float = 15.0  # in which a stream of events says something, or proxies close it
    return_seconds: float = 15.0  # in which a client that lost its stream of events may come back for its job
    queue_photos: int = 64  # that wait; more are refused
    queue_bytes: int = 256 * 2**20  # of their files together
    model_bytes: int = 2 * 2**30  # of the models kept in memory
    result_bytes: int = 256 * 2**20  # of the finished jobs' pictures that are kept for fetching
    result_seconds: float = 900.0  # for which they are kept
