"""What commands share: options, and output. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from photochrom import processes

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Models = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the models.")]
DataDir = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the data sets.")]
MODELS, DATA_DIR = Path("models"), Path("data")
LEAK_REPORTERS = ("onnx", "triton")  # they print what Python has not freed at its end
DEVICE = "cpu, cuda or mps (default: the best available)."


def say(text: str) -> None:
    """Print a line for the user, on stderr. Of several processes only the first prints."""
    if processes.is_first():
        typer.echo(text, err=True)


def complain(text: str) -> None:
    """Print why the command failed, whichever process this is."""
    which = "" if processes.is_first() else f" (process {processes.number()})"
    typer.echo(f"photochrom: error{which}: {text}", err=True)


def print_json(value: Any) -> None:
    """Print a command's data as JSON, on stdout."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a command's data as a table. Columns whose name begins with ">" are aligned right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


@contextmanager
def importing_torch() -> Iterator[None]:
    """Import torch 0.3 s sooner: Python does not search its many objects for unused ones, now or later."""
    gc.disable()
    try:
        yield
        keep_for_good()
    finally:
        gc.enable()


def keep_for_good() -> None:
    """Spare Python the search through all objects there are for unused ones; most are torch's and stay."""
    if not any(name in sys.modules for name in LEAK_REPORTERS):
        gc.freeze()


def unless_default(flag: str, value: Path, default: Path) -> str:
    """The flag and its value, for a command to suggest; empty for the default."""
    return "" if value == default else f" {flag} {value}"
