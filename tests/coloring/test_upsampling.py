"""Enlarged chroma keeps the photo's luma, follows its edges, and needs no more memory for a large photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom.coloring import upsampling
from photochrom.coloring.upsampling import cubic, guided, interpolation, lay_over, linear, slope, view
from photochrom.diffusion import color
from photochrom.diffusion.color import to_images


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8))


@pytest.mark.parametrize(("kernel", "reach", "mode"), [(linear, 1, "bilinear"), (cubic, 2, "bicubic")])
@pytest.mark.parametrize("factor", [1, 2, 5])
def test_interpolation_is_that_of_torch(
    kernel: upsampling.Kernel, reach: int, mode: str, factor: int
) -> None:
    small = torch.randn(1, 1, 1, 9, generator=torch.Generator().manual_seed(0))
    found = small @ interpolation(9 * factor, 9, 1 / factor, kernel, reach).T
    # torch's cubic has another free parameter (-0.75): antialiased enlarging has Keys' -0.5
    expected = torch.nn.functional.interpolate(
        small.expand(1, 1, 9, 9), (9 * factor, 9 * factor), mode=mode, antialias=True
    )[:, :, :1]
    inner = slice(
        2 * factor, -2 * factor
    )  # at the border they renormalise, we go on with the outermost pixel
    torch.testing.assert_close(found[..., inner], expected[..., inner], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "size", "scale"), [(100, 7, 0.07), (5, 9, 1.7), (30_000, 64, 64 / 30_000)])
def test_what_is_even_stays_even(count: int, size: int, scale: float) -> None:
    for kernel, reach in ((linear, 1), (cubic, 2)):
        matrix = interpolation(count, size, scale, kernel, reach)
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(count))


def test_where_chroma_is_linear_in_luma_the_slope_is_found() -> None:
    y = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    found = slope(y, torch.cat([3 * y + 1, -2 * y], dim=1))
    assert (found[:, 0] > 2.8).all()  # EPSILON makes it a little less than 3
    assert (found[:, 0] <= 3).all()
    torch.testing.assert_close(found[:, 1], found[:, 0] * (-2 / 3))


def test_an_edge_that_the_small_size_blurs_is_sharp_again() -> None:
    """Left dark and blue, right bright and orange: the edge of the colours must lie on that of luma."""
    luma = Image.new("L", (640, 320), 70)
    luma.paste(190, (333, 0, 640, 320))
    seen = view(luma, 32, 16, 2)
    small_y = torch.nn.functional.avg_pool2d(seen.y, 2)
    share = (small_y - small_y.min()) / (small_y.max() - small_y.min())
    c = torch.cat([0.6 - 1.2 * share, -0.5 + share], dim=1)
    strips = [chroma for _, _, chroma in guided(luma, small_y, c, seen.extent)]
    cb = torch.cat(strips, dim=2)[0, 0, 160]
    wide = torch.nn.functional.interpolate(c, size=(320, 640), mode="bilinear")[0, 0, 160]
    true = torch.where(torch.arange(640) < 333, 0.6, -0.6)
    near = slice(300, 366)
    assert (cb - true)[near].abs().mean() < 0.35 * (wide - true)[near].abs().mean()


def test_no_chroma_appears_that_was_not_near() -> None:
    luma, generator = noise((200, 120)), torch.Generator().manual_seed(1)
    seen = view(luma, 32, 16, 2)
    c = torch.randn(1, 2, *(side // 2 for side in seen.y.shape[-2:]), generator=generator)
    small_y = torch.nn.functional.avg_pool2d(seen.y, 2)
    for _, _, chroma in guided(luma, small_y, c, seen.extent):
        assert (chroma.amax(dim=(0, 2, 3)) <= c.amax(dim=(0, 2, 3)) + 1e-5).all()
        assert (chroma.amin(dim=(0, 2, 3)) >= c.amin(dim=(0, 2, 3)) - 1e-5).all()


@pytest.mark.parametrize("size", [(64, 64), (333, 200), (37, 91), (1, 1), (1, 200), (3000, 2)])
def test_luma_is_kept_within_one_level(size: tuple[int, int]) -> None:
    luma = noise(size)
    seen = view(luma, 32, 16, 2)
    shape = (1, 2, *(side // 2 for side in seen.y.shape[-2:]))
    picture = lay_over(luma, seen, 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert (picture.mode, picture.size) == ("RGB", size)
    assert np.abs(np.asarray(picture.convert("L")).astype(int) - np.asarray(luma)).max() <= 1


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    luma = noise((90, 70))
    seen = view(luma, 32, 16, 2)
    c = torch.randn(
        1, 2, *(side // 2 for side in seen.y.shape[-2:]), generator=torch.Generator().manual_seed(0)
    )
    whole = np.asarray(lay_over(luma, seen, c)).astype(int)
    monkeypatch.setattr(upsampling, "STRIP_PIXELS", 200)
    assert np.abs(np.asarray(lay_over(luma, seen, c)).astype(int) - whole).max() <= 1


def test_chroma_of_the_photos_own_size_is_taken_as_it_is() -> None:
    luma = noise((32, 32))
    c = 0.3 * torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = view(luma, 32, 8, 1)
    expected = np.asarray(to_images(seen.y, c)[0]).astype(int)
    assert np.abs(np.asarray(lay_over(luma, seen, c)).astype(int) - expected).max() <= 1


def test_what_the_mask_says_stays_gray() -> None:
    luma = noise((50, 40))
    seen = view(luma, 32, 16, 2)
    mask = Image.new("L", luma.size)
    mask.paste(255, (0, 0, 25, 40))
    shape = (1, 2, *(side // 2 for side in seen.y.shape[-2:]))
    pixels = np.asarray(lay_over(luma, seen, torch.full(shape, 0.5), mask)).astype(int)
    assert np.array_equal(pixels[:, :25], np.repeat(np.asarray(luma)[:, :25, None], 3, axis=2))
    assert np.ptp(pixels[:, 25:], axis=2).max() > 20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (64, 85)),
        ((64, 64), (64, 64)),
        ((30_000, 2), (64, 512)),
        ((1, 1), (64, 64)),
        ((90, 40), (64, 144)),
    ],
)
def test_the_network_sees_the_shorter_side_as_told(size: tuple[int, int], expected: tuple[int, int]) -> None:
    seen = view(Image.new("L", size, 100), 64, 16, 2)
    assert (seen.height, seen.width) == expected
    assert all(
        side % 16 == 0 and side - own < 16 for side, own in zip(seen.y.shape[-2:], expected, strict=True)
    )
    torch.testing.assert_close(seen.y, torch.full_like(seen.y, 100 / 127.5 - 1))


def test_true_chroma_comes_back_better_than_by_interpolation() -> None:
    from skimage import data

    photo = Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call]
    rgb = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 255
    _, true = color.from_rgb(rgb)
    seen = view(photo.convert("L"), 64, 2, 2)
    small = np.asarray(photo.resize((seen.width, seen.height), Image.Resampling.LANCZOS), dtype=np.float32)
    y, c = color.from_rgb(torch.from_numpy(small / 255).permute(2, 0, 1)[None, :, :64, :96], 2)
    strips = guided(photo.convert("L"), torch.nn.functional.avg_pool2d(y, 2), c, seen.extent)
    error = (torch.cat([chroma for _, _, chroma in strips], dim=2) - true).abs().mean()
    bilinear = torch.nn.functional.interpolate(c, size=true.shape[-2:], mode="bilinear")
    assert error < 0.95 * (bilinear - true).abs().mean()
