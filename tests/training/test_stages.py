"""Training in stages: going on across their border and from another model, and what is noticed on the way."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photochrom import model_folder, pictures
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training import loop
from photochrom.training.diagnosis import faults
from photochrom.training.loop import Progress, train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import end_epoch
from tests.training.test_loop import assert_same_training, losses, signal_at

Values = dict[str, Any]
V1 = {"epochs": 1, "perceptual": 0.0}
V2 = {"epochs": 1, "perceptual": 0.1}
GAN = {"epochs": 2, "perceptual": 0.1, "gan": True, "gan_delay": 2}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """All stages share one VGG16, so that its weights are read once; and no curves are drawn."""
    vgg = VGG16.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", lambda weights=None: vgg)
        patch.setattr(pictures, "loss_curve", lambda history: b"")
        yield


def staged(values: Values, *stages: Values) -> Config:
    """Stages of three steps an epoch, with chroma as large as luma: 16 pixels, for the discriminator's sake."""
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


# --- Stages of one training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values]
) -> ModelFolder:
    """One epoch of V1, two with perceptual loss and discriminator; nine steps."""
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "two-stages")
    train(staged(new_values(), V1, GAN), folder, pack)
    return folder


def test_the_history_shows_every_term_of_each_stage(uninterrupted: ModelFolder) -> None:
    first, second, third = uninterrupted.history
    assert [record["stage"] for record in (first, second, third)] == ["v1", "v2", "v2"]
    assert first["weights"] == {"noise": 1.0, "perceptual": 0.0, "adversarial": 0.0}
    assert second["weights"] == third["weights"] == {"noise": 1.0, "perceptual": 0.1, "adversarial": 0.01}
    later = {
        *("perceptual", "weighted_perceptual", "gradient_ratio", "adversarial", "weighted_adversarial"),
        *("discriminator", "accuracy_true", "accuracy_coloured", "val_perceptual"),
    }
    assert not later & first.keys()
    assert later <= second.keys()
    assert second.keys() <= third.keys() | {"spread", "colorfulness"}
    for record in (first, second, third):
        assert record["weighted_noise"] == pytest.approx(record["noise"])
    for record in (second, third):
        assert record["weighted_perceptual"] == pytest.approx(0.1 * record["perceptual"])
        assert record["val_loss"] == pytest.approx(record["val_noise"] + 0.1 * record["val_perceptual"])
        assert record["gradient_ratio"] > 0
        assert 0 <= record["accuracy_true"] <= 1 >= record["accuracy_coloured"] >= 0
    assert third["train_loss"] == pytest.approx(
        sum(third[f"weighted_{name}"] for name in ("noise", "perceptual", "adversarial"))
    )
    assert third["colorfulness"].keys() == third["spread"].keys() == {"samples", "data"}


def test_each_stage_has_its_own_best_model_and_learning_rate(uninterrupted: ModelFolder, pack: Pack) -> None:
    history = uninterrupted.history
    best = model_folder.read_checkpoint(uninterrupted / model_folder.BEST)
    assert best["val_loss"] == best["best_val_loss"] == min(record["val_loss"] for record in history[1:])
    assert best["epoch"] > 1
    rates = [record["learning_rate"] for record in history]
    assert rates[0] == pytest.approx(3e-3 * 0.5 * (1 + math.cos(math.pi * 2 / 3)))  # the last step of three
    assert rates[1:] == pytest.approx([3e-3 * 0.5 * (1 + math.cos(math.pi * n / 6)) for n in (2, 5)])


def test_checkpoints_of_all_stages_have_the_same_keys(
    uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder = ModelFolder(tmp_path / "v1")
    train(staged(values, V1), folder, pack)
    v1, v2 = last(folder), last(uninterrupted)
    assert v1.keys() == v2.keys()
    assert v1["loss_state_dict"].keys() == v2["loss_state_dict"].keys()
    weights = ("mse_weight", "perceptual_weight", "adversarial_weight", "use_gan")
    assert [v1["loss_state_dict"][key] for key in weights] == [1.0, 0.0, 0.0, False]
    assert [v2["loss_state_dict"][key] for key in weights] == [1.0, 0.1, 0.01, True]
    assert v1["loss_state_dict"]["discriminator_state_dict"] is None
    assert v1["loss_state_dict"]["discriminator_optimizer_state_dict"] is None
    discriminator = v2["loss_state_dict"]["discriminator_state_dict"]
    assert sum(key.endswith(("._u", "._v")) for key in discriminator) == 8  # of spectral norm, two a layer


@pytest.mark.parametrize(
    "stops",
    [[3], [4], [7], [1] * 8],
    ids=["before-stage-2", "in-the-delay", "with-gan", "after-every-step"],
)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    stops: list[int], uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config, folder = staged(values, V1, GAN), ModelFolder(tmp_path / "interrupted")
    for count in stops:
        torch.manual_seed(count)  # whatever state a new process finds
        with pytest.raises(Interrupted):
            train(config, folder, pack, signal_received=signal_at(count))
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)
    ours, theirs = last(folder), last(uninterrupted)
    for key in ("loss_state_dict", "optimizer_state_dict", "ema_updates", "step", "best_val_loss"):
        assert_equal(ours[key], theirs[key], key)


@pytest.mark.parametrize(
    "stop", [(1, True), (2, True), (3, False)], ids=["border", "in-stage-2", "in-epoch-3"]
)
def test_a_training_that_was_killed_ends_there_too(
    stop: tuple[int, bool], uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    """At the border the checkpoint is still that of the stage before."""
    config, folder = staged(values, V1, GAN), ModelFolder(tmp_path / "killed")

    def power_cut(progress: Progress) -> None:
        if (progress.epoch, bool(progress.record)) == stop:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, folder, pack, power_cut)
    train(config, folder, pack)
    assert_same_training(folder, uninterrupted)


def test_the_discriminator_goes_on_into_the_next_stage(pack: Pack, values: Values) -> None:
    training = Training(
        staged(values, {**GAN, "epochs": 1, "perceptual": 0.0}, {**GAN, "perceptual": 0.0}), pack
    )
    for _ in range(3):
        train_step(training)
    training.seconds = 1.0  # which `run_epoch` counts
    end_epoch(training)
    before = copy.deepcopy(training.losses.state())
    training.begin_stage(training.losses.state())
    assert training.stage is training.config.stages[1]
    assert_equal(training.losses.state(), before)


# --- Going on from another model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_v1(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack, new_values: Callable[[], Values]
) -> ModelFolder:
    """Two epochs of V1."""
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "model_v1")
    train(staged(new_values(), {**V1, "epochs": 2}), folder, pack)
    return folder


def at_first_step(
    config: Config, folder: ModelFolder, pack: Pack, source: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What a training holds when its first step begins."""
    seen: list[dict[str, Any]] = []

    def step(training: Training) -> dict[str, float]:
        seen.append(copy.deepcopy(training.state()))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(SystemExit):
            train(config, folder, pack, source=source)
    return seen[0]


def test_a_model_goes_on_where_its_source_stood(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, old = staged(values, V2), last(model_v1)
    new = at_first_step(config, ModelFolder(tmp_path / "v2"), pack, model_v1, monkeypatch)
    carried = ("epoch", "step", "model_state_dict", "ema_state_dict", "ema_updates", "history")
    for key in (*carried, "optimizer_state_dict"):
        assert_equal(new[key], old[key], key)
    assert new["epoch"] == 2
    assert new["step"] == old["optimizer_state_dict"]["state"][0]["step"] == 6
    assert new["best_val_loss"] == math.inf  # V2's losses are other losses
    assert new["loss_state_dict"]["perceptual_weight"] == 0.1


def test_the_history_shows_where_the_stage_began_and_the_source_stays_as_it_was(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    folder, before = ModelFolder(tmp_path / "model_v2"), hashes(model_v1)
    assert before
    train(staged(values, {**V2, "epochs": 2}), folder, pack, source=model_v1)
    assert hashes(model_v1) == before
    assert folder.config.source == "model_v1"
    assert folder.config.first_epoch == 2
    assert [(record["epoch"], record["stage"]) for record in folder.history] == [
        *((1, "v1"), (2, "v1")),
        *((3, "v2"), (4, "v2")),
    ]
    assert folder.history[:2] == model_v1.history
    assert model_folder.read_checkpoint(folder / model_folder.BEST)["epoch"] > 2
    assert last(folder)["step"] == 12
    train(staged(values, {**V2, "epochs": 2}), folder, pack, source=model_v1)  # finished, and left alone
    assert len(folder.history) == 4


def test_a_source_that_was_stopped_within_an_epoch(pack: Pack, values: Values, tmp_path: Path) -> None:
    """What it had of that epoch is kept in the weights, and the new model's first epoch is a whole one."""
    source, folder = ModelFolder(tmp_path / "model_v1"), ModelFolder(tmp_path / "model_v2")
    with pytest.raises(Interrupted):
        train(staged(values, {**V1, "epochs": 3}), source, pack, signal_received=signal_at(5))
    train(staged(values, {**V1, "name": "more"}), folder, pack, source=source)
    assert [(record["epoch"], record["photos"]) for record in folder.history] == [(1, 24), (2, 24)]
    assert last(folder)["step"] == 8


def test_an_interrupted_model_goes_on_without_its_source_being_read_again(
    model_v1: ModelFolder, pack: Pack, values: Values, tmp_path: Path
) -> None:
    config = staged(values, {**GAN, "perceptual": 0.0})
    straight, stopped = ModelFolder(tmp_path / "straight"), ModelFolder(tmp_path / "stopped")
    train(config, straight, pack, source=model_v1)
    with pytest.raises(Interrupted):
        train(config, stopped, pack, signal_received=signal_at(2), source=model_v1)
    gone = ModelFolder(tmp_path / "gone" / "model_v1")
    with pytest.raises(Interrupted):
        train(config, stopped, pack, signal_received=signal_at(2), source=gone)
    train(stopped.config, stopped, pack)  # its own settings say where it comes from
    assert_same_training(stopped, straight)


def test_v2_on_v2_carries_the_discriminator(
    uninterrupted: ModelFolder,
    model_v1: ModelFolder,
    pack: Pack,
    values: Values,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = staged(values, {**GAN, "adversarial": 0.02})
    from_v1 = at_first_step(config, ModelFolder(tmp_path / "a"), pack, model_v1, monkeypatch)
    from_v2 = at_first_step(config, ModelFolder(tmp_path / "b"), pack, uninterrupted, monkeypatch)
    old, new = last(uninterrupted)["loss_state_dict"], from_v2["loss_state_dict"]
    assert new["adversarial_weight"] == 0.02
    for key in ("discriminator_state_dict", "discriminator_optimizer_state_dict"):
        assert_equal(new[key], old[key], key)
    assert from_v1["loss_state_dict"]["discriminator_optimizer_state_dict"]["state"] == {}
    assert from_v2["loss_state_dict"]["discriminator_optimizer_state_dict"]["state"] != {}


def test_v2_without_gan_leaves_the_discriminator_behind(
    uninterrupted: ModelFolder, pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = at_first_step(staged(values, V2), ModelFolder(tmp_path / "a"), pack, uninterrupted, monkeypatch)
    assert new["loss_state_dict"]["use_gan"] is False
    assert new["loss_state_dict"]["discriminator_state_dict"] is None
    assert new["epoch"] == 3


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "features", (8, 24), r"features = \(8, 16\), not \(8, 24\)"),
        ("model", "time_embedding", 32, "time_embedding = 16, not 32"),
        ("diffusion", "timesteps", 60, "timesteps = 50, not 60"),
        ("diffusion", "prediction", "epsilon", "prediction = v, not epsilon"),
    ],
)
def test_another_architecture_is_refused(
    section: str,
    key: str,
    value: Any,
    message: str,
    model_v1: ModelFolder,
    pack: Pack,
    values: Values,
    tmp_path: Path,
) -> None:
    values[section][key] = value
    with pytest.raises(UsageError, match=rf"^model_v1 has {message}: leave that setting out$"):
        train(staged(values, V2), ModelFolder(tmp_path / "model_v2"), pack, source=model_v1)
    assert not (tmp_path / "model_v2").exists()


# --- Numbers that are none --------------------------------------------------------------------------------------------


def bad_photos(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batches are not numbers, this many times."""
    real, left = Pack.rgb, iter(range(times))
    monkeypatch.setattr(
        Pack, "rgb", lambda self, where: real(self, where) * (1.0 if next(left, None) is None else math.nan)
    )


def frozen(training: Training) -> dict[str, Any]:
    """All that a checkpoint would hold, except counters and what spectral norm remembers of each forward pass."""
    state: dict[str, Any] = copy.deepcopy(training.state())
    kept = ("model_state_dict", "ema_state_dict", "ema_updates", "optimizer_state_dict", "loss_state_dict")
    found = {key: state[key] for key in (*kept, "sums", "step_in_epoch")}
    discriminator = found["loss_state_dict"]["discriminator_state_dict"]
    for key in [key for key in discriminator or () if key.endswith(("._u", "._v"))]:
        del discriminator[key]
    return found


def test_a_batch_that_is_not_a_number_is_left_out(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ends as if it had never been drawn."""
    config = staged(values, {**V1, "epochs": 3})
    training, other = Training(config, pack), Training(config, pack)
    for each in (training, other):
        train_step(each)
    with monkeypatch.context() as patch:
        bad_photos(1, patch)
        log = train_step(training)
    assert math.isfinite(log["loss"])
    assert training.step_in_epoch == 2
    assert training.step == 3
    (note,) = training.notes
    assert note.startswith("step 1: noise")
    assert "not finite; skipped this batch" in note
    assert "going on with the next batch" in note
    other.step += 1  # the batch that the first one left out
    train_step(other)
    assert_equal(frozen(training), frozen(other))
    train_step(training)
    assert len(training.notes) == 1


def test_an_overflow_of_fp16_before_it_is_none(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, {**V1, "epochs": 3}), pack)
    training.arithmetic.precision = "fp16"
    with monkeypatch.context() as patch:
        patch.setattr(training.backward, "clip", lambda *arguments: math.inf)
        assert train_step(training)["gradient"] == math.inf
    bad_photos(1, monkeypatch)
    assert math.isfinite(train_step(training)["loss"])
    assert len(training.notes) == 1


def test_with_a_discriminator_as_well(pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(staged(values, {**GAN, "gan_delay": 0}), pack)
    train_step(training)
    before = frozen(training)
    bad_photos(2, monkeypatch)
    with pytest.raises(
        PhotochromError, match=r"^step 2: .*discriminator.* not finite; .*twice in a row: .*last good"
    ):
        train_step(training)
    assert_equal(frozen(training), before)
    training.bad_batches = 0
    train_step(training)  # which is as good as ever
    assert training.step_in_epoch == 2


def test_twice_in_a_row_ends_the_training_with_the_last_good_state(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = staged(values, {**GAN, "perceptual": 0.0}), ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        train(config, folder, pack, signal_received=signal_at(4))
    before = hashes(folder)
    with monkeypatch.context() as patch:
        bad_photos(2, patch)
        with pytest.raises(
            PhotochromError, match=r"^step 5: .*the last good checkpoint is kept, .*lower --learning"
        ):
            train(config, folder, pack)
    assert hashes(folder) == before
    train(config, folder, pack)
    assert [record["epoch"] for record in folder.history] == [1, 2]


def test_a_gradient_that_is_not_a_number_is_noticed_too(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, V1), pack)
    weight = training.network.last_layer
    handle = weight.register_hook(lambda gradient: gradient * math.nan)
    before = frozen(training)
    with pytest.raises(PhotochromError, match=r"^step 1: gradient not finite"):
        train_step(training)
    assert_equal(frozen(training), before)
    handle.remove()


# --- Out of memory ----------------------------------------------------------------------------------------------------


def memory_for(photos: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the network run out of memory for batches of more than so many photos; returns the batches it was given."""
    real, seen = UNet.forward, list[int]()

    def forward(self: UNet, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(len(xt))
            if len(xt) > photos:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, xt, t, y, features)

    monkeypatch.setattr(UNet, "forward", forward)
    return seen


def test_out_of_memory_halves_the_batch_and_not_the_effect(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values["training"]["learning_rate"] = 1e-3
    config = build({**values, "stages": [{**V1, "epochs": 2}]})
    whole, parts = ModelFolder(tmp_path / "whole"), ModelFolder(tmp_path / "parts")
    train(config, whole, pack)
    notes: list[str] = []
    with monkeypatch.context() as patch:
        seen = memory_for(3, patch)
        train(config, parts, pack, lambda progress: notes.extend(progress.notes))
    assert seen == [8, 4, *[2] * 4 * 6]
    assert [note for note in notes if "memory" in note] == [
        "out of memory: processing batches in parts of 4; the batch size stays 8",
        "out of memory: processing batches in parts of 2; the batch size stays 8",
    ]
    ours, theirs = last(parts), last(whole)
    for key in ("model_state_dict", "ema_state_dict"):
        for name, value in theirs[key].items():
            # Adam divides by the gradient's size: where it should be 0, rounding alone moves a weight.
            torch.testing.assert_close(ours[key][name], value, rtol=1e-3, atol=2e-4, msg=name)
    for found, expected in zip(losses(parts), losses(whole), strict=True):
        for name in ("train_loss", "val_loss", "gradient"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3)


def test_out_of_memory_with_a_discriminator(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, {**GAN, "gan_delay": 0}), pack)
    memory_for(4, monkeypatch)
    assert math.isfinite(train_step(training)["adversarial"])
    assert training.backward.parts == 2
    assert len(training.backward.notes) == 1


def test_no_memory_for_a_single_photo_is_an_error(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(staged(values, V1), pack)
    memory_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        train_step(training)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: UNet, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    training = Training(staged(values, V1), pack)
    monkeypatch.setattr(UNet, "forward", forward)
    with pytest.raises(RuntimeError, match="mat1"):
        train_step(training)
    assert training.backward.parts == 1


# --- Advice -----------------------------------------------------------------------------------------------------------

STAGES = {
    name: build({"stages": [stage]}).stages[0]
    for name, stage in (("v1", V1), ("v2", V2), ("gan", {**GAN, "adversarial": 0.01}))
}


def records(*found: float, stage: str = "v1", **more: Any) -> list[Values]:
    """Epochs with these losses; the last one with `more`."""
    history: list[Values] = [
        {
            "stage": STAGES[stage].label,
            "weights": {"perceptual": STAGES[stage].perceptual},
            "train_loss": loss,
            "weighted_noise": 0.8 * loss,
            "weighted_perceptual": 0.2 * loss,
        }
        for loss in found
    ]
    history[-1] |= more
    return history


@pytest.mark.parametrize(
    ("stage", "mend"),
    [
        ("v1", "lower --learning-rate to a half"),
        ("v2", "lower --perceptual to 0.05"),
        ("gan", "lower --adversarial to 0.005"),
    ],
)
def test_a_growing_loss_is_noticed(stage: str, mend: str) -> None:
    (said,) = faults(records(0.4, 0.3, 0.45, 0.5, stage=stage), STAGES[stage])
    assert said == f"the loss grows (now 0.5000, at best 0.3000): {mend}"


@pytest.mark.parametrize(
    "history",
    [
        records(0.5),
        records(0.5, 0.4, 0.3, 0.31),
        records(0.3, 0.3, 0.9),  # one bad epoch
        records(0.3, 0.9, 0.35),  # which passed
        records(0.3, 0.9),  # too early to tell
        records(0.3, 0.3, stage="v1") + records(0.6, 0.6, 0.6, stage="v2"),  # another stage has other losses
        records(0.3, 0.3, stage="v2")
        + [one | {"weights": {"perceptual": 1.0}} for one in records(0.9, 0.9, stage="v2")],
    ],
)
def test_a_loss_that_does_not_grow_is_left_alone(history: list[Values]) -> None:
    assert faults(history, STAGES["v2"]) == []


def test_the_discriminators_score_is_no_loss_to_grow() -> None:
    """The sum may be below 0 and rise, while photos cost less and less."""
    history = records(0.5, 0.45, 0.4, 0.38, stage="gan")
    for record, score in zip(history, (-2.0, -1.5, -1.2, -0.9), strict=True):
        record |= {"weighted_adversarial": score, "train_loss": record["train_loss"] + score}
    assert faults(history, STAGES["gan"]) == []


def judged(true: float, coloured: float, **more: Any) -> list[Values]:
    return records(0.3, stage="gan", accuracy_true=true, accuracy_coloured=coloured, **more)


def test_a_discriminator_that_wins_is_noticed() -> None:
    (said,) = faults(judged(0.99, 0.98, adversarial=1.2), STAGES["gan"])
    assert said.startswith(
        "the discriminator recognises 98% of patches and teaches nothing: lower --adversarial to 0.005"
    )
    assert faults(judged(0.99, 0.98), STAGES["gan"]) == []  # while it learns alone
    assert faults(judged(0.99, 0.9, adversarial=1.2), STAGES["gan"]) == []


def test_a_discriminator_that_loses_is_noticed() -> None:
    (said,) = faults(judged(0.01, 0.4, adversarial=1.2), STAGES["gan"])
    assert said == "the discriminator no longer tells true from coloured: lower --adversarial to 0.005"
    assert len(faults(judged(0.4, 0.01, adversarial=1.2), STAGES["gan"])) == 1
    assert len(faults(judged(0.0, 0.0, adversarial=1.2), STAGES["gan"])) == 1
    for true, coloured in ((0.5, 0.5), (0.4, 0.3), (0.2, 0.8)):
        assert faults(judged(true, coloured, adversarial=1.2), STAGES["gan"]) == []


def test_one_tint_over_all_samples_is_noticed() -> None:
    (said,) = faults(records(0.3, spread={"samples": 0.01, "data": 0.2}), STAGES["v1"])
    assert said.startswith("all samples have nearly the same tint: train longer")
    assert faults(records(0.3, spread={"samples": 0.1, "data": 0.2}), STAGES["v1"]) == []
    assert faults(records(0.3), STAGES["v1"]) == []  # an epoch without samples


def test_advice_reaches_the_person_who_waits(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "photochrom.training.loop.faults", lambda history, stage: [f"{len(history)} {stage.label}"]
    )
    said: list[str] = []
    config = staged(values, V1, {**V1, "name": "more"})
    train(config, ModelFolder(tmp_path / "model"), pack, lambda progress: said.extend(progress.notes))
    assert said == ["1 v1", "2 more"]
