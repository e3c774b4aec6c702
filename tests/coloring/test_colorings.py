"""What several colourings of a photo agree on: agreed colour stays, colour of chance goes."""

from __future__ import annotations

import numpy as np
import torch

from photochrom.coloring.colorings import BOLDER, CAUTION, CHANCE, CONTRAST, DARK, STRONGEST, agreed


def in_middle_gray(c: torch.Tensor) -> torch.Tensor:
    """What these colourings of middle gray photos agree on."""
    _, photos, _, height, width = c.shape
    return agreed(c, torch.zeros(photos, 1, 2 * height, 2 * width))


def test_colourings_agree_where_pairs_of_them_are_alike() -> None:
    """The weight against its definition, the mean over all pairs, and the factor against the lengths."""
    generator = torch.Generator().manual_seed(1)
    c = 0.2 * torch.randn(5, 2, 2, 8, 8, generator=generator) + torch.tensor([0.4, -0.1]).view(2, 1, 1)
    pairs = [(j, k) for j in range(5) for k in range(5) if j != k]
    product = sum((c[j] * c[k]).sum(dim=1, keepdim=True) for j, k in pairs) / len(pairs)
    square = sum((one**2).sum(dim=1, keepdim=True) for one in c) / 5
    alike = (product / square).clamp(min=0)
    y = 0.9 * (2 * torch.rand(2, 1, 16, 16, generator=generator) - 1) - 0.1
    small = (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4
    black = torch.maximum(torch.zeros(()), DARK - (small + 1) / 2) / DARK  # 1 at black, 0 from DARK on
    assert 0 < (black > 0).sum() < black.numel()
    kept = c.mean(dim=0) * (1 + CHANCE) / (1 + CHANCE * (1 + CAUTION * black) / alike)
    length = kept.norm(dim=1, keepdim=True)
    kept = kept * (length / length.mean(dim=(-2, -1), keepdim=True)) ** CONTRAST
    lengths = [each.norm(dim=-3).mean(dim=(-2, -1)) for each in (c, kept)]
    factor = (lengths[0].mean(dim=0) / lengths[1]).clamp(max=BOLDER)
    assert 1 < factor.min() < factor.max() < BOLDER
    bold = factor.view(2, 1, 1, 1) * kept
    most = STRONGEST * square.sqrt()
    too_strong = bold.norm(dim=1, keepdim=True) > most
    assert 0 < too_strong.sum() < too_strong.numel()
    expected = torch.where(too_strong, most * bold / bold.norm(dim=1, keepdim=True), bold)
    assert torch.allclose(agreed(c, y), expected, atol=1e-6)


def test_what_all_agree_on_keeps_its_hues_and_gains_contrast_but_never_glows() -> None:
    one = torch.randn(1, 3, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(in_middle_gray(one), one[0])
    merged = in_middle_gray(one.expand(4, -1, -1, -1, -1))
    before, after = one[0].norm(dim=1), merged.norm(dim=1)
    assert torch.allclose(merged / after[:, None], one[0] / before[:, None], atol=1e-4)
    assert (after <= STRONGEST * before + 1e-5).all()
    for old, new in zip(before, after, strict=True):
        free = new < (STRONGEST - 1e-4) * old  # below the limit it is a power law
        assert 10 < free.sum() < 36
        law = new[free] / old[free] ** (1 + CONTRAST)
        assert torch.allclose(law, law.mean().expand_as(law), rtol=1e-3)


def test_one_colour_all_over_stays_and_opposite_colours_give_gray() -> None:
    even = torch.tensor([0.3, -0.2]).view(1, 1, 2, 1, 1).expand(4, 1, 2, 6, 6)
    assert torch.allclose(in_middle_gray(even), even[0], atol=1e-6)
    assert torch.allclose(in_middle_gray(0.5 * even), 0.5 * even[0], atol=1e-6)
    assert torch.equal(in_middle_gray(torch.zeros(4, 1, 2, 6, 6)), torch.zeros(1, 2, 6, 6))
    assert torch.equal(in_middle_gray(torch.cat([even[:1], -even[:1]])), torch.zeros_like(even[0]))


def test_chance_colour_goes_and_agreed_colour_is_as_bold_as_before() -> None:
    """The left half of a photo is red in all colourings, the right one of another hue in each."""
    generator = torch.Generator().manual_seed(3)
    c = torch.zeros(4, 1, 2, 16, 16)
    c[:, :, 1, :, :8] = 0.4
    angle = 2 * np.pi * torch.rand(4, 1, 16, 8, generator=generator)
    c[:, :, :, :, 8:] = 0.4 * torch.stack([angle.cos(), angle.sin()], dim=2)
    calm = in_middle_gray(c)
    sure, chance = (half.norm(dim=1).mean().item() for half in calm.split(8, dim=-1))
    plain_sure, plain_chance = (half.norm(dim=1).mean().item() for half in c.mean(dim=0).split(8, dim=-1))
    assert sure > plain_sure
    assert chance / sure < 0.5 * plain_chance / plain_sure
    assert 0.4 < sure <= 0.4 * STRONGEST + 1e-6


def test_in_the_dark_colour_fades_more_and_most_where_colourings_disagree() -> None:
    """In a photo that is black at the left and middle gray at the right, and guessed in the lower half."""
    c = torch.tensor([0.3, 0.1]).view(2, 1, 1).repeat(4, 1, 1, 16, 16)
    c[..., 8:, :] += 0.3 * torch.randn(4, 1, 2, 8, 16, generator=torch.Generator().manual_seed(4))
    y = torch.full((1, 1, 32, 32), -1.0)
    y[..., 16:] = 0.0
    kept = agreed(c, y).norm(dim=1)[0]
    (black_sure, sure), (black_chance, chance) = (
        [half.mean().item() for half in row.split(8, dim=-1)] for row in kept.split(8, dim=0)
    )
    assert 0 < black_chance / chance < black_sure / sure < 1
    bright = torch.full((1, 1, 32, 32), 2 * DARK - 1)  # from DARK on, luma does not matter
    assert torch.equal(agreed(c, bright), agreed(c, torch.ones(1, 1, 32, 32)))
