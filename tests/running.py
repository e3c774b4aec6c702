"""Commands, run in this process as a person runs them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

import pytest

from photochrom.commands import cli

TINY = (
    *("--features", "8,16", "--time-embedding", "16", "--blocks", "1", "--attention", "0"),
    *("--timesteps", "50", "--batch-size", "8", "--perceptual", "0", "--epochs", "2"),
)  # fmt: skip
"""Flags of `train`: a network that learns two epochs in a moment."""


@dataclass
class Result:
    """What a command leaves: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line on stderr, which must be an error."""
        assert re.fullmatch(r"photochrom: error: [^\n]+\n", self.err), self.err
        assert self.out == ""
        return self.err


Run = Callable[..., Result]


def call(*arguments: object) -> int:
    """Run a command; returns its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(end.value.code or 0)


def heard(*arguments: object) -> Result:
    """Run a command, and catch what it says."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(*arguments)
    return Result(code, out.getvalue(), err.getvalue())
