"""`photochrom evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photochrom import processes
from photochrom.coloring.options import CALM, EVALUATED_WHOLE, Options
from photochrom.commands.option_flags import with_option_flags
from photochrom.commands.shared import DATA_DIR, DEVICE, MODELS, DataDir, Json, print_json, say
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.flags import given

if TYPE_CHECKING:
    from photochrom.evaluation.candidates import Candidate
    from photochrom.evaluation.evaluate import Photos


@with_option_flags(EVALUATED_WHOLE)
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Names or folders. Others are compared with the first."),
    ] = None,
    photos: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|N", help="A folder of colour photos, or a number of photos of the data set."
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=FOLDER",
            help="Another tool's colourings of the folder's photos; repeatable.",
        ),
    ] = None,
    at: Annotated[
        str, typer.Option(metavar="256|full", help="For a folder: `full` measures at full size as well.")
    ] = "256",
    count: Annotated[int | None, typer.Option(min=1, help="Number of photos (default: all).")] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SET", help="A data set's name or folder (default: the first model's)."),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="validation|test", help="The part of the data set.")
    ] = "validation",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="The report's folder (default: reports/MODELS)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    as_json: Json = False,
    models_dir: Annotated[
        Path, typer.Option("--models", metavar="DIR", help="Folder that holds the models.")
    ] = MODELS,
    data_dir: DataDir = DATA_DIR,
    vgg_photos: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of photos for VGG16, the slowest part (default: 400).",
            rich_help_panel="Measuring",
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="For FID; needs the extra `fid` as well.", rich_help_panel="Measuring"
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE, rich_help_panel="Measuring")] = None,
    **flags: Any,
) -> None:
    """Measure models on photos they never saw, and say which is better.

    With --photos FOLDER it makes photos of any size gray, colours them as
    colorize does, and measures them at 256x256. --with adds another tool: its
    folder holds colourings under the photos' file names.

    Writes report.html, which explains every column, and report.json. Puts each
    model's figures in its card (photochrom models show NAME). After Ctrl-C, the
    same command goes on.

    [bold]Examples[/bold]
    $ photochrom evaluate model_v1 model_v2 --photos test-photos/
    $ photochrom evaluate model_v2 --photos test-photos/ --with ddcolor=theirs/
    $ photochrom evaluate model_v1 model_v2 --data tiny-imagenet-200 --photos 500
    """
    from photochrom import hub, model_folder
    from photochrom.commands.terminal import Display, asked_to_stop
    from photochrom.data.dataset import find
    from photochrom.evaluation.at_full_size import model_at_full_size
    from photochrom.evaluation.at_size import model_at_size
    from photochrom.evaluation.evaluate import VGG_PHOTOS, keep_in, print_report
    from photochrom.evaluation.evaluate import evaluate as run
    from photochrom.evaluation.folder import Folder
    from photochrom.evaluation.held_out import HeldOut

    folder = Path(photos) if photos is not None and (not photos.isdigit() or Path(photos).is_dir()) else None
    if photos is not None and folder is None:
        count = int(photos)
    tools = parsed(others or [])
    if not models and not tools:
        raise UsageError("give at least one model, or --photos FOLDER --with NAME=FOLDER")
    if folder is None and (tools or at != "256"):
        raise UsageError("--with and --at need a folder of photos: give --photos FOLDER")
    if folder is not None and data is not None:
        raise UsageError("--photos FOLDER and --data together: give one of them")
    if at not in ("256", "full"):
        raise UsageError(f"--at {at}: give 256, or full for both sizes")
    options = Options().but(**given(flags))
    processes.connect()
    folders = [model_folder.find_model(hub.fetched(model), models_dir) for model in models or []]
    names = [*(each.name for each in folders), *tools]
    out = out or Path("reports") / "-".join(names)
    with Display() as display, asked_to_stop(display.say) as signal_received:

        def progress(done: int, total: int, text: str) -> None:
            display.show(done, total, text)
            if number := signal_received():
                raise Interrupted(
                    "stopped; measurements so far are kept, and the same command goes on", number
                )

        candidates: Sequence[Candidate]
        measured_on: Photos
        learnt_from = [
            each for model in folders for each in model_folder.learnt_from(model.config, models_dir)
        ]
        if folder is None:
            pack = find(data or folders[0].config.data.name, data_dir, typed=data is not None)
            measured_on = HeldOut(pack, split, count, options.seed, learnt_from, data_dir)
            if seen := measured_on.facts.get("seen"):
                display.say(f"left out {seen} photos that look like photos that a model learnt from")
            candidates = [
                model_at_size(
                    each.path, models_dir, pack, options, device=device, compared=measured_on.compared
                )
                for each in folders
            ]
            for candidate in candidates:
                if other := candidate.facts["other_data"]:
                    display.say(
                        f"{candidate.name} has also learnt from {', '.join(other)}, which is not here to "
                        "compare: it may have seen some of these photos"
                    )
        else:
            if "average" not in options.model_fields_set:
                options = options.but(average=CALM)
            measured_on = Folder(
                folder, tools, count, options.seed, at == "full", progress, learnt_from, data_dir
            )
            for note in measured_on.notes():
                display.say(note)
            candidates = [
                *(
                    model_at_full_size(
                        each.path, models_dir, options, device=device, compared=measured_on.compared
                    )
                    for each in folders
                ),
                *measured_on.tool_candidates(),
            ]
        report = run(
            candidates,
            measured_on,
            out,
            vgg_photos=VGG_PHOTOS if vgg_photos is None else vgg_photos,
            inception_weights=inception_weights,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if not processes.is_first():
        return
    for each in folders:
        try:
            keep_in(each, report)
        except PhotochromError as error:  # the report itself is complete
            say(f"cannot write {each.name}'s card: {error}")
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if not inception_weights:
        say("no FID: it needs --inception-weights FILE; FD-VGG16 is the same distance in VGG16's features")
    say(f"report: {out / 'report.html'}")


def parsed(others: Sequence[str]) -> dict[str, Path]:
    """Folders of other tools by name, from texts NAME=FOLDER. Raises UsageError for any other text."""
    tools: dict[str, Path] = {}
    for text in others:
        name, equals, place = text.partition("=")
        if not (name and equals and place):
            raise UsageError(
                f"--with {text}: give a name and a folder, such as --with ddcolor=their_outputs/"
            )
        if name in tools:
            raise UsageError(f"--with {name} is given twice: give each tool its own name")
        tools[name] = Path(place)
    return tools
