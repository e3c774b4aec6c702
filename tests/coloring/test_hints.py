"""A hint colours its place, spreads over similar places, and leaves the rest; so do masks and references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from photochrom.coloring.hints import LEVELS, Palette, gray_mask, held_places
from photochrom.coloring.options import Hint
from photochrom.coloring.upsampling import View, view
from photochrom.config import DiffusionConfig, ModelConfig, SamplerName
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion, KnownChroma, sample
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError

RED = (200, 40, 40)


def chroma_of(rgb: tuple[int, int, int]) -> Tensor:
    return color.from_rgb(torch.tensor(rgb).reshape(1, 3, 1, 1) / 255)[1].reshape(2)


def two_halves() -> tuple[Image.Image, View]:
    """A photo, dark on the left and bright on the right."""
    luma = Image.new("L", (128, 64), 60)
    luma.paste(180, (64, 0, 128, 64))
    return luma, view(luma, 64, 16, 2)


def test_hints_are_typed() -> None:
    assert Hint.parse("12,34,#a0B1c2") == Hint(12, 34, (160, 177, 194))
    assert Hint.parse(" 1, 2, ffffff ") == Hint(1, 2, (255, 255, 255))


@pytest.mark.parametrize(
    "text", ["", "1,2", "1,2,red", "-1,2,#ffffff", "1,2,#fff", "1.5,2,#ffffff", "1,2,#ffffff,3"]
)
def test_what_is_no_hint_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"write x,y,#rrggbb"):
        Hint.parse(text)


def test_a_hint_holds_its_object_and_not_what_differs() -> None:
    luma, seen = two_halves()
    held = held_places([Hint(40, 30, RED)], None, luma.size, seen)
    weight = held.weight[0, 0]
    assert weight[15, 20] == 1
    assert (weight[:, :30] > 0.1).float().mean() > 0.5
    assert weight[:, 34:].max() < 0.05
    torch.testing.assert_close(held.c[0, :, 15, 20], chroma_of(RED))


def test_of_two_hints_the_nearer_counts() -> None:
    luma, seen = two_halves()
    held = held_places([Hint(10, 30, RED), Hint(120, 30, (0, 0, 200))], None, luma.size, seen)
    torch.testing.assert_close(held.c[0, :, 10, 12], chroma_of(RED))
    torch.testing.assert_close(held.c[0, :, 10, 50], chroma_of((0, 0, 200)))


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (256, 128)])
def test_strokes_of_a_picture_are_hints(tmp_path: Path, size: tuple[int, int]) -> None:
    luma, seen = two_halves()
    strokes = Image.new("RGBA", size, (0, 0, 0, 0))
    x, y = round(size[0] * 40 / 128), round(size[1] * 30 / 64)
    ImageDraw.Draw(strokes).rectangle((x, y, x + 2, y + 2), fill=(*RED, 255))
    strokes.save(tmp_path / "hints.png")
    for given in (strokes, tmp_path / "hints.png", np.asarray(strokes)):
        held = held_places(given, None, luma.size, seen)
        torch.testing.assert_close(held.c[0, :, 15, 20], chroma_of(RED))
        assert held.weight[0, 0, 15, 20] == 1


def test_hints_that_cannot_be_are_told(tmp_path: Path) -> None:
    luma, seen = two_halves()
    with pytest.raises(
        UsageError, match=r"hint 128,3 is outside the photo, whose pixels go from 0,0 to 127,63"
    ):
        held_places([Hint(128, 3, RED)], None, luma.size, seen)
    with pytest.raises(UsageError, match=r"0 to 255"):
        held_places([Hint(1, 3, (1, 2, 256))], None, luma.size, seen)
    with pytest.raises(UsageError, match=r"not transparent"):
        held_places(Image.new("RGB", luma.size), None, luma.size, seen)
    with pytest.raises(UsageError, match=r"is transparent everywhere"):
        held_places(Image.new("RGBA", luma.size), None, luma.size, seen)
    with pytest.raises(UsageError, match=r"does not fit: it is 64x64, the photo 128x64"):
        held_places(Image.new("RGBA", (64, 64)), None, luma.size, seen)


def test_no_hints_hold_nothing() -> None:
    luma, seen = two_halves()
    assert held_places([], None, luma.size, seen).weight.max() == 0


def test_a_mask_is_held_gray_over_any_hint() -> None:
    luma, seen = two_halves()
    mask = Image.new("L", luma.size)
    mask.paste(255, (0, 0, 64, 64))
    held = held_places([Hint(40, 30, RED), Hint(100, 30, RED)], mask, luma.size, seen)
    assert (held.weight[..., :31] == 1).all()
    assert held.c[..., :31].abs().max() == 0
    torch.testing.assert_close(held.c[0, :, 15, 50], chroma_of(RED))


def test_a_mask_of_another_size_but_the_same_shape_fits() -> None:
    mask = gray_mask(Image.new("L", (64, 32), 255), (128, 64))
    assert (mask.size, mask.getextrema()) == ((128, 64), (255, 255))
    with pytest.raises(UsageError, match="the mask does not fit"):
        gray_mask(Image.new("L", (64, 64)), (128, 64))


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc", "ddpm"])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_is_held_comes_out_of_every_sampler(prediction: str, sampler: SamplerName) -> None:
    torch.manual_seed(0)
    network = UNet(ModelConfig(features=(8, 16), time_embedding=16, blocks=1, attention=1)).eval()
    torch.nn.init.normal_(network.head[-1].weight, std=0.1)  # type: ignore[arg-type]
    diffusion = Diffusion(
        DiffusionConfig(timesteps=50, prediction=prediction, zero_terminal_snr=prediction == "v")
    )
    y = torch.rand(2, 1, 16, 16) * 2 - 1
    weight = torch.zeros(1, 1, 8, 8)
    weight[..., 2:5, 2:5] = 1
    held = KnownChroma(torch.full((1, 2, 8, 8), 0.7), weight)

    def draw(held: KnownChroma | None) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return sample(network, diffusion, y, generators, 20, sampler, held=held)

    free, hinted = draw(None), draw(held)
    assert (hinted[..., 2:5, 2:5] - 0.7).abs().max() < 0.05
    assert (free[..., 2:5, 2:5] - 0.7).abs().max() > 0.3
    torch.testing.assert_close(draw(KnownChroma(held.c, 0 * weight)), free, atol=1e-3, rtol=1e-3)


def test_temperature_scales_the_first_noise() -> None:
    network = UNet(ModelConfig(features=(8,), time_embedding=16, blocks=1, attention=0)).eval()  # says v = 0
    diffusion, y = Diffusion(DiffusionConfig(timesteps=50)), torch.zeros(1, 1, 16, 16)

    def draw(temperature: float) -> Tensor:
        generators = [torch.Generator().manual_seed(0)]
        return sample(network, diffusion, y, generators, 1, temperature=temperature)

    seen: list[Tensor] = []
    for temperature in (1.0, 0.5):
        xt: list[Tensor] = []
        network.register_forward_pre_hook(lambda module, inputs, xt=xt: xt.append(inputs[0]))
        draw(temperature)
        seen.append(xt[0])
    torch.testing.assert_close(seen[1], 0.5 * seen[0])


def random_colours(mean: tuple[float, float], spread: float, seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(1, 1, 64, 64, generator=generator) - 0.5
    c = spread * torch.randn(1, 2, 64, 64, generator=generator) + torch.tensor(mean).reshape(1, 2, 1, 1)
    pixels = (color.into_gamut(color.to_rgb(y, c), y) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels[0].permute(1, 2, 0).numpy())


def test_a_palette_brings_mean_and_spread_at_every_luma() -> None:
    reference = random_colours((-0.3, 0.4), 0.15, seed=1)
    y = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2)) - 0.5
    c = 0.1 * torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(3)) + 0.2 * y[..., ::2, ::2]
    found = Palette(reference).applied(c, y)
    torch.testing.assert_close(found.mean(dim=(2, 3)), torch.tensor([[-0.3, 0.4]] * 2), atol=0.02, rtol=0)
    assert found.std(dim=(2, 3)).sub(0.15).abs().max() < 0.03
    dark = torch.nn.functional.avg_pool2d(y, 2) < -0.1
    assert (found[:, :1][dark].mean() + 0.3).abs() < 0.03


def test_a_gray_photo_is_no_reference() -> None:
    with pytest.raises(UsageError, match="has no colours"):
        Palette(Image.new("L", (8, 8), 99))


def test_limits_are_those_that_the_photo_has(tmp_path: Path) -> None:
    """What is told to be mended by --max-megapixels and --truncated is mended by them."""
    mask = Image.new("L", (40, 30), 255)
    mask.save(tmp_path / "mask.png")
    with pytest.raises(PhotochromError, match="--max-megapixels"):
        gray_mask(tmp_path / "mask.png", (40, 30), 0.001)
    assert gray_mask(tmp_path / "mask.png", (40, 30), 0.0012).size == (40, 30)
    like = tmp_path / "like.jpg"
    tinted = Image.merge(
        "RGB", [Image.effect_noise((64, 64), 60), Image.new("L", (64, 64), 90), Image.new("L", (64, 64), 30)]
    )
    tinted.save(like, quality=95)
    whole = like.read_bytes()
    like.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(PhotochromError, match="--truncated"):
        Palette(like)
    assert Palette(like, truncated=True).mean.shape == (2, LEVELS)
    luma, seen = two_halves()
    strokes = Image.new("RGBA", luma.size)
    strokes.paste((*RED, 255), (5, 5, 9, 9))
    strokes.save(tmp_path / "strokes.png")
    with pytest.raises(PhotochromError, match="--max-megapixels"):
        held_places(tmp_path / "strokes.png", None, luma.size, seen, 0.001)
    assert held_places(tmp_path / "strokes.png", None, luma.size, seen, 0.01).weight.max() == 1
