"""How much memory this process takes."""

from __future__ import annotations

import sys

import torch


def memory_mb(device: torch.device) -> int:
    """The most memory that this process has held so far, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) >> 20  # what graphs hold between replays included
    import resource  # not on Windows, where nobody has asked yet

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
