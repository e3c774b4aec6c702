"""`photochrom demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from photochrom.commands.shared import say


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything that the demo makes.")
    ] = Path("demo"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the models of a finished demo, and only draw its pictures.")
    ] = False,
) -> None:
    """See it work: colour photos in seconds, then train small models.

    First, the model that comes with Photochrom colours its example photos.
    Then two small models, V1 (noise loss) and V2 (perceptual loss too), learn
    from crops of four photos, to show how a model is made: about 3 minutes on
    two cores. If you interrupt the demo, the same command goes on.

    [bold]Examples[/bold]
    $ photochrom demo
    $ photochrom demo --out /tmp/demo
    """
    begun = time.monotonic()
    say("1 of 2: photochrom-fast, which comes with Photochrom, colours photos that it has never seen.")
    from photochrom.commands.demo_run import color_photographs, train_small
    from photochrom.commands.terminal import TrainingDisplay, asked_to_stop, duration

    picture = color_photographs(out)
    typer.echo(picture)
    say(f"Look at {picture}: gray, coloured, and the true colours.")
    say("2 of 2: two small models, V1 and V2, learn from crops of four photos.")
    with TrainingDisplay() as display, asked_to_stop(display.say) as stop:
        v1, v2, picture = train_small(out, keep, display.report, stop)
    for path in (v1.path, v2.path, picture):
        typer.echo(path)
    say(f"Done in {duration(time.monotonic() - begun)}. {picture} shows photos that neither model has seen:")
    say("gray, coloured by V1 and by V2, and true. Four photos teach few colours: this only shows how.")
    say("Next, colour your own photos:")
    say("  photochrom colorize PHOTO.jpg")
    say("  photochrom serve                               the same in a browser")
    say("or train on your own colour photos, on top of a model that comes with Photochrom:")
    say("  photochrom data import FOLDER_OF_PHOTOS --name mine --size 128")
    say("  photochrom train --from photochrom-v2 --data mine --name my_model --minutes 60")
