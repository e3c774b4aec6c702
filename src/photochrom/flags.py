"""Makes command-line flags from pydantic fields, those of `train` from config.py.

This module lists no flag. `resolve` turns the flags that the user gave into a configuration.
"""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from photochrom.config import (
    PRESETS,
    SECTIONS,
    Config,
    build,
    read_recipe,
)
from photochrom.errors import UsageError

if TYPE_CHECKING:
    from photochrom.model_folder import ModelFolder

WITHOUT_FLAG = {"data.size", "data.checksum", "stages.name"}
OF_ONE_MACHINE = ("precision", "vgg_weights")  # no other takes them over
LARGEST_ON_PROCESSOR, USUAL_ON_PROCESSOR = 64, 32  # photos in a batch
RENAMED = {"data.name": "data", "diffusion.zero_terminal_snr": "zero-snr"}


def with_config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**flags` of a command by a flag per field of the configuration.

    The parameters have names such as `training__seed`, and are None if the user does not give the flag.
    """
    flags = []
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            if f"{section}.{name}" not in WITHOUT_FLAG:
                typed = RENAMED.get(f"{section}.{name}", name.replace("_", "-"))
                switch = f"--{typed}/--no-{typed}"  # to override a recipe either way
                flags.append(
                    flag(
                        f"{section}__{name}",
                        typed,
                        field,
                        field.default,
                        section.removesuffix("s").capitalize(),
                        switch,
                    )
                )
    return with_flags(command, flags)


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user typed."""
    return {name: value for name, value in flags.items() if value is not None}


def with_flags(command: Callable[..., None], flags: list[inspect.Parameter]) -> Callable[..., None]:
    """Replace the `**flags` of a command by these parameters."""
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    command.__signature__ = inspect.Signature(own + flags)  # type: ignore[attr-defined]
    return command


def flag(
    parameter: str, typed: str, field: FieldInfo, default: Any, panel: str, switch: str
) -> inspect.Parameter:
    """The parameter of a command for a field. switch: its spelling if the field is a bool."""
    kind, metavar = field.annotation, None
    if kind == tuple[int, ...]:
        kind, metavar = str, "N,N,..."
    elif get_origin(kind) is Literal:  # the field itself refuses wrong words, like all wrong values
        words = get_args(kind)
        kind, metavar = type(words[0]), "|".join(map(str, words))
    elif Any in get_args(kind):  # a picture; on the command line, its file
        kind, metavar = Path, "FILE"
    option = typer.Option(
        switch if kind is bool else f"--{typed}",
        help=_help(typed, field, default),
        metavar=metavar,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],  # type: ignore[operator]
    )


def _help(typed: str, field: FieldInfo, default: Any) -> str:
    """A sentence with a field's description, limits and default."""
    text, facts = field.description or "", [words] if (words := limits(field)) else []
    if "(default" in text:
        text = text.replace("(default", f"({'; '.join([*facts, 'default'])}")
    else:
        facts += [f"default: {_as_typed(typed, default)}"] if default is not None else []
        text += f" ({'; '.join(facts)})" if facts else ""
    return f"{text[:1].upper()}{text[1:]}."


def limits(field: FieldInfo) -> str:
    """The range of a number in words, such as "1 to 64" or "above 0, at most 1"; empty without limits."""
    ends: dict[str, str] = {}
    for end in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if (number := getattr(end, name, None)) is not None:
                ends[name] = f"{number:g}" if number < 1e5 else f"{int(number):,}"
    if set(ends) == {"ge", "le"}:
        return f"{ends['ge']} to {ends['le']}"
    words = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    return ", ".join(words[name].format(number) for name, number in ends.items())


def _as_typed(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return name if default else f"no-{name}"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def inherited(source: Config) -> dict[str, dict[str, Any]]:
    """What a model that continues from another takes over from its configuration, by section.

    Without a GPU, a batch that is made for one becomes smaller, and the learning rate with it: Adam's goes
    with the root of the batch (Malladi et al. 2022). Epochs and sheets of samples are then the usual ones.
    """
    values = source.model_dump(mode="json", include={"model", "diffusion", "data", "training"})
    training, batch = values["training"], source.training.batch_size
    for field in OF_ONE_MACHINE:
        del training[field]
    if batch > LARGEST_ON_PROCESSOR:
        from photochrom.precision import device_for_training  # late, since it imports torch

        if device_for_training().type == "cpu":
            training["learning_rate"] *= math.sqrt(USUAL_ON_PROCESSOR / batch)
            training["batch_size"] = USUAL_ON_PROCESSOR
            del training["sample_every"], values["data"]["photos_per_epoch"]
    return values


def resolve(
    recipe: Path | None, preset: str | None, flags: dict[str, Any], source: Config | None = None
) -> Config:
    """Build a configuration. Flags override the preset, which overrides the recipe, which overrides `source`.

    source: the configuration of the model to continue from. Raises UsageError for a wrong value.
    """
    values = read_recipe(recipe) if recipe else {}
    try:
        build(values)  # checks the recipe by itself, before anything overrides it
    except UsageError as error:
        raise UsageError(f"recipe {recipe}: {error}") from None
    if source:
        for section, old in inherited(source).items():
            values[section] = old | values.get(section, {})
        name = given(flags).get("data__name", values["data"]["name"])
        if name != source.data.name and tuple(values["data"]["sides"]) == source.data.sides:
            del values["data"]["sides"]  # they suit the source's photos
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
        chosen = PRESETS[preset]
        values.setdefault("model", {})["features"] = chosen.features
        values.setdefault("training", {}).update(
            batch_size=chosen.batch_size, learning_rate=chosen.learning_rate
        )
    stages = values.setdefault("stages", [{}])
    for name, value in given(flags).items():
        section, field = name.split("__")
        if section == "stages" and len(stages) > 1:
            raise UsageError(f"--{field} is ambiguous: {recipe} has {len(stages)} stages; change it there")
        place = stages[0] if section == "stages" else values.setdefault(section, {})
        place[field] = value.split(",") if field in ("features", "sides") else value
    return build(values)


def train_command(config: Config, name: str, source: Config | None = None) -> str:
    """The command that repeats a training of one stage. It always spells out the network, with --from too.

    source: the configuration of the model to continue from, whose data and training are the defaults.
    """
    words = ["photochrom", "train", "--name", name, *(["--from", config.source] if config.source else [])]
    taken_over = inherited(source) if source else {}
    for section, model in SECTIONS.items():
        values = config.stages[0] if section == "stages" else getattr(config, section)
        for field, info in model.model_fields.items():
            value, unsaid = getattr(values, field), {info.default}
            if source and section in ("data", "training"):
                # With a GPU and without one, where these differ.
                taken = taken_over[section].get(field, info.default)
                unsaid = {
                    getattr(getattr(source, section), field),
                    tuple(taken) if isinstance(taken, list) else taken,
                }
                unsaid = {info.default} if field in OF_ONE_MACHINE else unsaid
            if f"{section}.{field}" in WITHOUT_FLAG or value in (None, ()) or {value} == unsaid:
                continue
            flag = RENAMED.get(f"{section}.{field}", field.replace("_", "-"))
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", _as_typed(flag, value)]
    return shlex.join(words)


def as_before(config: Config, folder: ModelFolder) -> Config:
    """The configuration with the epochs that --minutes chose when the training in `folder` began."""
    old = folder.config
    data = config.data.model_copy(update={"photos_per_epoch": old.data.photos_per_epoch})
    stage = config.stages[0].model_copy(update={"epochs": old.stages[0].epochs})
    return config.model_copy(update={"data": data, "stages": (stage,)})
