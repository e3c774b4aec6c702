"""Aged photos look aged: each ill shows in what it is known by, and nothing else about the photo changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photochrom.diffusion import color
from photochrom.training import aging
from photochrom.training.aging import age, aged_luma


def photos(count: int) -> torch.Tensor:
    """Smooth coloured pictures, (B,3,32,32)."""
    rough = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(rough, size=32, mode="bicubic").clamp(0, 1)


class Ills:
    """A random source in which only the chosen ill befalls the photo, at its worst; the rest is random."""

    def __init__(self, number: int, worst: bool = True) -> None:
        self.number, self.worst = number, worst
        self.real = np.random.default_rng(0)

    def random(self, count: int) -> np.ndarray:
        return np.where(np.arange(count) == self.number, 0.0, 1.0)

    def uniform(self, low: float, high: float) -> float:
        return high if self.worst else low

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.real.standard_normal(shape)

    def integers(self, low: int, high: int) -> int:
        return low


def befallen(number: int, rgb: torch.Tensor, worst: bool = True) -> np.ndarray:
    return age(rgb.double().numpy(), Ills(number, worst))  # type: ignore[arg-type]


def gray(rgb: torch.Tensor) -> np.ndarray:
    return color.luma(rgb[None])[0, 0].double().numpy()


def test_a_spared_photo_is_its_luma() -> None:
    rgb = photos(1)[0]
    np.testing.assert_allclose(befallen(-1, rgb), gray(rgb), atol=1e-6)


def test_old_film_sees_blue_and_hardly_red() -> None:
    red, blue = (torch.zeros(3, 4, 4) for _ in range(2))
    red[0], blue[2] = 1, 1
    assert befallen(0, red).mean() == pytest.approx(aging.ORTHOCHROMATIC[0])
    assert befallen(0, blue).mean() == pytest.approx(aging.ORTHOCHROMATIC[2])
    white = torch.ones(3, 4, 4)
    assert befallen(0, white).mean() == pytest.approx(1)


def test_the_other_ills() -> None:
    rgb = photos(1)[0]
    Y = gray(rgb)
    edges = torch.zeros(3, 32, 32)
    edges[:, :, 16:] = 1
    assert np.abs(np.diff(befallen(1, edges))).max() < 0.6  # blurred
    np.testing.assert_allclose(befallen(2, rgb), Y ** np.exp(0.5), atol=1e-5)
    black, white = (
        befallen(3, torch.zeros(3, 4, 4), worst=False),
        befallen(3, torch.ones(3, 4, 4), worst=False),
    )
    assert (black.mean(), white.mean()) == (pytest.approx(0), pytest.approx(0.75))
    assert befallen(3, torch.zeros(3, 4, 4)).mean() == pytest.approx(0.25)
    flat = torch.full((3, 64, 64), 0.5)
    assert befallen(4, flat).std() == pytest.approx(0.06, rel=0.1)
    squeezed = befallen(5, rgb)
    assert 0.001 < np.abs(squeezed - Y).mean() < 0.05


def test_a_share_is_aged_in_ways_that_the_number_decides() -> None:
    rgb = photos(200)
    y, _ = color.from_rgb(rgb)
    numbers = np.arange(1000, 1200)
    aged = aged_luma(rgb, y, numbers, 0.3)
    changed = (aged - y).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 0.2 < changed.float().mean() < 0.4
    assert aged.abs().max() <= 1
    assert torch.equal(aged_luma(rgb[50:60], y[50:60], numbers[50:60], 0.3), aged[50:60])
    assert not torch.equal(aged_luma(rgb[50:60], y[50:60], numbers[:10], 1.0), aged[50:60])
    assert torch.equal(aged_luma(rgb, y, numbers, 0.0), y)
