"""From the flags of `train` to a configuration: every field of config.py is a flag, and no flag is listed here."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    from photochrom.model_folder import ModelFolder

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
    """The flags that were given, laid over the preset's values, the recipe's, and those of the model that is gone on from."""
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
        chosen = PRESETS[preset]
        values.setdefault("model", {})["features"] = chosen.features
        values.setdefault("training", {}).update(
            batch_size=chosen.batch_size, learning_rate=chosen.learning_rate
        )
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


def train_command(config: Config, name: str, source: Config | None = None) -> str:
    """The command that trains the same, for a training of one stage; its network is written out, --from or not.

    source: of the model that is gone on from, whose data and training are what they are where nothing is said.
    """
    words = ["photochrom", "train", "--name", name, *(["--from", config.source] if config.source else [])]
    for section, (_, model) in SECTIONS.items():
        values = config.stages[0] if section == "stages" else getattr(config, section)
        for field, info in model.model_fields.items():
            value, unsaid = getattr(values, field), info.default
            if source and section in ("data", "training") and field != "precision":
                unsaid = getattr(getattr(source, section), field)
            if f"{section}.{field}" in WITHOUT_FLAG or value in (unsaid, None):
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
