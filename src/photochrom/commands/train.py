"""`photochrom train`, by questions, flags or a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photochrom import processes
from photochrom.commands.shared import DATA_DIR, MODELS, DataDir, Models, say, unless_default
from photochrom.config import PRESETS
from photochrom.errors import UsageError
from photochrom.flags import as_before, resolve, with_config_flags

if TYPE_CHECKING:
    from photochrom.config import Config
    from photochrom.data.dataset import DataSet
    from photochrom.model_folder import ModelFolder


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
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS), help="A network by name, with a batch size and a learning rate for it."
        ),
    ] = None,
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
    the step and saves. Flags win over the preset, the preset over the recipe,
    and the recipe over the defaults shown here.

    [bold]Examples[/bold]
    $ photochrom train
    $ photochrom train --data tiny-imagenet-200 --preset small --minutes 20
    $ photochrom train --data mine --name model_v1 --perceptual 0
    $ photochrom train --from model_v1 --name model_v2 --perceptual 0.1 --gan
    $ photochrom train --data mine --recipe recipes/two-stage.toml
    $ photochrom train --name model_v2              (goes on with it)
    """
    given = {key for key in ctx.params if getattr(ctx.get_parameter_source(key), "name", "") == "COMMANDLINE"}
    if not given and sys.stdin.isatty() and sys.stderr.isatty() and processes.count() == 1:
        ctx.command.main(_ask_what_to_train(), prog_name=ctx.command_path, standalone_mode=False)
        return
    from photochrom import hub, model_folder
    from photochrom.commands.terminal import TrainingDisplay, asked_to_stop
    from photochrom.data.dataset import find
    from photochrom.training.loop import beginning
    from photochrom.training.loop import train as run
    from photochrom.training.state import Training
    from photochrom.training_history import best_epoch

    origin = model_folder.find_model(hub.fetched(source), models) if source else None
    folder = model_folder.model_folder(name or (f"{origin.name}_v2" if origin else "my_model"), models)
    exists = processes.from_first(lambda: folder.exists)
    if exists and not given - {"name", "models", "data_dir", "ask"}:
        config = folder.config
        if config.source and not folder.has_checkpoint:
            origin = model_folder.find_model(
                config.source, models
            )  # since it had not yet taken a step away from it
    else:
        config = resolve(recipe, preset, flags, origin.config if origin else None)
    if minutes is not None and (minutes <= 0 or flags["stages__epochs"] or len(config.stages) > 1):
        raise UsageError("--minutes is above 0, and chooses the epochs of a single stage: leave out --epochs")
    pack = find(config.data.name, data_dir, typed=flags["data__name"] is not None)
    replacing = overwrite and exists
    if replacing:
        if origin and origin.path.resolve() == folder.path.resolve():
            raise UsageError(f"{folder.name} cannot be replaced by what goes on from it: take another --name")
        exists = False
    if minutes is not None:
        if exists:
            config = as_before(config, folder)
        else:
            from photochrom.training.estimate import fit_minutes

            with TrainingDisplay() as display:
                config = fit_minutes(config, pack, minutes, display.report)
        epoch = config.data.photos_per_epoch or pack.count("train")
        say(f"{config.stages[0].epochs} epochs of {epoch:,} photos")
    if ask:
        _confirm(config, pack, folder)
    if replacing:
        # What cannot be trained must not cost the old model.
        Training(config, pack)
        beginning(config, origin)
        processes.from_first(folder.remove)
    if history := folder.history:
        say(f"{folder.path} has {len(history)} epochs already")
    with TrainingDisplay() as display, asked_to_stop(display.say) as stop:
        run(config, folder, pack, display.report, stop, origin)
    if not processes.is_first():
        return
    if not display.epochs_done:
        say("All epochs are done. To go on, run the same command with more --epochs (or --patience).")
    best = best_epoch(folder.history)
    typer.echo(folder.path)
    say(f"Validation loss {best['val_loss']:.4f}, in epoch {best['epoch']}. Look at")
    say(f"  {folder / model_folder.CURVE} and {folder / 'samples'}")
    say("Next:")
    place = unless_default("--models", models, MODELS)
    photos = unless_default("--data-dir", data_dir, DATA_DIR)
    say(f"  photochrom colorize PHOTO.jpg -o coloured --model {folder.name}{place}")
    if best["stage"] == "v1":
        say(f"  photochrom train --from {folder.name} --perceptual 0.1{place}{photos}")
    if origin:
        say(f"  photochrom evaluate {origin.name} {folder.name} --data {pack.name}{place}{photos}")


def _ask_what_to_train() -> list[str]:
    """The answers as flags, with --ask for the summary."""
    from rich.console import Console

    from photochrom.commands.questions import as_command, ask_for_flags
    from photochrom.data.dataset import names

    arguments = ask_for_flags(MODELS, names(DATA_DIR), Console(stderr=True, highlight=False))
    say(f"\nThe same without questions:\n  {as_command(arguments)}\n")
    return [*arguments, "--ask"]


def _confirm(config: Config, pack: DataSet, folder: ModelFolder) -> None:
    """Say what a training will cost, by two trial steps, and go on only if that is wanted."""
    from photochrom.commands.terminal import TrainingDisplay, duration
    from photochrom.training.estimate import try_out

    with TrainingDisplay() as display:
        trial = try_out(config, pack, display.report)
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
    processes.from_first(lambda: typer.confirm("Begin?", default=True, abort=True, err=True))
