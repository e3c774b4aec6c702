"""Each error ends a command with its own exit code, and with the line that a person reads."""

from __future__ import annotations

import signal
import subprocess

import pytest

from photochrom.commands import cli
from photochrom.errors import FailedElsewhere, Interrupted, PhotochromError, UsageError
from tests.running import Result, heard


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PhotochromError("no model 'x'"), 1, "photochrom: error: no model 'x'\n"),
        (UsageError("steps = 0"), 2, "photochrom: error: steps = 0\n"),
        (Interrupted("all saved", signal.SIGTERM), 143, "photochrom: all saved\n"),
        (FailedElsewhere(7), 7, ""),  # the first process has said why
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else None,
)
def test_an_error_ends_a_command(
    error: PhotochromError, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert heard("models") == Result(code, "", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_what_a_shell_says_of_who_dies_of_the_signal(number: signal.Signals) -> None:
    script = f"sh -c 'kill -{int(number)} $$'; echo $?"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert Interrupted("all saved", number).exit_code == int(shell.stdout)
