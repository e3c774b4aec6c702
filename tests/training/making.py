"""What tests of training share: how to make configurations, folders and batches, and compare trainings."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from photochrom import model_folder
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.randomness import random_for, stratified_steps
from photochrom.training.losses import StageLoss
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training

Values = dict[str, Any]
CPU = torch.device("cpu")
V1 = {"epochs": 1, "perceptual": 0.0}
V2 = {"epochs": 1, "perceptual": 0.1}
GAN = {"epochs": 2, "perceptual": 0.1, "gan": True, "gan_delay": 2}


def signal_at(*steps: int) -> Callable[[], int]:
    """A `signal_received` that says SIGTERM when it is asked for these times, counted from 1."""
    calls = iter(range(1, 10**9))
    return lambda: 15 if next(calls) in steps else 0


def losses(folder: ModelFolder) -> list[Values]:
    """The history without what depends on the machine: its clock, its memory, who did the work."""
    machine = {"seconds", "photos_per_second", "memory_mb", "parts", "workers", "threads"}
    return [{key: value for key, value in record.items() if key not in machine} for record in folder.history]


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside nested dicts and lists, by its path."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from tensors(inner, f"{path}/{index}")


def assert_same_training(found: ModelFolder, expected: ModelFolder) -> None:
    for file in (model_folder.LAST, model_folder.BEST):
        theirs, ours = (
            dict(tensors(model_folder.read_checkpoint(folder / file))) for folder in (expected, found)
        )
        assert ours.keys() == theirs.keys()
        assert [path for path in theirs if not torch.equal(ours[path], theirs[path])] == []
    assert losses(found) == losses(expected)
    _, theirs = model_folder.read_weights(expected / model_folder.WEIGHTS)
    _, ours = model_folder.read_weights(found / model_folder.WEIGHTS)
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def staged(values: Values, *stages: Values) -> Config:
    """Stages of three steps an epoch, with chroma as large as luma: 16 pixels, as the discriminator needs."""
    model = values["model"] | {"chroma_scale": 1, "dropout": 0.2}
    return build({**values, "model": model, "stages": list(stages)})


def last(folder: ModelFolder) -> dict[str, Any]:
    return model_folder.read_checkpoint(folder / model_folder.LAST)


def hashes(folder: ModelFolder) -> dict[str, str]:
    """Every file of a folder, by what is in it."""
    files = (path for path in folder.path.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_equal(found: Any, expected: Any, path: str = "") -> None:
    """Nested dicts and lists are the same, tensors bit for bit."""
    assert type(found) is type(expected), path
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected), path
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_equal(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_equal(*pair, f"{path}/{index}")
    else:
        assert found == expected, path


def with_stage(values: Values, **stage: Any) -> Config:
    """Chroma as large as luma (16 pixels, for the discriminator's sake), and one stage."""
    values["model"]["chroma_scale"] = stage.pop("chroma_scale", 1)
    values["diffusion"]["prediction"] = stage.pop("prediction", "v")
    return build({**values, "stages": [stage]})


def stage_loss(config: Config) -> StageLoss:
    return StageLoss(config.stages[0], config, CPU)


def noisy(pack: Pack, config: Config, t: list[int] | None = None) -> Noisy:
    """Eight photos of the data set, at eight time steps."""
    y, x0 = color.from_rgb(pack.rgb(range(8)), config.model.chroma_scale)
    generator = random_for(7)
    steps = torch.tensor(t) if t else stratified_steps(8, config.diffusion.timesteps, generator)
    eps = torch.randn(x0.shape, generator=generator)
    return Noisy(y, x0, eps, steps, Diffusion(config.diffusion).add_noise(x0, eps, steps))


def network_of(config: Config) -> UNet:
    """An untrained network, except that its last layer is not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(config.model)
        torch.nn.init.normal_(network.last_layer, std=0.05)
    return network


def frozen(training: Training) -> dict[str, Any]:
    """All that a checkpoint holds, except counters, and what spectral norm remembers of each pass."""
    state: dict[str, Any] = copy.deepcopy(training.state())
    kept = ("model_state_dict", "ema_state_dict", "ema_updates", "optimizer_state_dict", "loss_state_dict")
    found = {key: state[key] for key in (*kept, "sums", "step_in_epoch")}
    discriminator = found["loss_state_dict"]["discriminator_state_dict"]
    for key in [key for key in discriminator or () if key.endswith(("._u", "._v"))]:
        del discriminator[key]
    return found


def distilling(values: Values, epochs: int = 3) -> Values:
    """One stage in which a student learns to take two steps."""
    return {**values, "stages": [{"epochs": epochs, "distill": 2}]}
