"""What stops a training before it begins. Each message names the value and the mend."""

from __future__ import annotations

from typing import Any

from photochrom import processes
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training.warm_start import CHANGEABLE, refuse_coarser

# Pixels of chroma; with fewer, nothing is left after the strides of these networks.
SMALLEST_FOR_VGG, SMALLEST_FOR_GAN = 8, 12


def refuse(config: Config, folder: ModelFolder, pack: DataSet, source: ModelFolder | None) -> None:
    """Raise PhotochromError if this configuration cannot train in this folder. Writes nothing."""
    refuse_data(config, pack)
    if folder.exists:
        as_started(config, folder)
    if not folder.has_checkpoint:
        refuse_teacher(config, source)
        if source:
            refuse_other_network(config, source)


def as_started(config: Config, folder: ModelFolder) -> Config:
    """The configuration with the first epoch and ancestors of the folder's training.

    Raises PhotochromError if that is a training with other settings.
    """
    old = folder.config
    config = config.model_copy(update={"first_epoch": old.first_epoch, "ancestors": old.ancestors})
    refuse_another(config, folder)
    return config


def refuse_data(config: Config, pack: DataSet) -> None:
    """Raise PhotochromError if these processes cannot train on these photos."""
    photos = pack.count("train")
    if not photos or not pack.count("validation"):
        missing = "validation" if photos else "training"
        raise PhotochromError(
            f"data set {pack.name!r} has no {missing} photos: import it again with more photos"
        )
    refuse_size(config, pack.size)
    for side in config.data.sides:
        if side % config.model.multiple:
            raise UsageError(
                f"--sides {side} does not fit the network: give multiples of {config.model.multiple}"
            )
        refuse_size(config, side)
    if max(config.data.sides, default=0) > pack.size:
        raise UsageError(
            f"--sides {max(config.data.sides)} is larger than the photos, which have {pack.size} pixels: "
            "leave it out, or import them larger (data import --size)"
        )
    batch_size, count = config.training.batch_size, processes.count()
    if batch_size < count:
        raise UsageError(
            f"a batch of {batch_size} has no photo for each of {count} processes: take a larger --batch-size"
        )


def refuse_size(config: Config, size: int) -> None:
    """Raise UsageError if photos of `size` pixels do not fit the network, or are too small for the losses."""
    if size % config.model.multiple:
        raise UsageError(
            f"photos of {size} pixels do not fit {len(config.model.features)} levels at chroma scale "
            f"{config.model.chroma_scale}: import them at a multiple of {config.model.multiple} pixels "
            f"(data import --size), or take fewer features"
        )
    side = size // config.model.chroma_scale
    for stage in config.stages:
        needed = SMALLEST_FOR_GAN if stage.use_gan else SMALLEST_FOR_VGG if stage.perceptual else 1
        if side < needed:
            raise UsageError(
                f"stage {stage.label} needs at least {needed} pixels of chroma, these photos have {side}: "
                f"import them larger (data import --size), or leave out "
                f"{'--gan' if stage.use_gan else '--perceptual'}"
            )


def refuse_another(config: Config, folder: ModelFolder) -> None:
    """Raise PhotochromError, showing the differences, if the folder was trained with other settings.

    Two runs of one training may differ in the epochs of the last stage, patience, the interval of sample
    sheets, the number of parts of a batch, precision, and in whether features are kept.
    """

    def comparable(config: Config) -> dict[str, Any]:
        values = config.model_dump(mode="json")
        for key in ("patience", "sample_every", "accumulate", "precision"):
            del values["training"][key]
        del values["data"]["keep_features"], values["ancestors"]
        if values["data"]["checksum"]:
            del values["data"]["name"]  # the same photos may lie elsewhere now
        found = {key: values.pop(key) for key in ("source", "first_epoch", "mean_of")}
        values["stages"][-1]["epochs"] = None
        stages = {f"stages.{n}": stage for n, stage in enumerate(values.pop("stages"))}
        for part, fields in {**values, **stages}.items():
            found |= {f"{part}.{key}": value for key, value in fields.items()}
        return found

    old, new = comparable(folder.config), comparable(config)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if keys:
        differences = "; ".join(f"{key} = {old.get(key)}, not {new.get(key)}" for key in keys[:5])
        more = f"; and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise PhotochromError(
            f"{folder.path} holds a training with {differences}{more}: give another --name, the same "
            "settings to go on, or --overwrite to start again"
        )


def refuse_other_network(config: Config, source: ModelFolder) -> None:
    """Raise UsageError if the source's network or noise differs in other ways than `warm_start` can fit."""
    refuse_coarser(source.name, source.config.model, config.model)
    for part in ("model", "diffusion"):
        old, new = getattr(source.config, part).model_dump(), getattr(config, part).model_dump()
        for key in old:
            if old[key] != new[key] and key not in CHANGEABLE:
                raise UsageError(
                    f"{source.name} has {key} = {old[key]}, not {new[key]}: leave that setting out"
                )


def refuse_teacher(config: Config, source: ModelFolder | None) -> None:
    """Raise UsageError if the first stage distils without a teacher, or with one that cannot be guided."""
    stage = config.stages[0]
    if stage.distill and source is None:
        raise UsageError(
            f"--distill {stage.distill} makes a trained model faster: add --from MODEL, or a stage before"
        )
    if source and stage.distill and config.taught_guidance(stage) != 1 and not source.config.can_be_guided:
        how = "was distilled" if source.config.stages[-1].distill else "was trained with encoder_dropout = 0"
        raise UsageError(f"{source.name} {how}, so guidance cannot lead it as a teacher: give --guidance 1")
