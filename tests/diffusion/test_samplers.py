"""The samplers against diffusers, step by step, and against the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from photochrom.config import DiffusionConfig, SamplerName
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.samplers import CLEAN, SAMPLERS, Level, levels

# diffusers' DPM-Solver++ hands torch tensors to NumPy in a way that NumPy 2 dislikes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULES = [(schedule, zero) for schedule in ("cosine", "linear") for zero in (True, False)]
every_schedule = pytest.mark.parametrize(("schedule", "zero"), SCHEDULES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def diffusion_of(schedule: Any, zero: bool, timesteps: int = 60) -> Diffusion:
    return Diffusion(DiffusionConfig(timesteps=timesteps, schedule=schedule, zero_terminal_snr=zero))


def opinion(xt: Tensor, t: int) -> Tensor:
    """Some x0 that depends on all of xt, and on t."""
    return torch.tanh(xt.roll(1, -1) + 0.3 * xt.flip(-2) + math.sin(t))


def run(sampler: SamplerName, alpha_bar: Sequence[float], steps: int) -> list[Tensor]:
    """xt at each level of the path, the outcome last."""
    generator, seen = torch.Generator().manual_seed(1), []

    def predict(xt: Tensor, t: int) -> Tensor:
        seen.append(xt)
        return opinion(xt, t)

    def noise() -> Tensor:
        return torch.randn(1, 2, 4, 4, generator=generator)

    outcome = SAMPLERS[sampler](predict, normal(1, 2, 4, 4), levels(alpha_bar, steps), noise)
    return [*seen, outcome]


def theirs(scheduler: Any, steps: int) -> list[Tensor]:
    """The same by a scheduler of diffusers that takes x0 for what the network says."""
    generator, xt = torch.Generator().manual_seed(1), normal(1, 2, 4, 4)
    stochastic = {"generator": generator} if isinstance(scheduler, DDPMScheduler) else {}
    seen = [xt]
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        xt = scheduler.step(opinion(xt, int(t)), t, xt, **stochastic).prev_sample
        seen.append(xt)
    return seen


def scheduler_of(sampler: SamplerName, diffusion: Diffusion) -> Any:
    common: dict[str, Any] = {
        "num_train_timesteps": diffusion.config.timesteps,
        "trained_betas": diffusion.betas.tolist(),
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    if sampler == "dpm++":
        zero = diffusion.config.zero_terminal_snr
        return DPMSolverMultistepScheduler(**common, rescale_betas_zero_snr=zero, final_sigmas_type="zero")
    if sampler == "unipc":
        zero = diffusion.config.zero_terminal_snr
        return UniPCMultistepScheduler(**common, rescale_betas_zero_snr=zero, final_sigmas_type="zero")
    return {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[sampler](**common, clip_sample=False)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 60])
@pytest.mark.parametrize("sampler", SAMPLERS)
@every_schedule
def test_every_step_is_diffusers(schedule: str, zero: bool, sampler: SamplerName, steps: int) -> None:
    diffusion = diffusion_of(schedule, zero)
    alpha_bar = diffusion.alpha_bar.tolist()
    if sampler in ("dpm++", "unipc") and zero:
        alpha_bar[-1] = 2.0**-24  # what diffusers takes for 0 there
    found, expected = run(sampler, alpha_bar, steps), theirs(scheduler_of(sampler, diffusion), steps)
    assert len(found) == len(expected) == steps + 1
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, other, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 7, 10, 20, 60])
def test_the_path_is_that_of_diffusers(steps: int) -> None:
    diffusion = diffusion_of("cosine", True)
    scheduler = scheduler_of("ddim", diffusion)
    scheduler.set_timesteps(steps)
    found = levels(diffusion.alpha_bar.tolist(), steps)
    assert [level.t for level in found[:-1]] == scheduler.timesteps.tolist()
    assert [level.alpha_bar for level in found[:-1]] == diffusion.alpha_bar[scheduler.timesteps].tolist()
    assert found[-1] == CLEAN


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
@every_schedule
def test_who_knows_the_answer_goes_straight_to_it(schedule: str, zero: bool, sampler: SamplerName) -> None:
    """With x0 known, xt is alpha x0 + sigma eps on the whole path, with one eps, even if steps are uneven."""
    x0, eps, seen = normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1), {}
    path = levels(diffusion_of(schedule, zero).alpha_bar.tolist(), 7)

    def predict(xt: Tensor, t: int) -> Tensor:
        seen[t] = xt
        return x0

    found = SAMPLERS[sampler](predict, path[0].alpha * x0 + path[0].sigma * eps, path, lambda: eps)
    assert list(seen) == [level.t for level in path[:-1]]
    for level in path[:-1]:
        torch.testing.assert_close(seen[level.t], level.alpha * x0 + level.sigma * eps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, x0, atol=1e-5, rtol=1e-5)


@every_schedule
def test_ddpm_draws_from_the_papers_posterior(schedule: str, zero: bool) -> None:
    """Ho et al. 2020, equation 7, by completing the square: precisions add up, and weight the means."""
    now, then = levels(diffusion_of(schedule, zero).alpha_bar.tolist(), 10)[3:5]
    xt, x0, z = normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1), normal(1, 2, 4, 4, seed=2)
    seen = []

    def predict(xt: Tensor, t: int) -> Tensor:
        seen.append(xt)
        return x0

    SAMPLERS["ddpm"](predict, xt, [now, then, CLEAN], lambda: z)
    step = now.alpha_bar / then.alpha_bar  # xt given the level before is N(sqrt(step) x, 1 - step)
    prior, likelihood = 1 / (1 - then.alpha_bar), step / (1 - step)
    mean = (prior * then.alpha * x0 + likelihood * xt / math.sqrt(step)) / (prior + likelihood)
    torch.testing.assert_close(seen[1], mean + (prior + likelihood) ** -0.5 * z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("zero", [True, False])
def test_dpm_solver_is_of_second_order(zero: bool) -> None:
    """For normally distributed chroma the path is known: its spread at each level.

    Twice the steps leave a quarter of the error.
    """
    alpha_bar = diffusion_of("cosine", zero, 10_000).alpha_bar.tolist()
    variance = 0.25

    def predict(xt: Tensor, t: int) -> Tensor:
        level = Level(t, alpha_bar[t])
        return level.alpha * variance / (level.alpha_bar * variance + level.sigma**2) * xt

    def error(sampler: SamplerName, steps: int) -> float:
        path = levels(alpha_bar, steps)
        path = [level for level in path if level.alpha_bar < 0.9]  # the last step is of first order
        first = torch.ones(1, dtype=torch.float64)
        spread = [math.sqrt(level.alpha_bar * variance + level.sigma**2) for level in path]
        seen: list[Tensor] = []

        def watched(xt: Tensor, t: int) -> Tensor:
            seen.append(xt)
            return predict(xt, t)

        SAMPLERS[sampler](watched, first * spread[0], path, lambda: first)
        return abs(seen[-1].item() - spread[len(seen) - 1])

    assert error("dpm++", 80) < 0.3 * error("dpm++", 40)
    assert error("dpm++", 40) < 0.2 * error("ddim", 40)
    assert 0.4 * error("ddim", 40) < error("ddim", 80) < 0.6 * error("ddim", 40)


def test_the_samplers_are_those_that_people_can_name() -> None:
    assert set(SAMPLERS) == set(get_args(SamplerName))
