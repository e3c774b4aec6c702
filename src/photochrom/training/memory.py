"""How much memory this process takes."""

from __future__ import annotations

import sys

import torch


def memory_mb(device: torch.device) -> int | None:
    """The most MiB that this process has held, on the GPU if it uses one; None if nobody counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) >> 20  # counts what graphs hold between replays
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
