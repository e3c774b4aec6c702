"""From the flags of `train` to a configuration: every field of config.py is a flag, and no flag is listed here."""

from __future__ import annotations

import inspect
import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from photochrom import processes
from photochrom.config import (
    PRESETS,
    Config,
    DataConfig,
    DiffusionConfig,
    ModelConfig,
    Section,
    StageConfig,
    TrainingConfig,
    build,
    read_recipe,
)
from photochrom.errors import UsageError

if TYPE_CHECKING:
    from photochrom.data.pack import DataSet
    from photochrom.store import ModelFolder
    from photochrom.train import Progress

    Report = Callable[[Progress], None]

SECTIONS: dict[str, tuple[str, type[Section]]] = {
    "model": ("Model", ModelConfig),
    "diffusion": ("Diffusion", DiffusionConfig),
    "data": ("Data", DataConfig),
    "training": ("Training", TrainingConfig),
    "stages": ("Stage", StageConfig),
}
WITHOUT_FLAG = {"data.size", "data.checksum", "stages.name"}
RENAMED = {"data.name": "data", "diffusion.zero_terminal_snr": "zero-snr"}


def with_config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**flags` of a command by an option for each field, named `section__field`, None if not given."""
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    options = [
        _flag(section, panel, field)
        for section, (panel, model) in SECTIONS.items()
        for field in model.model_fields
        if f"{section}.{field}" not in WITHOUT_FLAG
    ]
    command.__signature__ = inspect.Signature(own + options)  # type: ignore[attr-defined]
    return command


def _flag(section: str, panel: str, field: str) -> inspect.Parameter:
    info = SECTIONS[section][1].model_fields[field]
    name = RENAMED.get(f"{section}.{field}", field.replace("_", "-"))
    features = info.annotation == tuple[int, ...]
    help = (info.description or "")[:1].upper() + (info.description or "")[1:]
    if info.default is not None and "(default" not in help:
        help += f" (default: {_as_typed(name, info.default)})"
    option = typer.Option(
        f"--{name}/--no-{name}" if info.annotation is bool else f"--{name}",
        help=f"{help}.",
        metavar="N,N,..." if features else None,
        rich_help_panel=panel,
    )
    annotation = str if features else info.annotation
    return inspect.Parameter(
        f"{section}__{field}",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation | None, option],  # type: ignore[operator]
    )


def _as_typed(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return name if default else f"no-{name}"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def resolve(
    recipe: Path | None, preset: str | None, flags: dict[str, Any], source: Config | None = None
) -> Config:
    """The flags that were given, laid over the recipe's values, laid over those of the model that is gone on from."""
    values = read_recipe(recipe) if recipe else {}
    try:
        build(values)  # so that what is laid over it has a place
    except UsageError as error:
        raise UsageError(f"recipe {recipe}: {error}") from None
    if source:
        for section in ("model", "diffusion", "data", "training"):
            old = getattr(source, section).model_dump(
                mode="json", exclude={"precision"}
            )  # which suits a machine
            values[section] = old | values.get(section, {})
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
        values.setdefault("model", {})["features"] = PRESETS[preset]
    stages = values.setdefault("stages", [{}])
    for flag, value in flags.items():
        if value is None:
            continue
        section, field = flag.split("__")
        if section == "stages" and len(stages) > 1:
            raise UsageError(f"--{field} is not clear: {recipe} has {len(stages)} stages; change it there")
        place = stages[0] if section == "stages" else values.setdefault(section, {})
        place[field] = value.split(",") if field == "features" else value
    return build(values)


def train_command(config: Config, name: str) -> str:
    """The command that trains the same, for a training of one stage; its network is written out, --from or not."""
    words = ["photochrom", "train", "--name", name, *(["--from", config.source] if config.source else [])]
    for section, (_, model) in SECTIONS.items():
        values = config.stages[0] if section == "stages" else getattr(config, section)
        for field, info in model.model_fields.items():
            value = getattr(values, field)
            if f"{section}.{field}" in WITHOUT_FLAG or value == info.default:
                continue
            flag = RENAMED.get(f"{section}.{field}", field.replace("_", "-"))
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", _as_typed(flag, value)]
    return shlex.join(words)


def as_before(config: Config, folder: ModelFolder) -> Config:
    """The configuration with what --minutes chose when the training began."""
    old = folder.config
    data = config.data.model_copy(update={"photos_per_epoch": old.data.photos_per_epoch})
    stage = config.stages[0].model_copy(update={"epochs": old.stages[0].epochs})
    return config.model_copy(update={"data": data, "stages": (stage,)})


class Trial(NamedTuple):
    """What a few steps that are thrown away have told."""

    step_seconds: float
    photos: int  # in the training part
    epoch_end_seconds: float  # validation and files
    memory_mb: int

    def epoch_seconds(self, config: Config) -> float:
        """How long an epoch will take."""
        per_epoch = config.data.photos_per_epoch or self.photos
        return math.ceil(per_epoch / config.training.batch_size) * self.step_seconds + self.epoch_end_seconds


def try_out(config: Config, pack: DataSet, report: Report, seconds: float = 0.0) -> Trial:
    """Measure two training steps, or as many as fit into `seconds`, on a network that is thrown away.

    What the encoder sees is computed before, if it is to be kept.
    """
    from photochrom.train import Training, memory_mb

    trial = Training(config, pack)
    trial.keep_features(report, lambda: 0)
    trial.train_step()  # the first step allocates and warms up
    steps, begun = 0, time.perf_counter()
    while steps < 2 or processes.largest(time.perf_counter() - begun < seconds):
        trial.train_step()
        steps += 1
    step_seconds = (time.perf_counter() - begun) / steps
    begun = time.perf_counter()
    trial.validate()
    end = 1.15 * (time.perf_counter() - begun) + 1  # the files of an epoch, and now and then a sheet
    found = Trial(step_seconds, pack.count("train"), end, memory_mb(trial.device))
    return processes.from_first(lambda: found)


def fit_minutes(config: Config, pack: DataSet, minutes: float, report: Report) -> Config:
    """The configuration with as many epochs as fit into the time.

    Where less than ten passes over the photos fit, epochs are made shorter instead, so that there are ten to look at.
    """
    trial = try_out(config, pack, report, seconds=min(5.0, minutes))
    total = 60 * minutes
    if config.data.photos_per_epoch is None and total < 10 * trial.epoch_seconds(config):
        steps = max(1, round((total / 10 - trial.epoch_end_seconds) / trial.step_seconds))
        data = config.data.model_copy(update={"photos_per_epoch": steps * config.training.batch_size})
        config = config.model_copy(update={"data": data})
    epochs = max(1, round(total / trial.epoch_seconds(config)))
    return config.model_copy(update={"stages": (config.stages[0].model_copy(update={"epochs": epochs}),)})
