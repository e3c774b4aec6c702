"""`photochrom train`: from questions, flags or a recipe."""

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
        typer.Option(help="Name of the model and its folder (default: my_model; with --from, MODEL_v2)."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start a new model from this one.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="A file of settings; flags override it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS), help="A network, with a batch size and learning rate that suit it."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Choose the number of epochs to take about this long.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Estimate time and memory, and ask before training.")
    ] = False,
    tracker: Annotated[
        Tracker | None, typer.Option(help="Also write losses, samples and settings for TensorBoard.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of this name.")] = False,
    models: Models = MODELS,
    data_dir: DataDir = DATA_DIR,
    **flags: Any,
) -> None:
    """Train a model. Run the same command again to resume.

    On a terminal, without arguments, it asks what to train. Ctrl-C finishes the
    step and saves. Flags override the preset, the preset overrides the recipe,
    and the recipe overrides the defaults shown here.

    [bold]Examples[/bold]
    $ photochrom train
    $ photochrom train --data tiny-imagenet-200 --preset small --minutes 20
    $ photochrom train --data mine --name model_v1 --perceptual 0
    $ photochrom train --from model_v1 --name model_v2 --perceptual 0.1 --gan
    $ photochrom train --data mine --recipe recipes/two-stage.toml
    $ photochrom train --name model_v2              resumes it
    """
    given = {key for key in ctx.params if getattr(ctx.get_parameter_source(key), "name", "") == "COMMANDLINE"}
    if not given and sys.stdin.isatty() and sys.stderr.isatty() and processes.count() == 1:
        ctx.command.main(_ask_what_to_train(), prog_name=ctx.command_path, standalone_mode=False)
        return
    asked = _check(name, source, recipe, preset, models, data_dir, flags, given)
    if minutes is not None and (minutes <= 0 or flags["stages__epochs"] or len(asked.config.stages) > 1):
        raise UsageError(
            "--minutes chooses the epochs of a single stage: give a number above 0, and leave out --epochs"
        )
    if overwrite:
        asked.plan_replacement()
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
    """What the arguments ask for. Raises PhotochromError if something does not exist."""
    from photochrom import hub
    from photochrom.data.dataset import find
    from photochrom.model_folder import find_model, find_source, model_folder

    folder = model_folder(name or (f"{Path(source).name}_v2" if source else "my_model"), models)
    begun = processes.from_first(lambda: folder.exists)
    config = folder.config if begun else None
    # After its first step, a training no longer needs the model that it started from.
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
    """What to train: the configuration, its folder, its photos, and the model to start from."""

    config: Config
    folder: ModelFolder
    pack: DataSet
    origin: ModelFolder | None
    begun: bool  # whether the folder holds a training
    replacing: bool = False  # whether to delete that training first

    def plan_replacement(self) -> None:
        """Plan to replace the folder's training."""
        self.replacing, self.begun = self.begun, False
        if self.replacing and self.origin and self.origin.path.resolve() == self.folder.path.resolve():
            raise UsageError(
                f"a model that starts from {self.folder.name} cannot replace it: give another --name"
            )

    def settle_epochs(self, minutes: float | None) -> None:
        """Choose as many epochs as fit into `minutes`, or those chosen when the training began."""
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
        """Delete the training to replace, once it is clear that the new one can be trained."""
        from photochrom.training.loop import source_checkpoint
        from photochrom.training.state import Training

        Training(self.config, self.pack)
        source_checkpoint(self.config, self.origin)
        processes.from_first(self.folder.remove)


def _train(asked: Asked, tracker: Tracker | None) -> int:
    """Train with progress on the terminal. Returns the number of epochs done."""
    from photochrom.commands.terminal import TrainingDisplay, asked_to_stop
    from photochrom.training.loop import train

    if history := asked.folder.history:
        say(f"{asked.folder.path} already has {len(history)} epochs")
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
    """Print the result, and what to do next."""
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
    say(f"  photochrom colorize PHOTO.jpg --model {folder.name}{place}")
    if best["stage"] == "v1":
        say(f"  photochrom train --from {folder.name} --perceptual 0.1{place}{photos}")
    if asked.origin:
        say(
            f"  photochrom evaluate {asked.origin.name} {folder.name} "
            f"--data {shlex.quote(asked.pack.place)}{place}{photos}"
        )


def _ask_what_to_train() -> list[str]:
    """Ask, print the command that does the same, and return its flags with --ask."""
    from rich.console import Console

    from photochrom.commands.questions import as_command, ask_for_flags
    from photochrom.data.dataset import names

    arguments = ask_for_flags(MODELS, names(DATA_DIR), Console(stderr=True, highlight=False))
    say(f"\nThe same command without questions:\n  {as_command(arguments)}\n")
    return [*arguments, "--ask"]


def _confirm(config: Config, pack: DataSet, folder: ModelFolder) -> None:
    """Measure two steps, print what the training will cost, and ask whether to begin."""
    from photochrom.commands.terminal import TrainingDisplay, duration
    from photochrom.training.estimate import try_out

    with TrainingDisplay() as display:
        trial = try_out(config, pack, display.report)
    epochs = sum(stage.epochs for stage in config.stages)
    seconds = trial.epoch_seconds(config)
    features = ", ".join(map(str, config.model.features))
    say(f"{folder.path}: features {features}, {trial.photos:,} photos of {pack.name}")
    for stage in config.stages:
        gan = f", adversarial {stage.adversarial:g}" if stage.use_gan else ""
        weights = f"noise {stage.noise:g}, perceptual {stage.perceptual:g}{gan}"
        say(f"  {stage.label}: {stage.epochs} epochs, {weights}")
    memory = f", {trial.memory_mb:,} MB of memory" if trial.memory_mb else ""
    say(f"about {duration(seconds)} an epoch, {duration(seconds * epochs)} in all{memory}")
    processes.from_first(lambda: typer.confirm("Begin?", default=True, abort=True, err=True))
