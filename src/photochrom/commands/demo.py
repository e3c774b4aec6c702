"""`photochrom demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from photochrom.commands.shared import say


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all that the demo makes.")] = Path(
        "demo"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep a finished demo's model; only draw again.")
    ] = False,
) -> None:
    """Train a small model on bundled photos and colour others: 4 minutes on two cores.

    It trains V1 (noise loss), goes on to V2 (perceptual loss as well), and draws
    one picture: gray, V1, V2, true. All goes below --out. A demo that was
    interrupted goes on; a finished one begins anew.

    [bold]Examples[/bold]
    $ photochrom demo
    $ photochrom demo --out /tmp/demo
    """
    begun = time.monotonic()
    say("Training on crops of four photographs; two more are held out.")
    from photochrom.commands.demo_run import run_demo
    from photochrom.commands.terminal import TrainingDisplay, asked_to_stop, duration

    with TrainingDisplay() as display, asked_to_stop(display.say) as stop:
        v1, v2, picture = run_demo(out, keep, display.report, stop)
    for path in (v1.path, v2.path, picture):
        typer.echo(path)
    say(f"Done in {duration(time.monotonic() - begun)}. {picture} shows photos that the model never saw:")
    say("gray, as V1 and V2 coloured them, and true. They learned from four photographs, so they guess.")
    say("Next:")
    say(f"  photochrom colorize PHOTO.jpg -o coloured --model {v2.path}")
    say(f"  photochrom evaluate demo_v1 demo_v2 --models {v2.path.parent} --data-dir {out / 'data'}")
    say("  photochrom data import FOLDER_OF_PHOTOS --name mine")
    say("  photochrom train --data mine --preset small --minutes 60")
