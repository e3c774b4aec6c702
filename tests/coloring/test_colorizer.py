"""The door to a trained model: any photo keeps its size and luma, and gets the learned colours."""

from __future__ import annotations

import doctest
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import photochrom
from photochrom import model_folder
from photochrom.coloring.colorings import agreed
from photochrom.coloring.colorizer import Colorizer, default_detail, pick_device
from photochrom.coloring.hints import Palette
from photochrom.coloring.options import Hint
from photochrom.coloring.upsampling import lay_over
from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train

SEPIA = (-0.066, 0.096)  # (Cb, Cr) of every photo that the model has seen


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, sepia_pack: Pack, new_values: Callable[[], dict[str, Any]]
) -> ModelFolder:
    """A model that took 100 steps over photos of one tint."""
    values = new_values()
    values["data"] = {"photos_per_epoch": 800}
    values["training"]["learning_rate"] = 2e-2
    values["stages"] = [{"epochs": 1, "perceptual": 0.0}]
    folder = ModelFolder(tmp_path_factory.mktemp("models") / "sepia")
    train(build(values), folder, sepia_pack)
    return folder


@pytest.fixture(scope="module")
def colorizer(folder: ModelFolder) -> Colorizer:
    return Colorizer.load(folder.path)


def noise(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A photo of noise, which takes all luma there is."""
    shape = (size[1], size[0], 4 if "A" in mode else 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def levels(photo: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(photo.convert("L")).astype(np.int64)


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two RGB photos, in levels."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def chroma(photo: Image.Image) -> tuple[float, float]:
    """Mean (Cb, Cr), each from -0.5 to 0.5."""
    _, cb, cr = (np.asarray(photo.convert("YCbCr")).mean(axis=(0, 1)) - 128) / 255
    return float(cb), float(cr)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "unipc"])
def test_it_gives_the_colours_that_were_learned(colorizer: Colorizer, sampler: str) -> None:
    photos = [Image.new("L", (16, 16), level) for level in (80, 128, 160)]
    for photo in colorizer(photos, sampler=sampler):
        assert chroma(photo) == pytest.approx(SEPIA, abs=0.03)


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (91, 37)])
def test_at_any_size_too(colorizer: Colorizer, size: tuple[int, int]) -> None:
    assert chroma(colorizer(Image.new("L", size, 128))) == pytest.approx(SEPIA, abs=0.03)


@pytest.mark.parametrize(
    "size", [(16, 16), (64, 64), (37, 91), (91, 37), (15, 17), (18, 18), (5, 5), (1, 1), (1, 9), (300, 200)]
)
def test_size_and_luma_are_kept(colorizer: Colorizer, size: tuple[int, int]) -> None:
    photo = noise("L", size)
    coloured = colorizer(photo, steps=2)
    assert (coloured.mode, coloured.size) == ("RGB", size)
    assert np.abs(levels(coloured) - levels(photo)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "CMYK"])
def test_luma_is_pillows_in_every_mode(colorizer: Colorizer, mode: str) -> None:
    photo = noise(mode, (20, 16))
    before = photo.tobytes()
    coloured = colorizer(photo, steps=2)
    assert np.abs(levels(coloured) - levels(photo)).max() <= 1
    assert photo.tobytes() == before


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_stays_so(colorizer: Colorizer, mode: str) -> None:
    photo = noise(mode, (20, 16))
    coloured = colorizer(photo, steps=2)
    assert coloured.mode == "RGBA"
    assert np.array_equal(np.asarray(coloured.getchannel("A")), np.asarray(photo.getchannel("A")))
    assert np.abs(levels(coloured) - levels(photo)).max() <= 1


def test_sixteen_bits_are_scaled_and_not_cut_off(colorizer: Colorizer) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (16, 20), dtype=np.uint16)
    coloured = colorizer(Image.fromarray(deep), steps=2)
    assert np.abs(levels(coloured) - deep / 257).max() <= 2


def test_the_colours_of_a_colour_photo_are_not_seen(colorizer: Colorizer) -> None:
    photo = noise("RGB", (16, 16))
    assert apart(colorizer(photo), colorizer(photo.convert("L"))) == 0


def test_black_stays_black_and_white_white(colorizer: Colorizer) -> None:
    for level in (0, 255):
        photo = Image.new("L", (20, 16), level)
        assert np.unique(np.asarray(colorizer(photo))).tolist() == [level]


def test_many_photos_are_coloured_as_each_alone(colorizer: Colorizer, tmp_path: Path) -> None:
    photos = [
        noise("L", size, seed) for seed, size in enumerate([(16, 16), (30, 20), (16, 16), (30, 20), (9, 9)])
    ]
    photos[2].save(tmp_path / "photo.png")
    together = colorizer([*photos[:2], tmp_path / "photo.png", *photos[3:]])
    for photo, found in zip(photos, together, strict=True):
        assert apart(found, colorizer(photo)) <= 1
    assert apart(colorizer(str(tmp_path / "photo.png")), together[2]) <= 1
    assert colorizer([]) == []


def test_more_photos_than_one_batch_holds(colorizer: Colorizer) -> None:
    photos = [noise("L", (16, 16), seed) for seed in range(35)]
    together = colorizer(photos, steps=2)
    assert max(apart(together[i], colorizer(photos[i], steps=2)) for i in (0, 31, 32, 34)) <= 1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "unipc"])
def test_the_seed_decides(colorizer: Colorizer, sampler: str) -> None:
    photo, state = noise("L", (20, 16)), torch.get_rng_state()
    first = colorizer(photo, seed=1, steps=5, sampler=sampler)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert apart(first, colorizer(photo, seed=1, steps=5, sampler=sampler)) == 0
    assert apart(first, colorizer(photo, seed=2, steps=5, sampler=sampler)) > 5


def test_it_is_found_by_name_by_folder_and_by_file(colorizer: Colorizer, folder: ModelFolder) -> None:
    photo = noise("L", (16, 16))
    expected = colorizer(photo)
    for loaded in (
        Colorizer.load("sepia", models=folder.path.parent),
        Colorizer.load(folder.path),
        Colorizer.load(str(folder / model_folder.WEIGHTS)),
        photochrom.Colorizer.load(folder.path, device="cpu"),
    ):
        assert apart(loaded(photo), expected) == 0
    assert colorizer.config == folder.config


def test_it_is_the_best_epochs_averaged_network(colorizer: Colorizer, folder: ModelFolder) -> None:
    averaged = model_folder.read_checkpoint(folder / model_folder.BEST)["ema_state_dict"]
    for key, value in colorizer.network.state_dict().items():
        torch.testing.assert_close(value.float(), averaged[key], atol=1e-3, rtol=5e-3)  # may be bfloat16
    assert not colorizer.network.training
    assert not any(weight.requires_grad for weight in colorizer.network.parameters())


def test_progress_counts_all_steps_of_all_batches(colorizer: Colorizer) -> None:
    seen: list[tuple[int, int]] = []
    photos = [noise("L", (16, 16)), noise("L", (32, 16))]
    colorizer(photos, steps=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_an_unknown_model_lists_those_there_are(folder: ModelFolder) -> None:
    with pytest.raises(PhotochromError, match=r"no model 'selenium' in .*; there are: sepia$"):
        Colorizer.load("selenium", models=folder.path.parent)


def test_weights_that_do_not_fit_their_configuration_are_told(folder: ModelFolder, tmp_path: Path) -> None:
    config, tensors = model_folder.read_weights(folder / model_folder.WEIGHTS)
    other = ModelFolder(tmp_path)
    wider = config.model_copy(update={"model": config.model.model_copy(update={"features": (16, 16)})})
    other.save_weights(tensors, wider)
    with pytest.raises(PhotochromError, match=r"model\.safetensors: '.*' has shape .*, this network expects"):
        Colorizer.load(other / model_folder.WEIGHTS)


@pytest.mark.parametrize("name", ["cuda:99", "toaster", ""])
def test_a_device_that_is_not_there_is_told(folder: ModelFolder, name: str) -> None:
    with pytest.raises(UsageError, match=f"^device '{name}' cannot be used here: ") as caught:
        Colorizer.load(folder.path, device=name)
    assert "\n" not in str(caught.value)


def test_some_device_is_always_there() -> None:
    assert pick_device().type in {"cpu", "cuda", "mps"}
    assert pick_device("cpu") == torch.device("cpu")


def test_wrong_options_are_told(colorizer: Colorizer, tmp_path: Path) -> None:
    photo = noise("L", (16, 16))
    with pytest.raises(UsageError, match=r"51 sampling steps.*take 1 to 50"):
        colorizer(photo, steps=51)
    with pytest.raises(UsageError, match=r"sampler = 'euler': .*'ddim'"):
        colorizer(photo, sampler="euler")
    with pytest.raises(PhotochromError, match=r"old\.jpg"):
        colorizer(tmp_path / "old.jpg")


def test_the_example_in_the_documentation_runs(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder.path, "models/my_model")
    noise("L", (30, 20)).save("old.jpg")
    noise("L", (16, 16)).save("other.png")
    (example,) = doctest.DocTestFinder(recurse=False).find(Colorizer, globs={})
    result = doctest.DocTestRunner().run(example)
    assert (result.failed, result.attempted) == (0, len(example.examples))
    assert Path("coloured.png").is_file()


def test_samples_are_the_colourings_of_the_next_seeds(colorizer: Colorizer) -> None:
    photo = noise("L", (40, 30))
    samples = colorizer.samples(photo, 3, seed=5, steps=4)
    assert len(samples) == 3
    for number, picture in enumerate(samples):
        assert apart(picture, colorizer(photo, seed=5 + number, steps=4)) <= 1
    assert [picture.size for picture in samples[1:]] == [(40, 30)] * 2
    assert apart(samples.average(), colorizer(photo, seed=5, average=3, steps=4)) <= 1
    several = colorizer.samples([photo, photo.convert("RGB")], 2, seed=5, steps=4)
    assert [len(each) for each in several] == [2, 2]
    assert apart(several[1][1], samples[1]) <= 1


def test_strength_leaves_hints_as_they_are_and_so_does_agreement(colorizer: Colorizer) -> None:
    photo = Image.new("L", (64, 64), 110)
    hints = [Hint(32, 32, (150, 100, 90))]
    for options in ({"strength": 0.2}, {"strength": 1.8}, {"average": 4}):
        pixel = np.asarray(colorizer(photo, hints=hints, steps=3, **options))[32, 32].astype(int)
        assert np.abs(pixel - (150, 100, 90)).max() <= 8, options  # the luma stays the photo's


def test_a_palette_is_laid_on_what_is_agreed_on(colorizer: Colorizer) -> None:
    """Not on each colouring before: then what they agree on would have other colours than the reference."""
    photo, like = noise("L", (32, 32)), noise("RGB", (24, 24), seed=1)
    plain = colorizer.samples(photo, 4, steps=2)
    c = Palette(like).applied(agreed(plain.c[:, None], plain.seen.y), plain.seen.y)
    wanted = lay_over(photo, plain.seen, 0.8 * c)
    found = colorizer(photo, average=4, like=like, strength=0.8, steps=2)
    assert apart(found, wanted) <= 1
    assert apart(plain.average(), wanted) > 20


def test_uncertainty_is_where_samples_disagree(colorizer: Colorizer) -> None:
    samples = colorizer.samples(Image.new("L", (64, 32), 128), 2, steps=2)
    assert colorizer.samples(Image.new("L", (64, 32), 128), 1, steps=2).uncertainty().getextrema() == (0, 0)
    samples.c[:] = 0
    samples.c[0, 0, :, 8:] = 0.1 / 0.144  # Cb of one is 0.1 more in the right half: 0.05 from the mean
    map = np.asarray(samples.uncertainty())
    assert map[:, :24].max() == 0
    assert np.unique(map[:, 40:]).tolist() == [round(0.05 / 0.15 * 255)]


def test_strength_scales_chroma(colorizer: Colorizer) -> None:
    photo = Image.new("L", (32, 32), 128)
    plain, half, none = (colorizer(photo, strength=strength) for strength in (1, 0.5, 0))
    assert chroma(half) == pytest.approx([part / 2 for part in chroma(plain)], abs=0.005)
    assert np.ptp(np.asarray(none), axis=2).max() == 0


def test_less_temperature_makes_colourings_more_alike(colorizer: Colorizer) -> None:
    photo = noise("L", (32, 32))
    spread = [
        float(colorizer.samples(photo, 4, temperature=temperature, steps=8).c.var(dim=0).mean())
        for temperature in (1.0, 0.3)
    ]
    assert spread[1] < 0.5 * spread[0]


def test_a_hint_colours_its_place_and_leaves_what_is_far(colorizer: Colorizer) -> None:
    photo = Image.new("L", (96, 96), 128)
    photo.paste(60, (48, 0, 96, 96))
    free, hinted = colorizer(photo), colorizer(photo, hints=[Hint(20, 48, (60, 100, 220))])
    place = (16, 44, 24, 52)
    expected = chroma(Image.new("RGB", (1, 1), (60, 100, 220)))
    assert chroma(hinted.crop(place)) == pytest.approx(expected, abs=0.03)
    far = (60, 0, 96, 96)
    assert chroma(hinted.crop(far)) == pytest.approx(chroma(free.crop(far)), abs=0.02)


def test_like_takes_on_the_colours_of_another_photo(colorizer: Colorizer) -> None:
    blue = Image.merge("RGB", [noise("L", (32, 32)).point(lambda v, k=k: v // 2 + k) for k in (20, 40, 110)])
    like = colorizer(noise("L", (48, 32), 1), like=blue)
    assert chroma(like) == pytest.approx(chroma(blue), abs=0.03)


def test_detail_is_the_size_that_the_network_sees(colorizer: Colorizer) -> None:
    samples = colorizer.samples(noise("L", (90, 60)), 1, detail=32, steps=2)
    assert (samples.seen.height, samples.seen.width) == (32, 48)


@pytest.mark.parametrize(
    ("encoder", "trained", "sides", "size", "side"),
    [
        ("none", 64, (), (4000, 3000), 64),
        ("vgg16", 64, (), (4000, 3000), 128),
        ("vgg16", 64, (), (100, 90), 90),
        ("vgg16", 64, (), (40, 30), 64),
        ("vgg16", 64, (), (4000, 2000), 128),
        ("vgg16", 64, (), (2000, 8000), 91),  # as many pixels as 128 x 256: 91 x 364
        ("vgg16", 64, (), (3000, 200), 64),
        ("lite0", 128, (), (4000, 3000), 224),
        ("lite0", 128, (), (170, 160), 160),
        ("lite0", 256, (), (4000, 3000), 256),
        ("lite0", 192, (128, 192), (4000, 3000), 224),
        ("lite0", 192, (128, 192), (64, 64), 128),  # the smallest that it knows, which is the fastest
    ],
)
def test_an_encoder_sees_large_photos_at_twice_the_size_of_the_training_up_to_224(
    encoder: str, trained: int, sides: tuple[int, ...], size: tuple[int, int], side: int
) -> None:
    config = build({"model": {"encoder": encoder}, "data": {"size": trained, "sides": sides}})
    assert default_detail(config, size) == side


def test_places_belong_to_a_single_photo(colorizer: Colorizer) -> None:
    with pytest.raises(UsageError, match="colour the others separately"):
        colorizer([noise("L", (16, 16))] * 2, hints=[Hint(1, 1, (1, 2, 3))])


# Mean (Cb, Cr) of the left and of the right half, as the version before `Options` made them.
RECORDED: dict[str, tuple[dict[str, Any], list[float]]] = {
    "plain": ({}, [118.2, 131.1, 119.2, 138.4]),
    "seed": ({"seed": 7, "steps": 5}, [120.8, 134.2, 122.5, 137.4]),
    "ddpm": ({"sampler": "ddpm", "steps": 10}, [120.9, 142.5, 118.3, 141.3]),
    "dpm++": ({"sampler": "dpm++", "steps": 6, "detail": 24}, [120.9, 139.4, 115.7, 140.7]),
    "unipc": (
        {"sampler": "unipc", "steps": 6, "temperature": 0.5, "strength": 1.4},
        [115.3, 136.7, 115.0, 142.8],
    ),
    "hint": ({"hints": [Hint(20, 12, (200, 40, 40))], "steps": 4}, [115.7, 144.2, 116.0, 146.3]),
    "like": ({"like": "LIKE", "steps": 4}, [125.2, 164.6, 107.3, 171.6]),
    "gray": ({"keep_gray": "MASK", "steps": 4}, [120.0, 130.9, 127.6, 128.2]),
}


@pytest.mark.parametrize("name", RECORDED)
def test_colours_are_those_of_earlier_versions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("photochrom.coloring.colorizer.bfloat16_is_faster", lambda: False)
    model = {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1}
    config = build({"model": model, "diffusion": {"timesteps": 50}, "data": {"size": 16}})
    network = UNet(config.model).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        spread = 0.3 if weight.dim() == 1 else weight[0].numel() ** -0.5
        weight.copy_(spread * torch.randn(weight.shape, generator=generator))
    rows, columns = np.mgrid[0:24, 0:40]
    photo = Image.fromarray((60 + 2 * rows + 3 * columns).astype(np.uint8))
    bands = (photo, photo.point(lambda v: v // 2), photo.point(lambda v: 255 - v))
    pictures = {"LIKE": Image.merge("RGB", bands), "MASK": photo.point(lambda v: 255 * (v > 130))}
    options, expected = RECORDED[name]
    given: dict[str, Any] = {
        key: pictures.get(value, value) if isinstance(value, str) else value for key, value in options.items()
    }
    coloured = Colorizer(config, network, "cpu")(photo, **given)
    halves = np.asarray(coloured.convert("YCbCr"))[..., 1:].reshape(24, 2, 20, 2).mean(axis=(0, 2))
    assert halves.ravel() == pytest.approx(expected, abs=1.0)
