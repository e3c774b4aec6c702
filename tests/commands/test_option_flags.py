"""Every option of colouring is a flag."""

from __future__ import annotations

from typing import Any

import typer

from photochrom.coloring.options import EVALUATED
from photochrom.commands import cli
from tests.coloring.making import NUMBERS, OPTIONS


def helped(command: str) -> dict[str, str]:
    """The help text of each flag of a command, by its name."""
    found: Any = typer.main.get_command(cli.app)
    return {name: each.help or "" for each in found.commands[command].params for name in each.opts}


def test_every_option_is_a_flag_that_says_its_limits() -> None:
    shown = helped("colorize")
    for name, schema in OPTIONS.items():
        text = shown[f"--{name.replace('_', '-')}"]
        assert schema["description"].partition(" (default")[0][1:] in text
    for name, (low, high) in NUMBERS.items():
        if low is not None and high is not None:
            assert f"{low:g} to {int(high)}" in shown[f"--{name.replace('_', '-')}"].replace(",", "")
    assert {f"--{name}" for name in EVALUATED} <= helped("evaluate").keys()
