"""The flags for colouring, made from coloring/options.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from photochrom.coloring.options import Options
from photochrom.flags import flag, with_flags

FILES = ("max_megapixels", "truncated")
ADVANCED = ("steps", "sampler", "guidance", "temperature", "detail")


def with_option_flags(
    names: Iterable[str] = Options.model_fields, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's `**flags` by a flag for each option of colouring, None if not given.

    defaults: the command's own defaults, for its help.
    """
    flags = []
    for name in sorted(names, key=ADVANCED.__contains__):  # so that help shows colours first
        field, typed = Options.model_fields[name], name.replace("_", "-")
        default = defaults.get(name, field.default)
        panel = "Advanced" if name in ADVANCED else "Options" if name in FILES else "Colours"
        flags.append(flag(name, typed, field, default or None, panel, f"--{typed}"))
    return lambda command: with_flags(command, flags)
