"""The scripts among the recipes: what they leave out of a data set, and what they keep together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment

from photochrom import flags
from photochrom.data.pack import Pack

RECIPES = Path(__file__).parents[1] / "recipes"
Pixels = npt.NDArray[np.uint8]


def scene(seed: int, side: int = 160) -> Image.Image:
    """Something like a photo: smooth colours that luma does not explain, with grain."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(20, 235, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    grain = generator.integers(-4, 5, smooth.shape)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def sepia(image: Image.Image) -> Image.Image:
    luma = np.asarray(image.convert("L")).astype(float)
    return Image.fromarray(
        np.stack([luma * 0.9 + 25, luma * 0.8 + 15, luma * 0.65 + 5], axis=-1).astype(np.uint8)
    )


def framed(image: Image.Image) -> Image.Image:
    whole = Image.new("RGB", image.size, "white")
    whole.paste(image.crop((20, 20, 140, 140)), (20, 20))
    return whole


def drawing() -> Image.Image:
    image = Image.new("RGB", (160, 160), (250, 240, 60))
    ImageDraw.Draw(image).ellipse((40, 40, 120, 120), (200, 30, 30))
    return image


def save(image: Image.Image, path: Path, quality: int = 95) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(RECIPES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Path]:
    """A data set of two sources; `lsp` has what should be left out, and twenty photos twice."""
    originals = tmp_path_factory.mktemp("originals")
    for i in range(40):
        save(scene(i), originals / "lsp" / f"{i}.jpg")
        save(scene(100 + i), originals / "pacs" / "dog" / f"{i}.jpg")
    for i in range(20):
        save(scene(i), originals / "lsp" / f"{i}-again.jpg", 60)
    odd = {
        "sepia": sepia(scene(50)),
        "gray": scene(51).convert("L"),
        "frame": framed(scene(52)),
        "drawing": drawing(),
    }
    for name, image in odd.items():
        save(image, originals / "lsp" / f"{name}.jpg")
    save(scene(53).crop((0, 0, 100, 100)), originals / "lsp" / "small.jpg")
    (originals / "lsp" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    save(scene(54), originals / "pacs" / "person" / "0.jpg")  # which lies elsewhere a second time
    for i in range(3):
        save(scene(55 + i, 400).crop((0, 0, 400, 260)), originals / "pacs" / "dog" / f"long-{i}.jpg")
    folder = originals.parent / "data" / "photos"
    run("photos.py", originals, folder, "--size", 64, "--test", 3, "--validation", 2)
    return Pack.open(folder), originals


def test_what_teaches_no_colours_is_left_out(made: tuple[Pack, Path]) -> None:
    pack, _ = made
    reasons = {Path(entry.origin).stem: entry.reason for entry in pack.left_out}
    assert reasons == {
        "sepia": "gray or tinted",
        "gray": "gray or tinted",
        "frame": "white frame or cut-out",
        "drawing": "plain border",
        "small": "too small",
        "broken": "broken",
    }
    assert not any("person" in origin for origin in pack.origin)


def test_each_source_gives_as_many_and_near_duplicates_lie_in_one_split(made: tuple[Pack, Path]) -> None:
    pack, _ = made
    for split, count in (("test", 3), ("validation", 2)):
        origins = pack.origins(pack.indices(split))
        assert sorted(origin.split("/")[0] for origin in origins) == ["lsp"] * count + ["pacs"] * count
    part = dict(zip(pack.origin, pack.split, strict=True))
    pairs = [(part.get(f"lsp/{i}.jpg"), part.get(f"lsp/{i}-again.jpg")) for i in range(20)]
    held_out = [pair for pair in pairs if pair != ("train", "train")]
    assert held_out  # or this would test nothing
    assert all(None in pair and {*pair} & {"test", "validation"} for pair in held_out)


def test_a_long_photo_trains_as_its_two_ends_and_a_closer_look(made: tuple[Pack, Path]) -> None:
    pack, originals = made
    trained = {origin for origin in pack.origins(pack.indices("train")) if "long" in origin}
    assert trained
    for origin in trained:
        whole = np.asarray(Image.open(originals / origin)).astype(float)
        rows = [row for row, other in enumerate(pack.origin) if other == origin]
        assert len(rows) == 3
        for row, left in zip(rows[:2], (0, 140), strict=True):
            true = whole[:, left : left + 260].mean(axis=(0, 1))
            assert pack.photos[row].mean(axis=(0, 1)) == pytest.approx(true, abs=1.5)


def test_another_source_changes_nothing_in_what_the_others_gave(
    made: tuple[Pack, Path], tmp_path: Path
) -> None:
    pack, originals = made
    both = tmp_path / "originals"
    both.mkdir()
    for source in ("lsp", "pacs"):
        (both / source).symlink_to(originals / source)
    for i in range(20):
        save(scene(200 + i), both / "weather" / f"{i}.jpg")
    run("photos.py", both, tmp_path / "more", "--size", 64, "--test", 3, "--validation", 2)
    more = Pack.open(tmp_path / "more")
    split = dict(zip(more.origin, more.split, strict=True))
    assert all(split[origin] == part for origin, part in zip(pack.origin, pack.split, strict=True))
    assert list(split.values()).count("test") == 9


def test_parts_for_a_machine_with_a_gpu_hold_the_same_photos(made: tuple[Pack, Path], tmp_path: Path) -> None:
    """All validation photos, training photos that fit, no test photo.

    Unpacked they are the same, up to AVIF.
    """
    pack, _ = made
    run("quarter_hour.py", "parts", pack.folder, tmp_path / "parts", "--megabytes", 1)
    code = (
        f"import sys; sys.path.insert(0, {str(RECIPES)!r}); from pathlib import Path; import quarter_hour;"
        "quarter_hour.unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "parts", tmp_path / "quarter"], check=True)
    unpacked = Pack.open(tmp_path / "quarter")
    for split in ("train", "validation", "test"):
        wanted = pack.photos[pack.indices(split)].astype(int)
        found = unpacked.photos[unpacked.indices(split)].astype(int)
        if split == "test":
            assert len(wanted) > len(found) == 0
            continue
        assert len(found) == len(wanted)
        away = np.array([np.abs(wanted - each).mean(axis=(1, 2, 3)) for each in found])
        assert away[linear_sum_assignment(away)].max() < 8  # each belongs to another photo


@pytest.mark.parametrize(
    "recipe", sorted(Path(__file__).parents[1].glob("recipes/*.toml")), ids=lambda p: p.stem
)
def test_the_recipes_that_come_along_are_valid(recipe: Path) -> None:
    flags.resolve(recipe, None, {})
