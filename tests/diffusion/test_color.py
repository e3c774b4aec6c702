"""Luma and chroma against Pillow and scikit-image, and luma kept for any photo and any predicted chroma."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.color import rgb2ycbcr
from torch import Tensor

from photochrom.diffusion.color import (
    CHROMA_UNIT,
    LARGEST_CHROMA,
    from_rgb,
    into_gamut,
    luma,
    to_images,
    to_rgb,
)

Pixels = npt.NDArray[np.uint8]

SIDE = 8
photos = arrays(np.uint8, (SIDE, SIDE, 3), elements=st.integers(0, 255))
scales = st.sampled_from([1, 2, 4])


def tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def levels(image: Image.Image) -> npt.NDArray[np.int16]:
    """What Pillow calls the luma of an image, with a sign so that differences do not wrap round."""
    return np.asarray(image.convert("L")).astype(np.int16)


def noise_photo(seed: int, side: int = 64) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def corners() -> Tensor:
    """The 8 corners of the RGB cube, as (1, 3, 2, 4): no colours are further from gray."""
    bits = torch.arange(8)
    return torch.stack([bits >> 2 & 1, bits >> 1 & 1, bits & 1]).float().reshape(1, 3, 2, 4)


def test_luma_is_pillows_mode_l() -> None:
    pixels = noise_photo(0)
    ours = luma(tensor(pixels))[0, 0].numpy() * 255
    # Pillow's weights are sixteenths of a bit coarser, and it rounds to whole levels.
    assert np.abs(ours - levels(Image.fromarray(pixels))).max() < 0.51


def test_luma_and_chroma_are_pillows_ycbcr() -> None:
    pixels = noise_photo(1)
    y, c = from_rgb(tensor(pixels))
    ours = torch.cat([(y + 1) / 2 * 255, c * CHROMA_UNIT * 255 + 128], dim=1)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(pixels).convert("YCbCr")).astype(float)
    above = ours - theirs  # Pillow cuts off what follows the point, after sums in 64ths of a level
    assert above.min() > -0.05
    assert above.max() < 1.05


def test_luma_and_chroma_are_scikit_images_ycbcr() -> None:
    pixels = noise_photo(2)
    y, c = from_rgb(tensor(pixels).double())
    studio = rgb2ycbcr(pixels)  # luma in 16..235, chroma in 16..240
    np.testing.assert_allclose((y[0, 0] + 1) / 2, (studio[..., 0] - 16) / 219, atol=1e-5)
    np.testing.assert_allclose(c[0].permute(1, 2, 0) * CHROMA_UNIT, (studio[..., 1:] - 128) / 224, atol=1e-5)


def test_shapes_and_ranges() -> None:
    y, c = from_rgb(corners().repeat(2, 1, 2, 1), scale=2)
    assert y.shape == (2, 1, 4, 4)
    assert c.shape == (2, 2, 2, 2)
    y, c = from_rgb(corners())
    assert y.min() == -1
    assert y.max() == pytest.approx(1)
    assert c.amax(dim=(0, 2, 3)).tolist() == pytest.approx([LARGEST_CHROMA, LARGEST_CHROMA])
    assert c.amin(dim=(0, 2, 3)).tolist() == pytest.approx([-LARGEST_CHROMA, -LARGEST_CHROMA])


@given(photos)
def test_a_true_photo_comes_back_within_one_level(pixels: Pixels) -> None:
    again = np.asarray(to_images(*from_rgb(tensor(pixels)))[0]).astype(int)
    assert np.abs(again - pixels).max() <= 1


def test_a_gray_photo_has_no_chroma() -> None:
    gray = torch.linspace(0, 1, 256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    _, c = from_rgb(gray)
    torch.testing.assert_close(c, torch.zeros_like(c), atol=1e-5, rtol=0)


@given(
    photos,
    arrays(np.float32, (2, SIDE, SIDE), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([1e-6, 1e-3, 1.0]),
    scales,
)
def test_luma_is_kept_whatever_chroma_is_predicted(
    pixels: Pixels, chroma: npt.NDArray[np.float32], size: float, scale: int
) -> None:
    y, _ = from_rgb(tensor(pixels))
    c = torch.from_numpy(chroma)[None, :, : SIDE // scale, : SIDE // scale] * size
    coloured = to_images(y, c)[0]
    assert np.abs(levels(coloured) - levels(Image.fromarray(pixels))).max() <= 1


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_luma_is_kept_over_many_pixels(scale: int) -> None:
    pixels = noise_photo(3, side=256)
    y, _ = from_rgb(tensor(pixels))
    c = torch.randn(1, 2, 256 // scale, 256 // scale, generator=torch.Generator().manual_seed(0)) * 2
    coloured = to_images(y, c)[0]
    assert np.abs(levels(coloured) - levels(Image.fromarray(pixels))).max() <= 1


def test_black_and_white_stay_black_and_white() -> None:
    y = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
    c = torch.full((1, 2, 1, 2), 3.0)
    assert np.asarray(to_images(y, c)[0]).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def predictions(count: int = 4000) -> tuple[Tensor, Tensor]:
    """RGB of any range with its luma: (count, 3, 1, 1) and (count, 1, 1, 1), in float64."""
    generator = torch.Generator().manual_seed(4)
    y = torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float64) * 2 - 1
    c = torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64) * 2
    return to_rgb(y, c), y


def test_into_gamut_is_legal_and_keeps_luma_and_hue() -> None:
    rgb, y = predictions()
    Y, legal = (y + 1) / 2, into_gamut(rgb, y)
    assert legal.min() >= 0
    assert legal.max() <= 1
    torch.testing.assert_close(luma(legal), Y)
    d, after = rgb - Y, legal - Y
    factor = (d * after).sum(1, keepdim=True) / (d * d).sum(1, keepdim=True)
    assert factor.min() > 0
    assert factor.max() <= 1 + 1e-12
    torch.testing.assert_close(after, factor * d)  # the same direction from gray: the same hue
    assert (factor < 0.999).float().mean() > 0.3, "too few illegal colours to prove anything"


def test_into_gamut_leaves_legal_colours_alone() -> None:
    rgb = torch.cat([tensor(noise_photo(5)), tensor(noise_photo(6))])
    torch.testing.assert_close(into_gamut(rgb, 2 * luma(rgb) - 1), rgb, atol=1e-6, rtol=0)
    edge = corners()
    torch.testing.assert_close(into_gamut(edge, 2 * luma(edge) - 1), edge, atol=1e-6, rtol=0)


def test_into_gamut_goes_as_far_as_a_search_can() -> None:
    rgb, y = predictions(500)
    Y = (y + 1) / 2
    d = rgb - Y

    def legal(k: Tensor) -> Tensor:
        there = Y + k * d
        return ((there >= 0) & (there <= 1)).all(dim=1, keepdim=True)

    low, high = torch.zeros_like(Y), torch.ones_like(Y)
    for _ in range(60):
        middle = (low + high) / 2
        inside = legal(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    torch.testing.assert_close(into_gamut(rgb, y), Y + low * d, atol=1e-9, rtol=0)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0], ids=["black", "gray", "white"])
@pytest.mark.parametrize("chroma", [0.0, 0.5, 3.0])
def test_gradients(level: float, chroma: float) -> None:
    y = torch.full((1, 1, 4, 4), level)
    c = torch.full((1, 2, 2, 2), chroma, requires_grad=True)
    true = torch.full((1, 3, 4, 4), 0.5)
    rgb = to_rgb(y, c)
    torch.autograd.backward(((rgb - true) ** 2 + rgb[:, :1]).sum())
    assert c.grad is not None
    assert c.grad.isfinite().all()
    assert (c.grad != 0).all()

    y.requires_grad_()
    c.grad = None
    torch.autograd.backward(into_gamut(to_rgb(y, c), y).square().sum())
    assert c.grad is not None
    assert c.grad.isfinite().all()
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_half_size_chroma_of_a_smooth_photo_is_nearly_lossless() -> None:
    colours = Image.fromarray(noise_photo(7, side=5))
    pixels = np.asarray(colours.resize((64, 64), Image.Resampling.BICUBIC))
    again = np.asarray(to_images(*from_rgb(tensor(pixels), scale=2))[0]).astype(float)
    psnr = 10 * np.log10(255**2 / np.mean((again - pixels) ** 2))
    assert psnr > 40
