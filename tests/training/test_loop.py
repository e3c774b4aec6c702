"""Training: interrupted or not it ends the same, it learns, and nothing that goes wrong costs what was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.randomness import photos_of_step, random_for, stratified_steps
from photochrom.training.loop import Progress, train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import validate

Values = dict[str, Any]


def signal_at(*steps: int) -> Callable[[], int]:
    """A `signal_received` that says SIGTERM when it is asked for these times, counted from 1."""
    calls = iter(range(1, 10**9))
    return lambda: 15 if next(calls) in steps else 0


def losses(folder: ModelFolder) -> list[Values]:
    """The history without what the clock says."""
    clock = {"seconds", "photos_per_second", "memory_mb"}
    return [{key: value for key, value in record.items() if key not in clock} for record in folder.history]


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


# --- Going on ---------------------------------------------------------------------------------------------------------


def long(values: Values) -> Config:
    """Four epochs of three steps, with all that is drawn at random."""
    values["model"]["dropout"] = 0.2
    values["stages"][0]["epochs"] = 4
    return build(values)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values]
) -> ModelFolder:
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "straight")
    train(long(new_values()), folder, pack)
    return folder


@pytest.mark.parametrize(
    "stops",
    [[6], [4], [2, 5], [1] * 11],
    ids=["after-epoch-2", "within-epoch-2", "twice", "after-every-step"],
)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    stops: list[int], uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = long(values), ModelFolder(tmp_path / "interrupted")
    for count in stops:
        torch.manual_seed(count)  # whatever state a new process finds
        with pytest.raises(Interrupted, match="all saved; the same command goes on from here") as caught:
            train(config, folder, pack, signal_received=signal_at(count))
        assert caught.value.signal_number == 15
        assert len(folder.history) < 4
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)
    assert len(folder.history) == 4


def test_a_training_that_was_killed_goes_on_from_its_last_epoch(
    uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = long(values), ModelFolder(tmp_path / "killed")

    def power_cut(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (3, 2):
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, folder, pack, power_cut)
    assert len(folder.history) == 2
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)


def test_what_another_trainer_ended_while_this_one_began_is_left_alone(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = ModelFolder(tmp_path / "model"), list[Progress]()
    locked = ModelFolder.locked

    def after_the_other(self: ModelFolder) -> AbstractContextManager[None]:
        with monkeypatch.context() as patch:
            patch.setattr(ModelFolder, "locked", locked)
            train(build(values), folder, pack)
        return locked(self)

    monkeypatch.setattr(ModelFolder, "locked", after_the_other)
    train(build(values), folder, pack, seen.append)
    assert seen == []
    assert len(folder.history) == 2


def test_a_finished_training_is_left_alone(uninterrupted: ModelFolder, pack: Pack, values: Values) -> None:
    config = long(values)
    before = (uninterrupted / model_folder.LAST).read_bytes()
    seen: list[Progress] = []
    train(config, uninterrupted, pack, seen.append)
    assert seen == []
    assert (uninterrupted / model_folder.LAST).read_bytes() == before


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("training.learning_rate", 1e-3),
        ("training.seed", 1),
        ("training.batch_size", 4),
        ("model.features", (16, 16)),
        ("diffusion.schedule", "linear"),
        ("data.flip", False),
    ],
)
def test_other_settings_on_resume_are_refused_by_name(
    key: str, new: Any, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    section, field = key.split(".")
    values[section][field] = new
    with pytest.raises(PhotochromError, match=rf"model holds a training with {key} = .*--overwrite"):
        train(build(values), folder, pack)
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_all_differences_are_shown(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    values["training"] |= {"seed": 1, "batch_size": 4}
    said = r"with training\.batch_size = 8, not 4; training\.seed = 0, not 1: give another"
    with pytest.raises(PhotochromError, match=said):
        train(build(values), folder, pack)
    values["training"] |= {
        "weight_decay": 0.5,
        "clip": 2,
        "ema_decay": 0.5,
        "warmup_steps": 7,
        "learning_rate": 1,
    }
    with pytest.raises(PhotochromError, match=r"; and 2 more: give another"):
        train(build(values), folder, pack)


def test_another_data_set_on_resume_is_refused(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    with pytest.raises(PhotochromError, match=rf"data\.checksum = {pack.checksum}, not 0123"):
        train(build(values), folder, replace(pack, checksum="0123"))


def test_more_epochs_and_other_patience_are_not_another_training(
    pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "model")
    train(build(values), folder, pack)
    values["stages"][0]["epochs"] = 3
    values["training"] |= {"patience": 50, "sample_every": 1}
    train(build(values), folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2, 3]
    assert folder.config.stages[0].epochs == 3


# --- Learning ---------------------------------------------------------------------------------------------------------


def test_it_learns(sepia_pack: Pack, values: Values) -> None:
    values["training"]["learning_rate"] = 2e-2
    values["data"] = {"photos_per_epoch": 800}
    training = Training(build(values), sepia_pack)
    untrained = validate(training)["noise"]
    found = [train_step(training)["noise"] for _ in range(120)]
    assert np.mean(found[-10:]) < found[0] / 5
    assert validate(training)["noise"] < untrained / 5


def test_an_untrained_network_loses_the_targets_own_size(pack: Pack, values: Values) -> None:
    """It answers 0, so the first noise loss is the mean square of v over the batch."""
    training = Training(build(values), pack)
    generator = random_for(0, 1, 0)
    _, x0, _ = training.inputs.of(
        training.pack.photos_of_step(0, 0, 8), torch.rand(8, generator=generator) < 0.5
    )
    t = stratified_steps(8, 50, generator)
    v = training.diffusion.target(x0, torch.randn(x0.shape, generator=generator), t)
    assert train_step(training)["noise"] == pytest.approx(v.square().mean().item(), rel=1e-5)


def test_validation_repeats(pack: Pack, values: Values) -> None:
    training, another = Training(build(values), pack), Training(build(values), pack)
    first = validate(training)
    torch.manual_seed(5)
    assert validate(training) == first
    assert validate(another) == first
    for _ in range(3):
        train_step(training)
    assert validate(training) != first


def test_validation_judges_the_averaged_weights(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    before = validate(training)
    for weight in training.network.parameters():
        torch.nn.init.normal_(weight)
    assert validate(training) == before


def test_averaged_weights_follow_the_formula(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    expected: list[Tensor] = []
    for n in range(6):
        train_step(training)
        weights = [weight.detach().clone() for weight in training.network.parameters()]
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        expected = [
            decay * old + (1 - decay) * new for old, new in zip(expected or weights, weights, strict=True)
        ]
    for found, wanted in zip(training.averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_mirrored_photos(pack: Pack, values: Values) -> None:
    training = Training(build(values), pack)
    y, c, _ = training.inputs.of(np.array([3, 4]), torch.tensor([False, True]))
    plain_y, plain_c = color.from_rgb(pack.rgb([3, 4]), 2)
    torch.testing.assert_close(y, torch.stack([plain_y[0], plain_y[1].flip(-1)]))
    torch.testing.assert_close(c, torch.stack([plain_c[0], plain_c[1].flip(-1)]))


def test_early_stopping(pack: Pack, values: Values, tmp_path: Path) -> None:
    """A learning rate that moves nothing: the first epoch stays the best, and two more are waited for."""
    values["training"] |= {"learning_rate": 1e-30, "patience": 2}
    values["stages"][0]["epochs"] = 10
    folder = ModelFolder(tmp_path / "model")
    train(build(values), folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2, 3]
    assert model_folder.read_checkpoint(folder / model_folder.BEST)["epoch"] == 1
    assert (folder / "samples" / "epoch_0003.png").exists()
    train(build(values), folder, pack)  # and the same command does not go on
    assert len(folder.history) == 3


# --- Functions of (seed, step) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 7, 32])
def test_every_photo_is_seen_once_per_pass(batch_size: int) -> None:
    photos = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    steps = [photos_of_step(photos, 0, step, batch_size) for step in range(100)]
    assert all(len(step) == batch_size for step in steps)
    row = np.concatenate(steps)
    passes = row[: len(row) // 10 * 10].reshape(-1, 10)
    assert (np.sort(passes) == photos).all()
    assert len({tuple(one) for one in passes}) == len(passes)  # each in another order


def test_photos_are_a_function_of_seed_and_step() -> None:
    photos = np.arange(100)
    np.testing.assert_array_equal(photos_of_step(photos, 3, 40, 16), photos_of_step(photos, 3, 40, 16))
    assert (photos_of_step(photos, 3, 40, 16) != photos_of_step(photos, 4, 40, 16)).any()
    assert (photos_of_step(photos, 3, 40, 16) != photos_of_step(photos, 3, 41, 16)).any()


def test_random_for_is_a_function_of_its_key() -> None:
    def draw(*key: int) -> Tensor:
        return torch.randn(4, generator=random_for(*key))

    assert torch.equal(draw(0, 1, 2), draw(0, 1, 2))
    keys = [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 1), (0, 12)]
    assert len({tuple(draw(*key).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("count", [1, 7, 16, 50, 64])
def test_time_steps_are_one_in_each_part(count: int) -> None:
    seen = []
    for seed in range(200):
        t = stratified_steps(count, 50, random_for(seed))
        assert t.dtype == torch.int64
        part = torch.arange(count) * 50 / count
        ordered = t.sort().values
        assert (ordered >= part.floor()).all()
        assert (ordered <= (part + 50 / count).ceil() - 1).all()
        seen.append(t)
    assert len(set(torch.cat(seen).tolist())) > 45
    assert count == 1 or any((step.diff() < 0).any() for step in seen)  # in random order


# --- The folder -------------------------------------------------------------------------------------------------------


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (Tensor, bool, int, float, str)


def test_the_folder_holds_what_the_design_says(pack: Pack, values: Values, tmp_path: Path) -> None:
    trained, seen = ModelFolder(tmp_path / "model_v1"), list[Progress]()
    train(build(values), trained, pack, seen.append)

    there = {path.relative_to(trained.path).as_posix() for path in trained.path.rglob("*") if path.is_file()}
    expected = {
        model_folder.CONFIG,
        model_folder.BEST,
        model_folder.LAST,
        model_folder.HISTORY,
        model_folder.CURVE,
        model_folder.WEIGHTS,
        model_folder.CARD,
    }
    assert there - {".lock"} == expected | {"samples/epoch_0002.png"}

    checkpoint = torch.load(trained / model_folder.BEST, weights_only=True)
    assert plain(checkpoint)
    assert checkpoint.keys() >= {
        *("epoch", "model_state_dict", "ema_state_dict", "optimizer_state_dict", "loss_state_dict"),
        *("train_loss", "val_loss", "best_val_loss", "config"),
    }
    assert checkpoint["loss_state_dict"] == {
        "mse_weight": 1.0,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
        "use_gan": False,
        "discriminator_state_dict": None,
        "discriminator_optimizer_state_dict": None,
    }

    history = trained.history
    best = min(history, key=lambda record: record["val_loss"])
    assert checkpoint["epoch"] == best["epoch"]
    assert checkpoint["best_val_loss"] == checkpoint["val_loss"] == best["val_loss"]
    assert checkpoint["train_loss"] == best["train_loss"]
    assert build(checkpoint["config"]) == trained.config
    shared, weights = model_folder.read_weights(trained / model_folder.WEIGHTS)
    assert shared == trained.config
    for key, value in weights.items():
        torch.testing.assert_close(value, checkpoint["ema_state_dict"][key], atol=1e-4, rtol=1e-3)

    assert trained.config.data.checksum == pack.checksum
    assert trained.config.data.size == 16
    assert [record["epoch"] for record in history] == [1, 2]
    assert [record["photos"] for record in history] == [24, 24]
    assert {record["stage"] for record in history} == {"v1"}
    with (
        Image.open(trained / "samples" / "epoch_0002.png") as sheet,
        Image.open(trained / model_folder.CURVE) as curve,
    ):
        assert sheet.width > 600
        assert curve.width > 600
    assert "photochrom colorize" in (trained / model_folder.CARD).read_text(encoding="utf-8")

    steps = [(one.epoch, one.step) for one in seen if not one.record]
    assert steps == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert [one.record for one in seen if one.record] == history
    assert seen[-1].seconds_left == 0
    assert all(one.photos_per_second > 0 and one.steps == 3 and one.epochs == 2 for one in seen)


def test_sheets_come_every_few_epochs_and_at_the_end(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["training"]["sample_every"] = 2
    values["stages"][0]["epochs"] = 5
    train(build(values), ModelFolder(tmp_path / "model"), pack)
    sheets = sorted(path.name for path in (tmp_path / "model" / "samples").iterdir())
    assert sheets == ["epoch_0002.png", "epoch_0004.png", "epoch_0005.png"]


def test_photos_per_epoch(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["data"] = {"photos_per_epoch": 10}
    train(build(values), ModelFolder(tmp_path / "model"), pack)
    assert [record["photos"] for record in ModelFolder(tmp_path / "model").history] == [
        16,
        16,
    ]  # whole batches


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missing", "word"), [("validation", "validation"), ("train", "training")])
def test_a_missing_part_is_told(missing: str, word: str, pack: Pack, values: Values, tmp_path: Path) -> None:
    split = np.where(pack.split == missing, "test", pack.split)
    with pytest.raises(PhotochromError, match=f"'tiny' has no {word} photos; import it again"):
        train(build(values), ModelFolder(tmp_path / "model"), replace(pack, split=split))
    assert not (tmp_path / "model").exists()


def test_photos_too_small_for_the_depth_are_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["model"]["features"] = (8, 8, 8, 8, 8)
    with pytest.raises(
        UsageError, match=r"photos of 16 pixels .* 5 levels .* multiple of 32 .*fewer features"
    ):
        train(build(values), ModelFolder(tmp_path / "model"), pack)
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_a_number_costs_nothing(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(4))
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    real = Pack.rgb
    with monkeypatch.context() as patched:
        patched.setattr(Pack, "rgb", lambda self, indices: real(self, indices) * float("nan"))
        with pytest.raises(PhotochromError, match=r"^step \d: .*not finite.* a lower --learning-rate$"):
            train(build(values), folder, pack)
    assert {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
    train(build(values), folder, pack)
    assert len(folder.history) == 2


def test_a_checkpoint_of_another_network_is_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(build(values), folder, pack, signal_received=signal_at(1))
    checkpoint = model_folder.read_checkpoint(folder / model_folder.LAST)
    checkpoint["model_state_dict"]["stem.weight"] = torch.zeros(8, 6, 5, 5)
    folder.save_checkpoint(model_folder.LAST, checkpoint)
    message = r"last_model\.pth: 'stem\.weight' has shape \(8, 6, 5, 5\), this network expects \(8, 6, 3, 3\)"
    with pytest.raises(PhotochromError, match=message):
        train(build(values), folder, pack)
