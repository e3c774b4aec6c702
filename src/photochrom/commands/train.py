"""`photochrom train`, by questions, flags or a recipe."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photochrom import processes
from photochrom.commands.shared import DATA_DIR, MODELS, DataDir, Models, say, unless_default
from photochrom.config import PRESETS
from photochrom.errors import PhotochromError, UsageError
from photochrom.flags import as_before, resolve, with_config_flags

Tracker = Literal["tensorboard"]

if TYPE_CHECKING:
    from photochrom.config import Config
    from photochrom.data.dataset import DataSet
    from photochrom.model_folder import ModelFolder
    from photochrom.training.loop import Progress


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
    tracker: Annotated[
        Tracker | None, typer.Option(help="Also write losses, samples and settings for TensorBoard.")
    ] = None,
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
    asked = _check(name, source, recipe, preset, models, data_dir, flags, given)
    if minutes is not None and (minutes <= 0 or flags["stages__epochs"] or len(asked.config.stages) > 1):
        raise UsageError("--minutes is above 0, and chooses the epochs of a single stage: leave out --epochs")
    if overwrite:
        asked.begin_anew()
    asked.settle_epochs(minutes)
    if ask:
        _confirm(asked.config, asked.pack, asked.folder)
    if asked.replacing:
        asked.remove_old()
    epochs_done = _train(asked, tracker)
    if processes.is_first():
        _tell(asked, epochs_done, models, data_dir)


def _check(
    name: str | None,
    source: str | None,
    recipe: Path | None,
    preset: str | None,
    models: Path,
    data_dir: Path,
    flags: dict[str, Any],
    given: set[str],
) -> Asked:
    """What the arguments ask for; raises PhotochromError for what there is not."""
    from photochrom import hub
    from photochrom.data.dataset import find
    from photochrom.model_folder import find_model, find_source, model_folder

    folder = model_folder(name or (f"{Path(source).name}_v2" if source else "my_model"), models)
    begun = processes.from_first(lambda: folder.exists)
    config = folder.config if begun else None
    # Once a training has taken a step away from the model that it goes on from, that one may be deleted.
    needed = not (config and config.source and folder.has_checkpoint)
    if config and not given - {"name", "models", "data_dir", "ask", "tracker", "data__name"}:
        if flags["data__name"] is not None:
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"name": flags["data__name"]})}
            )
        origin = find_source(config, models) if config.source and needed else None
    else:
        try:
            origin = find_model(hub.fetched(source), models) if source else None
        except PhotochromError:
            if config is None or needed or config.source != Path(str(source)).name:
                raise
            origin = None
        if source and not origin:
            config = resolve(recipe, preset, flags, config).model_copy(update={"source": Path(source).name})
        else:
            config = resolve(recipe, preset, flags, origin.config if origin else None)
    pack = find(config.data.name, data_dir, typed=flags["data__name"] is not None)
    return Asked(config, folder, pack, origin, begun)


@dataclass
class Asked:
    """What is to be trained, where, on what, and on top of what."""

    config: Config
    folder: ModelFolder
    pack: DataSet
    origin: ModelFolder | None
    begun: bool  # whether the folder holds a training
    replacing: bool = False  # whether that one goes

    def begin_anew(self) -> None:
        """Plan to replace the training that the folder holds."""
        self.replacing, self.begun = self.begun, False
        if self.replacing and self.origin and self.origin.path.resolve() == self.folder.path.resolve():
            raise UsageError(
                f"{self.folder.name} cannot be replaced by what goes on from it: take another --name"
            )

    def settle_epochs(self, minutes: float | None) -> None:
        """Choose the epochs that take so many minutes, or those that were chosen when the training began."""
        if minutes is None:
            return
        if self.begun:
            self.config = as_before(self.config, self.folder)
        else:
            from photochrom.commands.terminal import TrainingDisplay
            from photochrom.training.estimate import fit_minutes

            with TrainingDisplay() as display:
                self.config = fit_minutes(self.config, self.pack, minutes, display.report)
        photos = self.config.data.photos_per_epoch or self.pack.count("train")
        say(f"{self.config.stages[0].epochs} epochs of {photos:,} photos")

    def remove_old(self) -> None:
        """Delete what is to be replaced, unless the new one cannot be trained."""
        from photochrom.training.loop import beginning
        from photochrom.training.state import Training

        Training(self.config, self.pack)
        beginning(self.config, self.origin)
        processes.from_first(self.folder.remove)


def _train(asked: Asked, tracker: Tracker | None) -> int:
    """Train, and show how it goes; returns how many epochs were done."""
    from photochrom.commands.terminal import TrainingDisplay, asked_to_stop
    from photochrom.training.loop import train

    if history := asked.folder.history:
        say(f"{asked.folder.path} has {len(history)} epochs already")
    with ExitStack() as stack:
        display = stack.enter_context(TrainingDisplay())
        stop = stack.enter_context(asked_to_stop(display.say))
        report: Callable[[Progress], None] = display.report
        if tracker and processes.is_first():
            from photochrom.training.tracking import tensorboard

            report = stack.enter_context(tensorboard(asked.folder, asked.config, report))
        train(asked.config, asked.folder, asked.pack, report, stop, asked.origin)
    return display.epochs_done


def _tell(asked: Asked, epochs_done: int, models: Path, data_dir: Path) -> None:
    """Say what came out, and what to do with it."""
    from photochrom.model_folder import CURVE
    from photochrom.training_history import best_epoch

    folder = asked.folder
    if not epochs_done:
        say("All epochs are done. To go on, run the same command with more --epochs (or --patience).")
    best = best_epoch(folder.history)
    typer.echo(folder.path)
    say(f"Validation loss {best['val_loss']:.4f}, in epoch {best['epoch']}. Look at")
    say(f"  {folder / CURVE} and {folder / 'samples'}")
    say("Next:")
    place = unless_default("--models", models, MODELS)
    photos = unless_default("--data-dir", data_dir, DATA_DIR)
    say(f"  photochrom colorize PHOTO.jpg -o coloured --model {folder.name}{place}")
    if best["stage"] == "v1":
        say(f"  photochrom train --from {folder.name} --perceptual 0.1{place}{photos}")
    if asked.origin:
        say(
            f"  photochrom evaluate {asked.origin.name} {folder.name} --data {shlex.quote(asked.pack.place)}{place}{photos}"
        )


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
    memory = f", {trial.memory_mb:,} MB of memory" if trial.memory_mb else ""
    say(f"about {duration(seconds)} an epoch, {duration(seconds * epochs)} in all{memory}")
    processes.from_first(lambda: typer.confirm("Begin?", default=True, abort=True, err=True))
