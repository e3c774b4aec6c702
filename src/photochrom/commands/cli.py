"""The command line. Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed, 130 and 143 ended by a signal. Commands
import heavy modules themselves, so that help appears at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, NoReturn

import typer

from photochrom import __version__, processes
from photochrom.commands import colorize, data, demo, evaluate, export, models, serve, train
from photochrom.commands.shared import complain, keep_for_good, say
from photochrom.errors import FailedElsewhere, Interrupted, PhotochromError, UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True)(colorize.colorize)
app.command()(serve.serve)
app.command()(demo.demo)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command(no_args_is_help=True)(evaluate.evaluate)
app.add_typer(models.app, name="models")
app.command(no_args_is_help=True)(export.export)
SHARED = ("train", "evaluate", "colorize")  # several processes of a launcher can run these together
LONG = ("train", "demo")  # mostly run with the machine to themselves


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"photochrom {__version__}")
        raise typer.Exit


@app.callback()
def photochrom(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Colour black-and-white photos with diffusion models, and train such models.

    [bold]Examples[/bold]
    $ photochrom colorize old.jpg album/       into the folder coloured/
    $ photochrom serve                         the same in a browser
    $ photochrom demo                          see it work, in 4 minutes
    $ photochrom data import ~/Pictures --name mine --size 128
    $ photochrom train --from photochrom-v2 --data mine --name my_model
    """
    if processes.count() > 1 and ctx.invoked_subcommand not in SHARED:
        raise UsageError(
            f"photochrom {ctx.invoked_subcommand} runs in one process, and the launcher has started "
            f"{processes.count()}: run it without the launcher"
        )
    if ctx.invoked_subcommand not in LONG:
        # Torch's threads spin while they wait for each other. That makes a training a quarter faster, but a
        # short command beside one slower by half or more (docs/measurements/waiting.md). Torch reads this on
        # import.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quit(number: int, frame: FrameType | None) -> NoReturn:
    say("stopped")
    sys.exit(128 + number)  # unwinds, so that temporary files are deleted


@processes.ending()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command `photochrom`: turns errors into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # An old console cannot print every letter of a file name.
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:  # this process is the command's own
        atexit.register(keep_for_good)
    signal.signal(signal.SIGINT, _quit)
    signal.signal(signal.SIGTERM, _quit)
    try:
        app(arguments, prog_name="photochrom")
    except FailedElsewhere as error:
        sys.exit(error.exit_code)
    except Interrupted as error:
        say(f"photochrom: {error}")
        sys.exit(error.exit_code)
    except PhotochromError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        complain(f"{place}{error.strerror or error}")
        sys.exit(1)
