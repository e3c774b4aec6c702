"""`photochrom colorize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photochrom.commands.shared import MODELS, Json, Models, print_json, say
from photochrom.errors import PhotochromError

if TYPE_CHECKING:
    from photochrom.store import ModelFolder


def colorize(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Photos, and folders of photos.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", help="Folder, or a file for one photo.", show_default=False
        ),
    ],
    model: Annotated[str | None, typer.Option(help="A model's name or folder (default: the newest).")] = None,
    models: Models = MODELS,
    steps: Annotated[int, typer.Option(help="Sampling steps; fewer are faster and paler.")] = 20,
    seed: Annotated[int, typer.Option(help="Another seed gives other plausible colours.")] = 0,
    sampler: Annotated[str, typer.Option(metavar="ddim|dpm++|ddpm", help="How to sample.")] = "ddim",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps (default: the best there is).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Colour photos; each keeps its size and its brightness.

    Folders keep their structure. The path of each file written is printed. A
    photo that cannot be read does not stop the others (exit code 3).

    [bold]Examples[/bold]
    $ photochrom colorize old.jpg -o coloured.png
    $ photochrom colorize old.jpg album/ -o coloured/ --model model_v1
    $ photochrom colorize album/ -o again/ --seed 7 --steps 50
    """
    from photochrom import album
    from photochrom.colorizer import Colorizer
    from photochrom.store import find_model
    from photochrom.terminal import Display

    folder = find_model(model, models) if model else newest_model(models)
    jobs, failed = album.plan(inputs, out, overwrite)
    colorizer = Colorizer.load(folder.path, device=device)
    written = []
    options = {"steps": steps, "seed": seed, "sampler": sampler}
    with Display() as display:

        def progress(done: float) -> None:
            display.show(done, len(jobs), f"{int(done):,} of {len(jobs):,} photos")

        for path, output in album.color_files(colorizer, jobs, failed, progress, **options):
            written.append({"input": str(path), "output": str(output)})
            if not as_json:
                typer.echo(output)
    if as_json:
        problems = [{"input": str(path), "reason": reason} for path, reason in failed.items()]
        print_json({"model": folder.name, **options, "written": written, "failed": problems})
    for reason in failed.values():
        say(f"photochrom: error: {reason}")
    if failed:
        say(f"{len(failed)} not coloured, {len(written)} coloured")
        raise typer.Exit(3 if written else 1)


def newest_model(models: Path) -> ModelFolder:
    """The model whose weights were written last; raises PhotochromError if there is none."""
    from photochrom import store

    usable = [folder for folder in store.list_models(models) if (folder / store.WEIGHTS).is_file()]
    if not usable:
        mend = "make one with `photochrom train` or `photochrom demo`, or name another folder with --models"
        raise PhotochromError(f"no model in {models}/: {mend}")
    return max(usable, key=lambda folder: (folder / store.WEIGHTS).stat().st_mtime)
