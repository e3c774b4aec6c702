"""The noise against diffusers and the papers' formulas; sampling with a network that knows the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from photochrom.config import DiffusionConfig, ModelConfig, SamplerName, build
from photochrom.diffusion.color import LARGEST_CHROMA
from photochrom.diffusion.diffusion import Diffusion, guided_x0, noise_like, sample
from photochrom.diffusion.samplers import SAMPLERS
from photochrom.diffusion.unet import UNet
from photochrom.errors import UsageError

FIELDS = ("timesteps", "schedule", "prediction", "zero_terminal_snr")
KINDS = [
    DiffusionConfig.model_validate(dict(zip(FIELDS, (50, schedule, *rest), strict=True)))
    for schedule in ("cosine", "linear")
    for rest in (("v", True), ("v", False), ("epsilon", False))
]


def name_of(kind: DiffusionConfig) -> str:
    return f"{kind.schedule}-{kind.prediction}{'-zero' if kind.zero_terminal_snr else ''}"


every_kind = pytest.mark.parametrize("kind", KINDS, ids=name_of)
TINY = ModelConfig(features=(8, 16), time_embedding=16, blocks=1, attention=1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


class Oracle(UNet):
    """Knows the clean chroma of every photo, and remembers what it was asked."""

    def __init__(self, diffusion: Diffusion, x0: Tensor) -> None:
        super().__init__(TINY)
        self.diffusion, self.x0 = diffusion, x0
        self.asked: list[tuple[Tensor, int]] = []

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        assert t.shape == (1,)
        self.asked.append((xt, int(t[0])))
        alpha_bar = self.diffusion.alpha_bar[t][:, None, None, None]
        eps = (xt - alpha_bar.sqrt() * self.x0) / (1 - alpha_bar).sqrt()
        return self.diffusion.target(self.x0, eps.float(), t)


@pytest.fixture(scope="module")
def network() -> UNet:
    """A small network that has an opinion: its zero-initialised layers are random."""
    torch.manual_seed(0)
    network = UNet(TINY)
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network.eval()


# --- The schedule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_alpha_bar_is_diffusers(ours: Any, theirs: str, zero: bool) -> None:
    diffusion = Diffusion(DiffusionConfig(schedule=ours, zero_terminal_snr=zero))
    scheduler = DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule=theirs, rescale_betas_zero_snr=zero
    )
    torch.testing.assert_close(diffusion.alpha_bar.float(), scheduler.alphas_cumprod, rtol=1e-3, atol=2e-6)


def test_cosine_alpha_bar_is_the_papers_formula() -> None:
    alpha_bar = Diffusion(DiffusionConfig(zero_terminal_snr=False)).alpha_bar
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    formula = torch.tensor(f[1:], dtype=torch.float64) / f[0]
    torch.testing.assert_close(alpha_bar[:-1], formula[:-1], rtol=1e-9, atol=0)
    assert alpha_bar[-1] == pytest.approx(0.001 * alpha_bar[-2].item())  # beta is cut off at 0.999


def test_linear_alpha_bar_is_the_papers_formula() -> None:
    alpha_bar = Diffusion(DiffusionConfig(schedule="linear", zero_terminal_snr=False)).alpha_bar
    logs = [math.log1p(-(1e-4 + (0.02 - 1e-4) * t / 999)) for t in range(1000)]
    assert alpha_bar[-1].item() == pytest.approx(math.exp(math.fsum(logs)), rel=1e-9)
    assert alpha_bar[499].item() == pytest.approx(math.exp(math.fsum(logs[:500])), rel=1e-9)


@pytest.mark.parametrize("timesteps", [2, 10, 50, 1000])
@every_kind
def test_signal_falls_in_float64(kind: DiffusionConfig, timesteps: int) -> None:
    alpha_bar = Diffusion(kind.model_copy(update={"timesteps": timesteps})).alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert alpha_bar.shape == (timesteps,)
    assert (alpha_bar.diff() < 0).all()
    assert alpha_bar[0] < 1
    assert (alpha_bar[-1] == 0) == kind.zero_terminal_snr


def test_zero_terminal_snr_keeps_the_first_step() -> None:
    zero, plain = (Diffusion(DiffusionConfig(schedule="linear", zero_terminal_snr=z)) for z in (True, False))
    assert zero.alpha_bar[0].item() == pytest.approx(plain.alpha_bar[0].item(), rel=1e-12)
    scale = zero.alpha_bar.sqrt().diff() / plain.alpha_bar.sqrt().diff()
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))  # the same curve, stretched


def test_epsilon_cannot_end_in_pure_noise() -> None:
    assert not DiffusionConfig(prediction="epsilon").zero_terminal_snr
    with pytest.raises(UsageError, match=r"zero_terminal_snr is impossible with prediction = epsilon: use v"):
        build({"diffusion": {"prediction": "epsilon", "zero_terminal_snr": True}})


# --- Adding noise and taking it away ------------------------------------------------------------------------


@every_kind
def test_adding_noise_and_velocity_are_diffusers(kind: DiffusionConfig) -> None:
    diffusion = Diffusion(kind)
    scheduler = DDPMScheduler(num_train_timesteps=50, trained_betas=diffusion.betas.tolist())
    x0, eps, t = normal(50, 2, 4, 4), normal(50, 2, 4, 4, seed=1), torch.arange(50)
    torch.testing.assert_close(
        diffusion.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t), atol=1e-5, rtol=1e-4
    )
    expected = eps if kind.prediction == "epsilon" else scheduler.get_velocity(x0, eps, t)
    torch.testing.assert_close(diffusion.target(x0, eps, t), expected, atol=1e-5, rtol=1e-4)


@every_kind
def test_predict_x0_inverts(kind: DiffusionConfig) -> None:
    diffusion = Diffusion(kind)
    # Float32 noise of 1e-7, enlarged by 1 / sqrt(alpha_bar): near pure noise, noise prediction says little.
    t = torch.arange(50) if kind.prediction == "v" else torch.arange(45)
    x0, eps = normal(len(t), 2, 4, 4), normal(len(t), 2, 4, 4, seed=1)
    xt = diffusion.add_noise(x0, eps, t)
    again = diffusion.predict_x0(xt, diffusion.target(x0, eps, t), t)
    torch.testing.assert_close(again, x0, atol=1e-5, rtol=1e-5)


def test_pure_noise_holds_nothing_of_the_photo() -> None:
    diffusion = Diffusion(DiffusionConfig())
    x0, eps, t = normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1), torch.tensor([999])
    assert torch.equal(diffusion.add_noise(x0, eps, t), eps)
    assert torch.equal(diffusion.target(x0, eps, t), -x0)  # so the network can still say all of it


# --- Sampling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7, 20, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
@every_kind
def test_who_knows_the_answer_arrives_at_it(kind: DiffusionConfig, sampler: SamplerName, steps: int) -> None:
    diffusion = Diffusion(kind)
    x0 = normal(3, 2, 4, 4).clamp(-2, 2)
    oracle = Oracle(diffusion, x0)
    found = sample(oracle, diffusion, torch.zeros(3, 1, 8, 8), generators(3), steps, sampler)
    # Noise prediction divides by sqrt(alpha_bar), about 1e-3 in the first step.
    torch.testing.assert_close(found, x0, atol=1e-3 if kind.prediction == "v" else 1e-2, rtol=1e-3)
    assert len(oracle.asked) == steps
    assert oracle.asked[0][1] == 49
    assert torch.equal(oracle.asked[0][0], noise_like(torch.zeros(3, 1, 8, 8), 2, generators(3)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides(network: UNet, sampler: SamplerName) -> None:
    diffusion, y = Diffusion(DiffusionConfig(timesteps=50)), normal(2, 1, 8, 8).clamp(-1, 1)

    def colours(seed: int) -> Tensor:
        return sample(network, diffusion, y, generators(2, seed), 5, sampler)

    first = colours(0)
    assert torch.equal(colours(0), first)
    assert (colours(10) - first).abs().amax(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_photo_does_not_depend_on_its_neighbours(network: UNet, sampler: SamplerName) -> None:
    diffusion, y = Diffusion(DiffusionConfig(timesteps=50)), normal(3, 1, 8, 8).clamp(-1, 1)
    together = sample(network, diffusion, y, generators(3), 5, sampler)
    for i, generator in enumerate(generators(3)):
        alone = sample(network, diffusion, y[i : i + 1], [generator], 5, sampler)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_global_is_touched(network: UNet, sampler: SamplerName) -> None:
    before = torch.get_rng_state()
    sample(network, Diffusion(DiffusionConfig(timesteps=50)), normal(2, 1, 8, 8), generators(2), 3, sampler)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_callback_sees_every_step(sampler: SamplerName) -> None:
    diffusion = Diffusion(DiffusionConfig(timesteps=50))
    x0 = normal(2, 2, 4, 4).clamp(-2, 2)
    seen: list[int] = []

    def callback(step: int, predicted: Tensor) -> None:
        seen.append(step)
        torch.testing.assert_close(predicted, x0, atol=1e-4, rtol=1e-4)

    sample(Oracle(diffusion, x0), diffusion, torch.zeros(2, 1, 8, 8), generators(2), 6, sampler, callback)
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_absurd_predictions_are_cut_to_what_chroma_can_be(sampler: SamplerName) -> None:
    diffusion, seen = Diffusion(DiffusionConfig(timesteps=50)), []
    oracle = Oracle(diffusion, torch.tensor([-100.0, 100.0])[None, :, None, None].expand(1, 2, 4, 4))
    y = torch.zeros(1, 1, 8, 8)
    found = sample(oracle, diffusion, y, generators(1), 5, sampler, lambda step, x0: seen.append(x0))
    for x0 in (*seen, found):
        torch.testing.assert_close(x0, oracle.x0.sign() * LARGEST_CHROMA)


def test_an_exception_in_the_callback_ends_sampling() -> None:
    diffusion = Diffusion(DiffusionConfig(timesteps=50))
    oracle = Oracle(diffusion, torch.zeros(1, 2, 4, 4))

    def stop(step: int, x0: Tensor) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(oracle, diffusion, torch.zeros(1, 1, 8, 8), generators(1), 10, "ddim", stop)
    assert len(oracle.asked) == 3


@pytest.mark.parametrize("steps", [0, -1, 51])
def test_steps_out_of_range_are_refused(network: UNet, steps: int) -> None:
    diffusion = Diffusion(DiffusionConfig(timesteps=50))
    with pytest.raises(UsageError, match=rf"^{steps} sampling steps: .* take 1 to 50$"):
        sample(network, diffusion, torch.zeros(1, 1, 8, 8), generators(1), steps)


class SightedOracle(Oracle):
    """Knows some of the chroma, and the rest of it from the features."""

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        known, self.x0 = self.x0, self.x0 + features[0]
        output = super().forward(xt, t, y)
        self.x0 = known
        return output


def led(seeing: Tensor, blind: Tensor, w: float) -> Tensor:
    """Ho & Salimans 2022, equation 6."""
    return (1 + w) * seeing - w * blind


@every_kind
@pytest.mark.parametrize("w", [0.5, 3.0])
def test_guidance_leads_away_from_what_is_said_without_the_encoder(kind: DiffusionConfig, w: float) -> None:
    diffusion, blind, shown = Diffusion(kind), 0.1 * normal(3, 2, 4, 4), 0.1 * normal(3, 2, 4, 4, seed=2)
    network, xt, y = SightedOracle(diffusion, blind), normal(3, 2, 4, 4, seed=3), normal(3, 1, 8, 8, seed=1)
    found = guided_x0(network, diffusion, xt, torch.tensor([30]), y, [shown], 1 + w)
    torch.testing.assert_close(found, led(blind + shown, blind, w), atol=1e-4, rtol=1e-3)
    network.asked.clear()
    plain = guided_x0(network, diffusion, xt, torch.tensor([30]), y, [shown])
    torch.testing.assert_close(plain, blind + shown, atol=1e-4, rtol=1e-3)
    assert len(network.asked) == 1  # plain colouring costs no more


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_guided(sampler: SamplerName) -> None:
    diffusion, blind, shown = Diffusion(KINDS[0]), 0.2 * normal(2, 2, 4, 4), 0.2 * normal(2, 2, 4, 4, seed=2)
    network, y = SightedOracle(diffusion, blind), normal(2, 1, 8, 8)
    found = sample(network, diffusion, y, generators(2), 4, sampler, features=[shown], guidance=2.0)
    torch.testing.assert_close(found, led(blind + shown, blind, 1.0), atol=1e-3, rtol=1e-3)
