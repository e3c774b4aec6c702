"""`photochrom colorize`: check the options, plan which file becomes which, colour, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photochrom import processes
from photochrom.coloring.options import CALM, Options
from photochrom.commands.option_flags import with_option_flags
from photochrom.commands.shared import DEVICE, MODELS, Json, importing_torch, print_json, say
from photochrom.config import DEFAULT_MODEL
from photochrom.errors import UsageError
from photochrom.flags import given

if TYPE_CHECKING:
    from photochrom.coloring.album import Colored, Plan
    from photochrom.coloring.colorizer import Colorizer


@with_option_flags(average=CALM)
def colorize(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Photos, folders of photos, videos.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="OUT", help="A folder; for one input, also a file."),
    ] = Path("coloured"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Colour everything again, and replace files.")
    ] = False,
    as_json: Json = False,
    hint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,#RRGGBB",
            help="The colour of a place in the photo; repeat for more.",
            rich_help_panel="Colours",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A model's name or folder, an .onnx file, or hf:OWNER/REPO.", rich_help_panel="Model"
        ),
    ] = DEFAULT_MODEL,
    models: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that holds the models.", rich_help_panel="Model")
    ] = MODELS,
    device: Annotated[str | None, typer.Option(help=DEVICE, rich_help_panel="Model")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="torch|onnx",
            help="What runs the network (default: torch, or what the file needs). "
            "onnx is slower for many photos.",
            rich_help_panel="Model",
        ),
    ] = None,
    **flags: Any,
) -> None:
    """Colour photos and videos. Size, brightness, EXIF and sound stay.

    Folders keep their structure. Run again, it colours only what is new or
    changed. It prints the path of each file that it writes. If some inputs
    fail, it colours the others and exits with code 3.

    [bold]Examples[/bold]
    $ photochrom colorize old.jpg              writes coloured/old.jpg
    $ photochrom colorize old.jpg album/ -o results/ --model model_v1
    $ photochrom colorize old.jpg -o out/ --samples 6 --uncertainty
    $ photochrom colorize old.jpg -o red.png --hint 420,310,#b02020
    $ photochrom colorize film.mp4
    """
    with importing_torch():
        options = _checked(inputs, given(flags), hint)
        from photochrom import hub
        from photochrom.coloring import album
        from photochrom.coloring.colorizer import Colorizer
        from photochrom.model_folder import find_weights

    processes.connect()
    weights = find_weights(hub.fetched(model), models, engine)
    plan = processes.from_first(lambda: album.plan(inputs, out, overwrite, options, weights))
    colorizer = Colorizer.load(weights, device=device)
    colored = _color(colorizer, plan, options, not as_json)
    if as_json and processes.is_first():
        print_json(_report(colorizer, weights, options, plan, colored))
    _tell(plan, colored)
    if plan.refused:
        raise typer.Exit(3 if colored or plan.unchanged else 1)


def _checked(inputs: Sequence[Path], typed: dict[str, Any], hint: list[str] | None) -> Options:
    """The options that were typed. Without --samples or --average, CALM colourings are averaged."""
    from photochrom.coloring.video import is_video, refuse_unused

    if hint and "hints" in typed:
        raise UsageError("--hint and --hints together: draw all hints in the picture, or type all of them")
    options = Options().but(**typed, **({"hints": hint} if hint else {}))
    if any(map(is_video, inputs)):
        refuse_unused(options)
    return options if options.samples > 1 or "average" in typed else options.but(average=CALM)


def _color(colorizer: Colorizer, plan: Plan, options: Options, print_paths: bool) -> list[Colored]:
    """Colour this process's share of the plan. Returns what all processes have coloured."""
    from photochrom.coloring import album
    from photochrom.commands.terminal import Display

    share = plan.share()
    colored = []
    with Display() as display:

        def progress(done: float, total: int, of: str) -> None:
            display.show(done, total, f"{int(done):,} of {total:,} {of}")

        for each in album.color_files(colorizer, share, progress, options):
            colored.append(each)
            for output in each.files if print_paths else ():
                typer.echo(output)
    shares = processes.gather((colored, share.refused))
    for _, refused in shares:
        plan.refused |= refused
    return [each for done, _ in shares for each in done]


def _notes(colored: Sequence[Colored]) -> dict[str, list[Path]]:
    """Notes on how photos were read, each with the photos that it concerns."""
    notes: dict[str, list[Path]] = {}
    for each in colored:
        for note in each.notes:
            notes.setdefault(note, []).append(each.source)
    return notes


def _report(
    colorizer: Colorizer, weights: Path, options: Options, plan: Plan, colored: Sequence[Colored]
) -> dict[str, Any]:
    """What --json prints."""
    from photochrom.model_folder import ENGINES

    config = colorizer.config
    used = {"steps": options.steps_for(config), "guidance": options.guidance_for(config)}
    values = {name: str(value) if isinstance(value, Path) else value for name, value in options}
    return {
        "model": weights.parent.name if weights.name in ENGINES.values() else weights.stem,
        **(values | used),
        "written": [
            {"input": str(each.source), "output": str(file)} for each in colored for file in each.files
        ],
        "unchanged": [str(path) for path in plan.unchanged],
        "notes": {note: [str(path) for path in paths] for note, paths in _notes(colored).items()},
        "failed": [{"input": str(path), "reason": reason} for path, reason in plan.refused.items()],
    }


def _tell(plan: Plan, colored: Sequence[Colored]) -> None:
    """Print warnings, notes and failures at the end."""
    for warning in plan.warnings:
        say(f"photochrom: warning: {warning}")
    for note, paths in _notes(colored).items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        say(f"{', '.join(map(str, paths[:3]))}{more}: {note}")
    if plan.unchanged:
        say(f"skipped {len(plan.unchanged)} unchanged since they were coloured (--overwrite colours them)")
    for reason in plan.refused.values():
        say(f"photochrom: error: {reason}")
    if plan.refused:
        say(f"{len(colored)} coloured, {len(plan.refused)} failed")
