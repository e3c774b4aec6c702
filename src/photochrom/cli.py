"""The command line: data on stdout, all else on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed, 130 and 143 ended by a signal. Everything heavy is
imported inside the commands, so that help answers at once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from photochrom import __version__
from photochrom.config import PRESETS
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.flags import as_before, fit_minutes, resolve, try_out, with_config_flags

if TYPE_CHECKING:
    from photochrom.config import Config
    from photochrom.data.pack import Pack
    from photochrom.store import ModelFolder

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="Make data sets of photos, and look at them.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Models = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the model folders.")]
DataDir = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the data sets.")]
MODELS, DATA_DIR = Path("models"), Path("data")


def say(text: str) -> None:
    """Tell a person something, which goes to stderr."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """The data of a command."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data for people: columns that begin with ">" stand to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"photochrom {__version__}")
        raise typer.Exit


@app.callback()
def photochrom(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Train diffusion models that colour grayscale photographs, and use them.

    [bold]Examples[/bold]
    $ photochrom demo                                see it work, in 4 minutes
    $ photochrom data import tiny-imagenet-200.zip   or any folder of photos
    $ photochrom train --data tiny-imagenet-200
    $ photochrom colorize old.jpg album/ -o coloured/
    """


@app.command()
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
    from photochrom.demo import run_demo
    from photochrom.terminal import TrainingDisplay, asked_to_stop, duration

    with TrainingDisplay() as display, asked_to_stop(display.say) as stop:
        v1, v2, picture = run_demo(out, keep, display.report, stop)
    for path in (v1.path, v2.path, picture):
        typer.echo(path)
    say(f"Done in {duration(time.monotonic() - begun)}. {picture} shows photos that the model never saw:")
    say("gray, as V1 and V2 coloured them, and true. They learned from four photographs, so they guess.")
    say("Next:")
    say(f"  photochrom colorize PHOTO.jpg -o coloured --models {v2.path.parent}")
    say(f"  photochrom evaluate demo_v1 demo_v2 --models {v2.path.parent} --data-dir {out / 'data'}")
    say("  photochrom data import FOLDER_OF_PHOTOS --name mine")
    say("  photochrom train --data mine --preset small --minutes 60")


@data_app.command("import", no_args_is_help=True)
def data_import(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder of photos, or Tiny ImageNet.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="Name of the data set (default: the source's).")] = None,
    size: Annotated[int, typer.Option(help="Side of the square photos, in pixels.")] = 64,
    photos: Annotated[
        int | None, typer.Option(help="How many to keep, drawn by seed (default: all).")
    ] = None,
    category: Annotated[list[str] | None, typer.Option(help="Keep only this one; repeat for more.")] = None,
    validation: Annotated[float, typer.Option(help="Share held out, if the source holds out none.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the held-out photos for the last report.")] = 0.5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.")] = 0,
    max_bad: Annotated[float, typer.Option(help="Share of the files that may be broken.")] = 0.01,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of this name.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Pack photos into a data set that training reads without decoding.

    Gray photos, duplicates and broken files are found, counted and left out.
    Sub-folders become categories.

    [bold]Examples[/bold]
    $ photochrom data import tiny-imagenet-200.zip
    $ photochrom data import ~/Pictures --name mine --size 128
    $ photochrom data import tiny-imagenet-200.zip --name cats --category tabby
    """
    from photochrom.data.pack import Pack, import_photos, summary
    from photochrom.terminal import Display

    own_name = source.stem if source.is_file() else source.resolve().name
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", own_name).strip("-.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"data set name {name!r}: take letters, digits, '.', '_' and '-': --name mine")
    with Display() as display:
        report = import_photos(
            source,
            data_dir / name,
            size=size,
            limit=photos,
            categories=category,
            validation=validation,
            test=test,
            seed=seed,
            max_bad=max_bad,
            overwrite=overwrite,
            progress=lambda done, total: display.show(done, total, f"{done:,} of {total:,}"),
        )
    facts = summary(Pack.open(report.folder))
    if as_json:
        files = [entry._asdict() for entry in report.left_out_files]
        print_json(
            {**facts, "folder": str(report.folder), "seconds": report.seconds, "left_out_files": files}
        )
    else:
        _print_counts(facts)
    broken = [entry for entry in report.left_out_files if entry.reason == "broken"]
    for entry in broken[:5]:
        say(f"broken: {entry.origin}: {entry.detail}")
    if len(broken) > 5:
        say(f"... and {len(broken) - 5} more, all listed in {report.folder / 'index.json'}")
    place = _unless_default("--data-dir", data_dir, DATA_DIR)
    say(f"{report.folder} made in {report.seconds:.0f} s. Next:")
    say(f"  photochrom data info {name}{place}")
    say(f"  photochrom train --data {name}{place}")


def _print_counts(facts: dict[str, Any]) -> None:
    rows = [[split, f"{count:,}"] for split, count in facts["counts"].items()]
    rows += [[f"left out: {reason}", f"{count:,}"] for reason, count in facts["left_out"].items()]
    print_table([facts["name"], ">photos"], rows)


@data_app.command("info", no_args_is_help=True)
def data_info(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A data set's name or folder.", show_default=False)
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Contact sheet (default: in the data set's folder)."),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Count the photos of a data set, and draw a contact sheet of it.

    [bold]Examples[/bold]
    $ photochrom data info demo
    $ photochrom data info tiny-imagenet-200 --sheet sheet.png --json
    """
    from photochrom.data.pack import contact_sheet, find, summary
    from photochrom.pictures import png
    from photochrom.store import write_bytes

    pack = find(name, data_dir)
    facts = summary(pack)
    sheet = sheet or pack.folder / "contact_sheet.png"
    write_bytes(sheet, png(contact_sheet(pack)))
    if as_json:
        print_json({**facts, "contact_sheet": str(sheet)})
        return
    _print_counts(facts)
    shown = [f"{name} {count:,}" for name, count in facts["categories"].items()]
    say(f"{facts['size']} x {facts['size']} pixels, from {facts['source']}, {facts['bytes'] / 1e6:,.0f} MB")
    if shown:
        say(f"{len(shown)} categories: {', '.join(shown[:6])}{', ...' if len(shown) > 6 else ''}")
    say(f"contact sheet: {sheet}")


@data_app.command("list")
def data_list(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """List the data sets.

    [bold]Examples[/bold]
    $ photochrom data list
    $ photochrom data list --json
    """
    from photochrom.data.pack import Pack, summary

    sets = []
    for index in sorted(data_dir.glob("[!.]*/index.json")):
        try:
            sets.append(summary(Pack.open(index.parent)))
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
    if as_json:
        print_json([{key: facts[key] for key in facts if key != "categories"} for facts in sets])
    elif sets:
        counts = [[f"{count:,}" for count in facts["counts"].values()] for facts in sets]
        rows = [
            [facts["name"], str(facts["size"]), *numbers, f"{facts['bytes'] / 1e6:,.0f}"]
            for facts, numbers in zip(sets, counts, strict=True)
        ]
        print_table(["name", ">pixels", ">train", ">validation", ">test", ">MB"], rows)
    else:
        say(f"no data set in {data_dir}/: make one with `photochrom data import`")


@app.command()
@with_config_flags
def train(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Option(help="Of the model and its folder (default: my_model, or SOURCE_v2 with --from)."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Go on from this model, as a new one.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Settings; flags win over them.")
    ] = None,
    preset: Annotated[str | None, typer.Option(metavar="|".join(PRESETS), help="Features by name.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Choose epochs that take about this long.")] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Tell time and memory, and ask before it begins.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete a model of this name first.")
    ] = False,
    models: Models = MODELS,
    data_dir: DataDir = DATA_DIR,
    **flags: Any,
) -> None:
    """Train a model; the same command run again goes on where it was.

    On a terminal and without arguments it asks what to train. Ctrl-C finishes
    the step and saves. Flags win over the recipe, and the recipe over the
    defaults shown here.

    [bold]Examples[/bold]
    $ photochrom train
    $ photochrom train --data tiny-imagenet-200 --preset small --minutes 20
    $ photochrom train --name model_v1 --perceptual 0
    $ photochrom train --from model_v1 --name model_v2 --perceptual 0.1 --gan
    $ photochrom train --recipe recipes/two-stage.toml --batch-size 32
    $ photochrom train --name model_v2              (goes on with it)
    """
    given = {key for key in ctx.params if getattr(ctx.get_parameter_source(key), "name", "") == "COMMANDLINE"}
    if not given and sys.stdin.isatty() and sys.stderr.isatty():
        ctx.command.main(_ask_what_to_train(), prog_name=ctx.command_path, standalone_mode=False)
        return
    from photochrom import store
    from photochrom.data.pack import find
    from photochrom.terminal import TrainingDisplay, asked_to_stop
    from photochrom.train import Training
    from photochrom.train import train as run

    origin = store.find_model(source, models) if source else None
    folder = store.model_folder(name or (f"{origin.name}_v2" if origin else "my_model"), models)
    if folder.exists and not given - {"name", "models", "data_dir"}:
        config = folder.config
    else:
        config = resolve(recipe, preset, flags, origin.config if origin else None)
    if minutes is not None and (minutes <= 0 or flags["stages__epochs"] or len(config.stages) > 1):
        raise UsageError("--minutes is above 0, and chooses the epochs of a single stage: leave out --epochs")
    pack = find(config.data.name, data_dir)
    if overwrite and folder.exists:
        Training(config, pack)  # what cannot be trained must not cost the old model
        with folder.locked():
            folder.remove()
    if minutes is not None:
        config = as_before(config, folder) if folder.exists else fit_minutes(config, pack, minutes)
        epoch = config.data.photos_per_epoch or len(pack.indices("train"))
        say(f"{config.stages[0].epochs} epochs of {epoch:,} photos")
    if ask:
        _confirm(config, pack, folder)
    if history := folder.history:
        say(f"{folder.path} has {len(history)} epochs already")
    with TrainingDisplay() as display, asked_to_stop(display.say) as stop:
        run(config, folder, pack, display.report, stop, origin)
    if not display.epochs_done:
        say("All epochs are done. To go on, run the same command with more --epochs (or --patience).")
    best = store.best_record(folder.history)
    typer.echo(folder.path)
    say(f"Validation loss {best['val_loss']:.4f}, in epoch {best['epoch']}. Look at")
    say(f"  {folder / store.CURVE} and {folder / 'samples'}")
    say("Next:")
    place = _unless_default("--models", models, MODELS)
    say(f"  photochrom colorize PHOTO.jpg -o coloured --model {folder.name}{place}")
    if best["stage"] == "v1":
        say(f"  photochrom train --from {folder.name} --perceptual 0.1{place}")
    if origin:
        say(f"  photochrom evaluate {origin.name} {folder.name} --data {pack.name}{place}")


def _ask_what_to_train() -> list[str]:
    """The answers as flags, with --ask for the summary."""
    from rich.console import Console

    from photochrom.data.pack import names
    from photochrom.guide import as_command, ask_for_flags

    arguments = ask_for_flags(MODELS, names(DATA_DIR), Console(stderr=True, highlight=False))
    say(f"\nThe same without questions:\n  {as_command(arguments)}\n")
    return [*arguments, "--ask"]


def _confirm(config: Config, pack: Pack, folder: ModelFolder) -> None:
    """Say what a training will cost, by two trial steps, and go on only if that is wanted."""
    from photochrom.terminal import duration

    trial = try_out(config, pack)
    epochs = sum(stage.epochs for stage in config.stages)
    seconds = trial.epoch_seconds(config)
    say(
        f"{folder.path}: features {', '.join(map(str, config.model.features))}, {trial.photos:,} photos of {pack.name}"
    )
    for stage in config.stages:
        gan = f", adversarial {stage.adversarial:g}" if stage.use_gan else ""
        say(
            f"  {stage.label}: {stage.epochs} epochs, noise {stage.noise:g}, perceptual {stage.perceptual:g}{gan}"
        )
    say(
        f"about {duration(seconds)} an epoch, {duration(seconds * epochs)} in all, {trial.memory_mb:,} MB of memory"
    )
    typer.confirm("Begin?", default=True, abort=True, err=True)


def _unless_default(flag: str, value: Path, default: Path) -> str:
    return "" if value == default else f" {flag} {value}"


@app.command(no_args_is_help=True)
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


@app.command(no_args_is_help=True)
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
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 20,
    sampler: Annotated[str, typer.Option(metavar="ddim|dpm++|ddpm", help="How to sample.")] = "ddim",
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
) -> None:
    """Measure models on photos they never saw, and tell which is better.

    Writes report.html to look at and report.json to compute with. What the
    columns mean stands in the report.

    [bold]Examples[/bold]
    $ photochrom evaluate model_v1 --photos 500
    $ photochrom evaluate model_v1 model_v2 --data tiny-imagenet-200
    $ photochrom evaluate model_v1 model_v2 --split test -o reports/final
    """
    from photochrom import store
    from photochrom.data.pack import find
    from photochrom.evaluate import evaluate as run
    from photochrom.evaluate import print_report
    from photochrom.terminal import Display

    folders = [store.find_model(model, models_dir) for model in models]
    pack = find(data or folders[0].config.data.name, data_dir)
    out = out or Path("reports") / "-".join(folder.name for folder in folders)
    with Display() as display:
        report = run(
            [folder.path for folder in folders],
            pack,
            out,
            split=split,
            photos=photos,
            seed=seed,
            steps=steps,
            sampler=sampler,
            inception_weights=inception_weights,
            device=device,
            overwrite=overwrite,
            progress=display.show,
        )
    if as_json:
        print_json(report)
    else:
        print_report(report)
    say(f"report: {out / 'report.html'}")


def newest_model(models: Path) -> ModelFolder:
    """The model whose weights were written last; raises PhotochromError if there is none."""
    from photochrom import store

    usable = [folder for folder in store.list_models(models) if (folder / store.WEIGHTS).is_file()]
    if not usable:
        mend = "make one with `photochrom train` or `photochrom demo`, or name another folder with --models"
        raise PhotochromError(f"no model in {models}/: {mend}")
    return max(usable, key=lambda folder: (folder / store.WEIGHTS).stat().st_mtime)


@app.command("models")
def list_models(models: Models = MODELS, as_json: Json = False) -> None:
    """List the models, with what their training has come to.

    [bold]Examples[/bold]
    $ photochrom models
    $ photochrom models --json
    """
    from photochrom import store

    facts: list[dict[str, Any]] = []
    for folder in store.list_models(models):
        try:
            facts.append(_model_facts(folder))
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
    if as_json:
        print_json(facts)
    elif facts:
        rows = [
            [
                *(row["name"], row["stage"], f"{row['epoch']}/{row['epochs']}"),
                "-" if row["best_val_loss"] is None else f"{row['best_val_loss']:.4f}",
                *(f"{row['bytes'] / 1e6:,.0f}", row["changed"]),
            ]
            for row in facts
        ]
        print_table(["name", "stage", ">epoch", ">best loss", ">MB", "changed"], rows)
    else:
        say(f"no model in {models}/: make one with `photochrom train` or `photochrom demo`")


def _model_facts(folder: ModelFolder) -> dict[str, Any]:
    from photochrom.store import best_record

    config, history = folder.config, folder.history
    files = [path.stat() for path in folder.path.rglob("*") if path.is_file()]
    return {
        "name": folder.name,
        "stage": history[-1]["stage"] if history else config.stages[0].label,
        "epoch": len(history),
        "epochs": config.last_epoch,
        "best_val_loss": best_record(history)["val_loss"] if history else None,
        "bytes": sum(file.st_size for file in files),
        "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(file.st_mtime for file in files))),
    }


def _quit(number: int, frame: FrameType | None) -> NoReturn:
    say("stopped")
    sys.exit(128 + number)  # unwinds, so that temporary files are taken away


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `photochrom`: turns errors into one line and an exit code."""
    # Torch's threads spin while they wait for each other, which beside any other work makes them several times slower;
    # asleep they are as fast on an idle machine. Read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _quit)
    signal.signal(signal.SIGTERM, _quit)
    try:
        app(arguments, prog_name="photochrom")
    except Interrupted as error:
        say(f"photochrom: {error}")
        sys.exit(128 + error.signal_number)
    except PhotochromError as error:
        say(f"photochrom: error: {error}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        say(f"photochrom: error: {place}{error.strerror or error}")
        sys.exit(1)
