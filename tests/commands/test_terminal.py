"""What a person sees while waiting, and what happens at Ctrl-C."""

from __future__ import annotations

import subprocess
import sys

from photochrom.commands.terminal import duration


def test_durations_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (3.2, 89, 600, 9000)] == ["3 s", "89 s", "10 min", "2.5 h"]


def test_the_second_signal_quits_at_once() -> None:
    code = """
import os, signal
from photochrom.commands.terminal import asked_to_stop
with asked_to_stop(print) as stop:
    assert stop() == 0
    os.kill(os.getpid(), signal.SIGINT)
    assert stop() == signal.SIGINT
    print("first", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("second", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout.endswith("first\n")
