"""What the scripts in this folder share: arguments, the machine's name, and pages."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from photochrom.files import write_bytes

DOCS = Path(__file__).parents[1] / "docs"
MEASUREMENTS = DOCS / "measurements"
BEGIN = "<!-- Figures: a script writes what follows. -->"
END = "<!-- End of the figures. -->"


def parser_for(
    about: str | None, data: str | None = None, seeds: int | None = None
) -> argparse.ArgumentParser:
    """A parser with the script's docstring.

    data: adds --data with this default; "" makes it required. seeds: adds MODEL, --models, and --seeds with
    this default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seeds is not None:
        parser.add_argument("model")
        parser.add_argument("--models", type=Path, default=Path("models"))
        parser.add_argument("--seeds", type=int, default=seeds)
    if data is not None:
        parser.add_argument(
            "--data", default=data or None, required=not data, help="a data set's name or folder"
        )
        parser.add_argument("--data-dir", type=Path, default=Path("data"))
    return parser


def processor() -> str:
    """The processor's name, if the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def written_by(command: str) -> str:
    """Who wrote the figures: the command, the day, the machine. command: the script and its arguments."""
    machine = f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return f"Written by `python benchmarks/{command}` on {datetime.now(UTC).date()}: {machine}"


def write_figures(page: Path, figures: str) -> None:
    """Put figures between the two marks of a page. The question, the answer and the limits around them stay.

    A page without marks gets them at its end.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    above, _, rest = text.partition(BEGIN)
    _, _, below = rest.partition(END)
    write_bytes(page, f"{above}{BEGIN}\n\n{figures.strip()}\n\n{END}{below or chr(10)}".encode())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
