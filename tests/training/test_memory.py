"""How much memory a process takes, beside what Linux says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from photochrom.training.memory import memory_mb

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_it_is_the_most_that_this_process_has_held() -> None:
    held = bytearray(b"x") * (300 << 20)  # more than the tests before have given back
    del held
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    most = int(status["VmHWM"].split()[0]) >> 10  # of kB
    found = memory_mb(CPU)
    assert found is not None
    # A process may begin with the most that its parent has held.
    assert most - 2 <= found <= 10 * most


def test_where_nobody_counts_there_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert memory_mb(CPU) is None
