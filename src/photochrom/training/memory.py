"""How much memory this process takes."""

from __future__ import annotations

import sys

import torch


def memory_mb(device: torch.device) -> int | None:
    """The most memory that this process has held so far, on the GPU if there is one; None where nobody counts it (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) >> 20  # what graphs hold between replays included
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
