"""The questions that `photochrom train` asks without arguments.

The answers become flags, so each way does the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from photochrom.config import build
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder, list_models, model_folder
from photochrom.training_history import best_epoch


class Question(NamedTuple):
    """A setting to ask for: its place in the configuration, and a line of advice."""

    section: str
    field: str
    text: str
    advice: str

    @property
    def default(self) -> str:
        """The default of config.py, as one would type it."""
        section = getattr(build({}), self.section)
        value = getattr(section[0] if self.section == "stages" else section, self.field)
        return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"

    def check(self, answer: str) -> str:
        """The answer, if the configuration accepts it. Raises UsageError with the reason if not."""
        value = answer.replace(" ", "").strip("[]").split(",") if self.field == "features" else answer
        fields: dict[str, Any] = {self.field: value}
        build({self.section: [fields] if self.section == "stages" else fields})
        return ",".join(value) if isinstance(value, list) else answer

    @property
    def flag(self) -> str:
        """The flag of `train` for this setting."""
        return "--" + self.field.replace("_", "-")


NETWORK = (
    Question(
        "model",
        "features",
        "Features",
        "channels of each level; 32,64,128,256 is four times as fast on a processor",
    ),
    Question(
        "model",
        "encoder",
        "Encoder",
        "lite0 or lite0x2 tells the network what a photo shows: better colours, for half as much time again",
    ),
    Question("model", "time_embedding", "Time embedding", "256 suits nearly everybody"),
    Question("diffusion", "timesteps", "Timesteps", "steps from photo to noise; colouring takes 20 of them"),
    Question(
        "training", "batch_size", "Batch size", "photos per step; more learns more steadily, with more memory"
    ),
    Question(
        "training",
        "learning_rate",
        "Learning rate",
        "1e-4 suits this network; a small one (32,64,128,256) learns well with 8e-4",
    ),
)
EPOCHS = Question("stages", "epochs", "Epochs", "passes over all photos")
NOISE = Question("stages", "noise", "Noise weight", "the loss of diffusion models; leave it at 1")
PERCEPTUAL = Question(
    "stages", "perceptual", "Perceptual weight", "0.1 corrects false colours; 0 is V1, for a first stage"
)
ADVERSARIAL = Question(
    "stages", "adversarial", "Adversarial weight", "0.01 changes little; 0.1 makes colours a little stronger"
)


class Guide:
    """Asks questions on a console. `flags` collects arguments for `photochrom train`."""

    def __init__(self, models: Path, data_sets: list[str], console: Console) -> None:
        self.models, self.data_sets, self.console = models, data_sets, console
        self.flags: list[str] = []

    def ask(self, text: str, default: str, advice: str, check: Callable[[str], str]) -> str:
        """Ask until the answer is valid. Enter takes the default."""
        self.console.print(f"  [dim]{advice}[/dim]", highlight=False)
        while True:
            answer = self.console.input(f"{text} \\[{default}]: ").strip() or default
            try:
                return check(answer)
            except PhotochromError as error:
                self.console.print(f"  {error}", style="red", markup=False, highlight=False)

    def settings(self, *questions: Question) -> None:
        """Ask for settings. An answer that differs from the default becomes a flag."""
        for question in questions:
            answer = self.ask(question.text, question.default, question.advice, question.check)
            if answer != question.default:
                self.flags += [question.flag, answer]

    def name(self, default: str) -> None:
        """Ask for the name of a new model."""

        def check(name: str) -> str:
            if model_folder(name, self.models).exists:
                raise UsageError(f"{self.models / name} exists: take another name")
            return name

        self.flags += ["--name", self.ask("Name", default, "of the model and its folder", check)]

    def data(self) -> None:
        """Ask which data set to train on, if there are several. If there is none, take the demo's."""
        names, number = self.data_sets or ["demo"], 1
        if len(names) > 1:
            for place, name in enumerate(names, 1):
                self.console.print(f"  {place:2}  {name}", markup=False, highlight=False)
            advice = "photos to learn from; `photochrom data import` makes more"
            number = self.choice("Data set", 1, len(names), advice)
        self.flags += ["--data", names[number - 1]]

    def stage(self) -> None:
        """Ask for epochs and loss weights."""
        self.settings(EPOCHS, NOISE, PERCEPTUAL)
        if self.yes("GAN", False, "a discriminator that judges colours too; try it last, for a few epochs"):
            self.flags.append("--gan")
            self.settings(ADVERSARIAL)

    def yes(self, text: str, default: bool, advice: str) -> bool:
        """Ask a yes-or-no question."""

        def check(answer: str) -> str:
            if answer.lower() not in ("y", "yes", "n", "no"):
                raise UsageError(f"{answer!r} is neither y nor n")
            return answer.lower()[0]

        return self.ask(text, "y" if default else "n", advice, check) == "y"

    def choice(self, text: str, lowest: int, highest: int, advice: str) -> int:
        """Ask for a number from a list. Enter takes the lowest."""

        def check(answer: str) -> str:
            if not answer.isdecimal() or not lowest <= int(answer) <= highest:
                raise UsageError(f"{answer!r} is not a number from {lowest} to {highest}")
            return answer

        return int(self.ask(text, str(lowest), advice, check))


def ask_for_flags(models: Path, data_sets: list[str], console: Console) -> list[str]:
    """Ask what to train. Returns the flags of `photochrom train` that do the same.

    Writes nothing, so Ctrl-C (KeyboardInterrupt) leaves nothing behind.
    """
    guide = Guide(models, data_sets, console)
    described, broken = _described(list_models(models))
    folders = list(described)
    number = 0
    for reason in broken:
        console.print(f"cannot offer a model: {reason}", markup=False, highlight=False)
    if folders:
        console.print("[bold]Models[/bold]\n   0  a new model")
        for place, line in enumerate(described.values(), 1):
            console.print(f"  {place:2}  {line}", markup=False, highlight=False)
        number = guide.choice("Resume", 0, len(folders), "the number of a model, or 0 for a new one")
    if number:
        folder = folders[number - 1]
        if not is_finished(folder) and guide.yes(
            "Finish it", True, "y: train it on, with its settings; n: start a new model from it"
        ):
            return ["--name", folder.name]
        guide.flags += ["--from", folder.name]
        guide.name(free_name(models, f"{folder.name}_v2"))
        if folder.shipped:  # its training photos are not here
            guide.data()
        guide.stage()
        return guide.flags
    guide.name(free_name(models, "my_model"))
    guide.data()
    guide.settings(*NETWORK)
    guide.stage()
    return guide.flags


def _described(folders: list[ModelFolder]) -> tuple[dict[ModelFolder, str], list[str]]:
    """A line about each readable model, and the reason for each unreadable one."""
    lines, broken = {}, []
    for folder in folders:
        try:
            _ = folder.config
            lines[folder] = describe(folder)
        except PhotochromError as error:
            broken.append(str(error))
    return lines, broken


def describe(folder: ModelFolder) -> str:
    """One line: name, stage, epoch and losses."""
    history = folder.history
    if not history:
        return f"{folder.name}: no epoch finished yet"
    last = history[-1]
    losses = f"loss {last['train_loss']:.4f}, validation {last['val_loss']:.4f}"
    return f"{folder.name}: {last['stage']}, epoch {last['epoch']}, {losses}"


def is_finished(folder: ModelFolder) -> bool:
    """Whether all its epochs are done, or patience with its last stage has run out."""
    history, config = folder.history, folder.config
    if not history:
        return False
    last, patience = history[-1], config.training.patience
    in_last_stage = last["epoch"] > config.last_epoch - config.stages[-1].epochs
    waited = last["epoch"] - best_epoch(history)["epoch"]
    return bool(last["epoch"] >= config.last_epoch or (in_last_stage and 0 < patience <= waited))


def free_name(models: Path, wanted: str) -> str:
    """The wanted name, or the next free one: my_model, my_model2; old_v2, old_v3."""
    stem = wanted.rstrip("0123456789")
    name, number = wanted, int(wanted[len(stem) :] or 1)
    while model_folder(name, models).exists:
        number += 1
        name = f"{stem}{number}"
    return name


def as_command(flags: list[str]) -> str:
    """The flags as a command to type."""
    return "photochrom train " + shlex.join(flags)
