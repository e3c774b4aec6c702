"""The flags of colouring, made from coloring/options.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from photochrom.coloring.options import Options
from photochrom.flags import flag, with_flags


def with_option_flags(
    names: Iterable[str] = Options.model_fields, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the `**flags` of a command by one for each option of colouring, of its name, None if not given.

    defaults: those that the command has of its own, for its help.
    """
    flags = []
    for name in names:
        field, typed = Options.model_fields[name], name.replace("_", "-")
        default = defaults.get(name, field.default)
        flags.append(flag(name, typed, field, default or None, "Colours", f"--{typed}"))
    return lambda command: with_flags(command, flags)
