"""A stage of distillation: what the student is told, against the sampler, and a whole training of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import STRIDE, DiffusionConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion.color import LARGEST_CHROMA
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.samplers import ddim, levels
from photochrom.errors import Interrupted, UsageError
from photochrom.evaluation.candidates import given_luma
from photochrom.model_folder import ModelFolder
from photochrom.training.distillation import Teacher
from photochrom.training.loop import train
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training
from photochrom.training.step import train_step
from tests.training.making import assert_same_training, distilling, signal_at

Values = dict[str, Any]
STEPS = 3


class Opinion(nn.Module):
    """A network that says something that depends on all that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Any = ()) -> Tensor:
        small = nn.functional.avg_pool2d(y, 2) + sum(features)
        return torch.tanh(self.weight * xt.roll(1, -1) + small + torch.sin(t.float())[:, None, None, None])


def no_noise() -> Tensor:
    raise AssertionError("DDIM draws none")


def noisy(diffusion: Diffusion, t: Tensor) -> Noisy:
    generator = torch.Generator().manual_seed(0)
    y, x0, eps = (
        torch.randn(len(t), channels, side, side, generator=generator)
        for channels, side in ((1, 8), (2, 4), (2, 4))
    )
    return Noisy(y, x0, eps, t, diffusion.add_noise(x0, eps, t))


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_one_step_of_the_student_leads_where_the_teacher_comes_after_several(
    schedule: Any, prediction: Any, guidance: float
) -> None:
    """Both ways are gone by the package's sampler, which is tested against diffusers."""
    diffusion = Diffusion(DiffusionConfig(timesteps=60, schedule=schedule, prediction=prediction))
    network = Opinion()
    teacher = Teacher(network, diffusion, STEPS, guidance)
    fine, coarse = (levels(diffusion.alpha_bar.tolist(), n) for n in (STRIDE * STEPS, STEPS))
    batch = noisy(diffusion, torch.tensor([level.t for level in coarse[:-1]]).repeat(2))
    batch = batch._replace(features=[0.5 * batch.x0.roll(1, 0)])
    target = teacher.target(batch)
    for row in range(2 * STEPS):
        y, xt, seen = batch.y[row : row + 1], batch.xt[row : row + 1], batch.features[0][row : row + 1]

        def x0_by(output: Tensor, xt: Tensor, t: int) -> Tensor:
            return diffusion.predict_x0(xt, output, torch.tensor([t]))

        def teachers(xt: Tensor, t: int, y: Tensor = y, seen: Tensor = seen) -> Tensor:
            blind, seeing = (x0_by(network(xt, torch.tensor([t]), y, [k * seen]), xt, t) for k in (0, 1))
            x0 = guidance * seeing - (guidance - 1) * blind
            return x0.clamp(-LARGEST_CHROMA, LARGEST_CHROMA)

        def students(xt: Tensor, t: int, row: int = row) -> Tensor:
            return x0_by(target[row : row + 1], xt, t)

        place = row % STEPS
        several = fine[place * STRIDE : (place + 1) * STRIDE + 1]
        with torch.no_grad():
            expected = ddim(teachers, xt, several, no_noise)
            found = ddim(students, xt, coarse[place : place + 2], no_noise)
        assert several[0] == coarse[place]
        assert several[-1] == coarse[place + 1]
        assert (found - expected).abs().max() < 1e-4


def test_the_student_learns_at_its_own_time_steps_and_at_each_as_often() -> None:
    diffusion = Diffusion(DiffusionConfig(timesteps=60))
    t = Teacher(Opinion(), diffusion, STEPS).times(30, torch.Generator().manual_seed(0))
    assert t.unique(return_counts=True)[0].tolist() == [19, 39, 59]
    assert t.unique(return_counts=True)[1].tolist() == [10, 10, 10]


def test_a_teacher_stays_as_it_was() -> None:
    diffusion, network = Diffusion(DiffusionConfig(timesteps=60)), Opinion()
    teacher = Teacher(network, diffusion, STEPS)
    batch = noisy(diffusion, torch.tensor([59]))
    before = teacher.target(batch)
    with torch.no_grad():
        network.weight.fill_(-1)
    assert torch.equal(teacher.target(batch), before)
    assert not before.requires_grad


@pytest.fixture(scope="module")
def source(sepia_pack: Pack, tmp_path_factory: pytest.TempPathFactory, new_values: Any) -> ModelFolder:
    """A model of V1 to distil."""
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "source")
    values = new_values()
    values["stages"][0]["epochs"] = 20
    train(build(values), folder, sepia_pack)
    return folder


def test_a_training_of_a_student_from_end_to_end(
    sepia_pack: Pack, values: Values, source: ModelFolder, tmp_path: Path
) -> None:
    """It ends where its teacher does in more steps, remembers its steps, and can be interrupted anywhere."""
    config = build(distilling(values, 20))
    whole = ModelFolder(tmp_path / "whole")
    train(config, whole, sepia_pack, source=source)
    y, seeds = given_luma(sepia_pack.rgb(np.arange(16))), range(16)
    student, old = Colorizer.load(whole.path), Colorizer.load(source.path)
    aim = old.chroma(y, seeds, steps=2 * STRIDE)
    off = (old.chroma(y, seeds, steps=2) - aim).abs().mean()
    assert (student.chroma(y, seeds) - aim).abs().mean() < 0.8 * off
    teacher = model_folder.read_checkpoint(whole / model_folder.LAST)["teacher_state_dict"]
    began = model_folder.read_checkpoint(source / model_folder.LAST)["ema_state_dict"]
    assert [key for key in began if not torch.equal(began[key], teacher[key])] == []
    parts = ModelFolder(tmp_path / "parts")
    for signals in (signal_at(4), signal_at(1), signal_at(9)):
        with pytest.raises(Interrupted):
            train(config, parts, sepia_pack, signal_received=signals, source=source)
    train(config, parts, sepia_pack, source=source)
    assert_same_training(parts, whole)
    counts = []
    student(sepia_pack.photos[0], progress=lambda done, total: counts.append((done, total)))
    assert counts == [(1, 2), (2, 2)]
    assert (
        "| distilled |" in (whole / model_folder.CARD).read_text()
        or "distilled" in (whole / model_folder.CARD).read_text()
    )


def test_the_average_begins_anew_with_the_stage(
    sepia_pack: Pack, values: Values, source: ModelFolder
) -> None:
    """The student starts as its teacher. An old average would remember the teacher for thousands of steps."""
    values["training"]["ema_decay"] = 0.9999
    state = model_folder.read_checkpoint(source / model_folder.LAST)
    config = build({**distilling(values), "first_epoch": state["epoch"]})
    training = Training(config, sepia_pack)
    training.restore(state | {"ema_updates": 10_000}, source.path, anew=True)
    assert training.teacher
    for key, weight in training.network.state_dict().items():
        assert torch.equal(weight, state["ema_state_dict"][key])
    train_step(training)
    averaged = training.averaged.state_dict()
    assert [
        k for k, weight in training.network.state_dict().items() if not torch.equal(weight, averaged[k])
    ] == []
    taught = training.teacher.network.state_dict()
    assert [key for key in taught if not torch.equal(taught[key], averaged[key])] != []


def test_micro_batches_are_taught_alike(sepia_pack: Pack, values: Values) -> None:
    logs = []
    for accumulate in (1, 4):
        values["training"]["accumulate"] = accumulate
        logs.append(train_step(Training(build(distilling(values)), sepia_pack)))
    assert logs[0]["noise"] == pytest.approx(logs[1]["noise"], rel=1e-5)
    assert logs[0]["gradient"] == pytest.approx(logs[1]["gradient"], rel=1e-4)


def test_a_student_is_no_good_beginning_and_it_says_so(
    sepia_pack: Pack, values: Values, source: ModelFolder, tmp_path: Path
) -> None:
    student, other = ModelFolder(tmp_path / "student"), ModelFolder(tmp_path / "other")
    notes: list[str] = []
    train(build(distilling(new := values, 1)), student, sepia_pack, source=source)
    new["stages"][0]["epochs"] = 1
    train(build(new), other, sepia_pack, lambda progress: notes.extend(progress.notes), source=student)
    assert any("distilled to 2 steps" in note and "(source)" in note for note in notes)


def test_a_stage_after_it_takes_all_steps_again(sepia_pack: Pack, values: Values, tmp_path: Path) -> None:
    """And two stages of it halve twice: the second one's teacher is the first one's student."""
    values["stages"] = [
        {"epochs": 1, "perceptual": 0.0},
        {"epochs": 1, "distill": 4},
        {"epochs": 1, "distill": 2},
        {"epochs": 1, "perceptual": 0.0},
    ]
    config = build(values)
    folder = ModelFolder(tmp_path / "model")
    train(config, folder, sepia_pack)
    assert [record["stage"] for record in folder.history] == ["v1", "distilled", "distilled", "v1"]
    assert config.steps == 20
    assert config.model_copy(update={"stages": config.stages[:3]}).steps == 2


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"distill": 4, "perceptual": 0.1}, "perceptual"),
        ({"distill": 4, "gan": True}, "gan"),
        ({"distill": 0}, "distill"),
        ({"distill": 11}, "distill 11: 50 timesteps allow at most 10"),
    ],
)
def test_what_does_not_go_together_is_refused(values: Values, stage: Values, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        build({**values, "stages": [stage]})


def test_who_teaches_guided_and_whom_no_one_guides(values: Values) -> None:
    """A student has learnt what guidance does: it is not guided when it colours, nor when it teaches."""
    values["model"] |= {"encoder": "vgg16"}
    values["training"] |= {"guidance": 1.7}
    values["stages"] = [{"epochs": 1}, {"epochs": 1, "distill": 4}, {"epochs": 1, "distill": 2}]
    config = build(values)
    _, first, second = config.stages
    assert (config.taught_guidance(first), config.taught_guidance(second)) == (1.7, 1.0)
    assert (config.guidance, config.can_be_guided) == (1.0, False)
    taught = config.model_copy(update={"stages": config.stages[:1]})
    assert (taught.guidance, taught.can_be_guided) == (1.7, True)
    values["training"] |= {"encoder_dropout": 0.0}
    never_blind = build(values)
    assert never_blind.taught_guidance(never_blind.stages[1]) == 1.0
