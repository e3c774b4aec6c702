"""The mean of several models' weights, as one more model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photochrom import files, model_folder, pictures
from photochrom.config import Config
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.card import write_card
from photochrom.model_folder import ModelFolder


def mean_model(models: Sequence[ModelFolder], into: ModelFolder) -> None:
    """Write a model whose weights are the mean of those of `models`.

    Where trainings went on from one another, or from one model, the mean is often better than each (Wortsman
    et al. 2022, "Model soups", the uniform soup). Configuration and history are those of the last.

    Raises UsageError for fewer than two models and for those that do not fit together, PhotochromError if
    `into` exists or a model cannot be read.
    """
    if len(models) < 2:
        raise UsageError("a mean needs two models or more: name another")
    if into.exists:
        raise PhotochromError(f"{into.path} exists: choose another --name")
    last = models[-1]
    for each in models[:-1]:
        refuse_unlike(each, last)
    read = [weights_of(each, last.config) for each in models]
    mean = {name: torch.stack([tensors[name] for tensors in read]).mean(0) for name in read[-1]}
    learnt = [
        data for each in reversed(models) for data in model_folder.learnt_from(each.config, each.path.parent)
    ]
    _, *others = dict.fromkeys(learnt)  # the first is the configuration's own
    config = last.config.model_copy(
        update={"mean_of": tuple(each.name for each in models), "ancestors": tuple(others)}
    )
    with into.locked():
        files.write_json(into / model_folder.CONFIG, config.model_dump(mode="json"))
        into.save_weights(mean, config)
        if last.history:
            files.write_json(into / model_folder.HISTORY, last.history)
            files.write_bytes(into / model_folder.CURVE, pictures.loss_curve(last.history))
        write_card(into)


def weights_of(model: ModelFolder, config: Config) -> dict[str, Tensor]:
    """A model's weights. Raises PhotochromError if they are not those of the network in `config`."""
    path = model / model_folder.WEIGHTS
    _, tensors = model_folder.read_weights(path)
    return UNet.load(config.model, tensors, path).state_dict()


def refuse_unlike(one: ModelFolder, other: ModelFolder) -> None:
    """Raise UsageError if two models have different networks, noise, or numbers of steps."""
    for part in ("model", "diffusion", "steps"):
        if getattr(one.config, part) != getattr(other.config, part):
            raise UsageError(
                f"{one.name} and {other.name} have no mean: they differ in {part} (photochrom models show)"
            )
