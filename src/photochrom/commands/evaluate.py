"""`photochrom evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from photochrom import processes
from photochrom.coloring.options import EVALUATED, Options
from photochrom.commands.shared import DATA_DIR, MODELS, DataDir, Json, print_json, say
from photochrom.errors import Interrupted, PhotochromError
from photochrom.flags import given, with_option_flags


@with_option_flags(EVALUATED)
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Names or folders; the first is what others are held against."),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="SET", help="A data set's name or folder (default: the first model's)."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="validation|test", help="Which photos.")] = "validation",
    photos: Annotated[int | None, typer.Option(min=1, help="How many of them (default: all).")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="The report's folder (default: reports/MODELS)."),
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For the measure fid, with the extra `fid` installed.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps (default: the best there is).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    models_dir: Annotated[
        Path, typer.Option("--models", metavar="DIR", help="Folder of the models.")
    ] = MODELS,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Measure models on photos they never saw, and tell which is better.

    Writes report.html to look at and report.json to compute with. What the
    columns mean stands in the report. A model's own figures also go into its
    card (photochrom models show NAME). After Ctrl-C the same command goes on.

    [bold]Examples[/bold]
    $ photochrom evaluate model_v1 --photos 500
    $ photochrom evaluate model_v1 model_v2 --data tiny-imagenet-200
    $ photochrom evaluate model_v1 model_v2 --split test -o reports/final
    """
    from photochrom import hub, model_folder
    from photochrom.commands.terminal import Display, asked_to_stop
    from photochrom.data.dataset import find
    from photochrom.evaluation.evaluate import evaluate as run
    from photochrom.evaluation.evaluate import keep_in, print_report

    processes.connect()
    folders = [model_folder.find_model(hub.fetched(model), models_dir) for model in models]
    pack = find(data or folders[0].config.data.name, data_dir, typed=data is not None)
    out = out or Path("reports") / "-".join(folder.name for folder in folders)
    with Display() as display, asked_to_stop(display.say) as signal_received:

        def progress(done: int, total: int, text: str) -> None:
            display.show(done, total, text)
            if number := signal_received():
                raise Interrupted(
                    "stopped; what is measured so far is kept, and the same command goes on", number
                )

        report = run(
            [folder.path for folder in folders],
            pack,
            out,
            Options().but(**given(flags)),
            split=split,
            photos=photos,
            inception_weights=inception_weights,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if not processes.is_first():
        return
    for folder in folders:
        try:
            keep_in(folder, report)
        except PhotochromError as error:  # the report itself is whole
            say(f"{folder.name}'s card could not be written: {error}")
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if not inception_weights:
        say("no FID: it needs --inception-weights FILE; FD-VGG16 is the same on the features that come along")
    say(f"report: {out / 'report.html'}")
