"""`photochrom colorize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photochrom import processes
from photochrom.commands.shared import MODELS, Json, Models, print_json, say
from photochrom.config import DEFAULT_MODEL
from photochrom.errors import PhotochromError, UsageError

if TYPE_CHECKING:
    from photochrom.coloring.album import Plan
    from photochrom.coloring.colorizer import Colorizer

CALM = 4  # colourings that a photo's colours are to agree with


def colorize(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Photos, and folders of photos; or videos.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", help="Folder, or a file for one photo.", show_default=False
        ),
    ],
    model: Annotated[str, typer.Option(help="A model's name, folder, or .onnx file.")] = DEFAULT_MODEL,
    models: Models = MODELS,
    steps: Annotated[
        int | None,
        typer.Option(help="Sampling steps (default: 20, or what the model was distilled for)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other plausible colours.")] = 0,
    sampler: Annotated[str, typer.Option(metavar="ddim|unipc|dpm++|ddpm", help="How to sample.")] = "ddim",
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How far the encoder leads colours: 1 is plain, more is surer and bolder (default: as the model says)."
        ),
    ] = None,
    strength: Annotated[float, typer.Option(help="0 is gray, 1 as the model says, above 1 bolder.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Below 1: nearer to the average colours.")] = 1.0,
    samples: Annotated[int, typer.Option(help="Write this many colourings, and a sheet of them.")] = 1,
    average: Annotated[
        int | None,
        typer.Option(
            help=f"Write what this many colourings agree on: calmer than one, gray where they do not (default: {CALM})."
        ),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write a map as well: white where the colour is a guess.")
    ] = False,
    detail: Annotated[
        int | None,
        typer.Option(
            help="Shorter side in pixels at which the model sees a photo (default: as trained; with an encoder twice that)."
        ),
    ] = None,
    hint: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,#RRGGBB", help="The colour of a place in the photo; several are possible."),
    ] = None,
    hints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Transparent picture with strokes of colour.")
    ] = None,
    keep_gray: Annotated[
        Path | None, typer.Option(metavar="MASK", help="Picture, white where the photo stays gray.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take on the colours of this photo.")
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger photos before decoding them.")] = 120,
    truncated: Annotated[
        bool, typer.Option("--truncated", help="Colour what there is of a photo that was cut short.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps (default: the best there is).")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="torch|onnx",
            help="What runs the network (default: torch, or what the file is for). onnx is slower for many photos.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Colour all, and replace files that exist.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Colour photos and videos; each keeps its size, its brightness, EXIF, sound.

    Folders keep their structure. In a folder that holds earlier results, only
    what is new or changed is coloured. The path of each file written is
    printed. A photo that cannot be read does not stop the others (exit code 3).

    [bold]Examples[/bold]
    $ photochrom colorize old.jpg -o coloured.png
    $ photochrom colorize old.jpg album/ -o coloured/ --model model_v1
    $ photochrom colorize old.jpg -o out/ --samples 6 --uncertainty
    $ photochrom colorize old.jpg -o red.png --hint 420,310,#b02020
    $ photochrom colorize film.mp4 -o coloured/
    """
    from photochrom.coloring import album
    from photochrom.coloring.colorizer import Colorizer
    from photochrom.coloring.hints import Hint
    from photochrom.coloring.manifest import state
    from photochrom.coloring.video import SUFFIXES as VIDEO_SUFFIXES
    from photochrom.commands.terminal import Display
    from photochrom.model_folder import ENGINES, find_weights

    if hint and hints:
        raise UsageError("--hint and --hints together: draw all hints into the picture, or type them all")
    if samples > 1 and average is not None and average > 1:
        raise UsageError("--samples and --average together: take one (what N agree on, or N pictures)")
    films = [path for path in inputs if path.suffix.lower() in VIDEO_SUFFIXES]
    average = average if average is not None else 1 if films or samples > 1 else CALM
    if min(samples, average) < 1:
        raise UsageError(f"{min(samples, average)} colourings: take 1 or more")
    processes.connect()
    weights = find_weights(model, models, engine)
    wanted = album.Wanted(samples, average, uncertainty)
    options: dict[str, Any] = {
        **{"steps": steps, "seed": seed, "sampler": sampler, "guidance": guidance, "strength": strength},
        **{"temperature": temperature, "detail": detail, "keep_gray": keep_gray, "like": like},
        "hints": [Hint.parse(text) for text in hint] if hint else hints,
        **{"max_megapixels": max_megapixels, "truncated": truncated},
    }
    if films:
        unused = {"temperature": 1.0, "keep_gray": None, "like": None, "hints": None, "truncated": False}
        if len(films) < len(inputs) or wanted != album.Wanted() or unused != {k: options[k] for k in unused}:
            raise UsageError(
                "videos are coloured by themselves, with --steps, --seed, --sampler, --guidance, --strength and --detail alone"
            )
        kept = {key: options[key] for key in ("steps", "seed", "sampler", "guidance", "strength", "detail")}
        _color_films(Colorizer.load(weights, device=device), films, out, overwrite, as_json, kept)
        return
    files = [state(file) for file in (weights, hints, keep_gray, like) if file]
    how = {**options, "wanted": wanted, "files": files}
    plan = processes.from_first(lambda: album.plan(inputs, out, overwrite, how, wanted))
    if len(plan.jobs) > 1 and (hint or hints or keep_gray):
        raise UsageError(
            "--hint, --hints and --keep-gray are places in one photo: colour the others separately"
        )
    colorizer = Colorizer.load(weights, device=device)
    options["steps"] = colorizer.config.steps if steps is None else steps
    options["guidance"] = colorizer.config.guidance if guidance is None else guidance
    written = []
    told: list[tuple[str, Path]] = []
    share = plan.share()
    with Display() as display:

        def progress(done: float) -> None:
            display.show(done, len(share.jobs), f"{int(done):,} of {len(share.jobs):,} photos")

        for path, outputs, facts in album.color_files(colorizer, share, progress, wanted, **options):
            for output in outputs:
                written.append({"input": str(path), "output": str(output)})
                if not as_json:
                    typer.echo(output)
            told += [(note, path) for note in facts]
    shares = processes.gather((written, told, share.refused))
    written = [entry for entries, _, _ in shares for entry in entries]
    notes: dict[str, list[Path]] = {}
    for _, told_there, refused in shares:
        plan.refused |= refused
        for note, path in told_there:
            notes.setdefault(note, []).append(path)
    if as_json and processes.is_first():
        print_json(
            {
                "model": weights.parent.name if weights.name in ENGINES.values() else weights.stem,
                **{key: _plain(value) for key, value in options.items()},
                "written": written,
                "unchanged": [str(path) for path in plan.unchanged],
                "notes": {note: [str(path) for path in paths] for note, paths in notes.items()},
                "failed": [{"input": str(path), "reason": reason} for path, reason in plan.refused.items()],
            }
        )
    _tell(notes, plan, len({entry["input"] for entry in written}))
    if plan.refused:
        raise typer.Exit(3 if written or plan.unchanged else 1)


def _color_films(
    colorizer: Colorizer,
    films: list[Path],
    out: Path,
    overwrite: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Colour videos one after the other; one that is bad does not stop the others."""
    from photochrom.coloring.video import color_video
    from photochrom.commands.terminal import Display

    written: list[dict[str, str]] = []
    failed: dict[Path, str] = {}
    single = len(films) == 1 and out.suffix.lower() == ".mp4" and not out.is_dir()
    outputs = {film: out if single else out / f"{film.stem}.mp4" for film in films}
    for film in processes.mine(films):
        output = outputs[film]
        first = next(other for other in films if outputs[other] == output)
        if film != first:
            failed[film] = f"{film} would be written to {output}, as {first} is: colour it separately"
        elif output.exists() and (output.samefile(film) if film.exists() else False):
            failed[film] = f"{film} would be written over itself: choose another place with -o"
        elif output.exists() and not overwrite:
            failed[film] = f"{film} is left out, {output} exists: replace it with --overwrite"
        if film in failed:
            continue
        with Display() as display:

            def progress(done: int, total: int, display: Display = display) -> None:
                display.show(done, max(done, total), f"{done:,} of {total:,} frames")

            try:
                output.parent.mkdir(parents=True, exist_ok=True)
                color_video(colorizer, film, output, progress=progress, **options)
            except UsageError:
                raise
            except PhotochromError as error:
                failed[film] = str(error)
                continue
        written.append({"input": str(film), "output": str(output)})
        if not as_json:
            typer.echo(output)
    shares = processes.gather((written, failed))
    written = [entry for entries, _ in shares for entry in entries]
    failed = {film: reason for _, reasons in shares for film, reason in reasons.items()}
    if as_json and processes.is_first():
        problems = [{"input": str(film), "reason": reason} for film, reason in failed.items()]
        print_json({**options, "written": written, "failed": problems})
    for reason in failed.values():
        say(f"photochrom: error: {reason}")
    if failed:
        raise typer.Exit(3 if written else 1)


def _tell(notes: dict[str, list[Path]], plan: Plan, coloured: int) -> None:
    """What a person should know at the end."""
    for warning in plan.warnings:
        say(f"photochrom: warning: {warning}")
    for note, paths in notes.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        say(f"{', '.join(map(str, paths[:3]))}{more}: {note}")
    if plan.unchanged:
        say(
            f"{len(plan.unchanged)} unchanged since they were coloured: left alone (--overwrite does them again)"
        )
    for reason in plan.refused.values():
        say(f"photochrom: error: {reason}")
    if plan.refused:
        say(f"{len(plan.refused)} not coloured, {coloured} coloured")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
