"""Files that other tools coloured: figures in closed form, and what can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import color

from photochrom.evaluation import at_full_size, evaluate, folder, report
from photochrom.evaluation.at_full_size import LUMA_BACK
from photochrom.evaluation.folder import Folder
from tests.evaluation.making import (
    COUNT,
    LUMA,
    Pixels,
    chroma_times,
    colored_folder,
    refused,
    run_on_folder,
    soft_photo,
    value,
)

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four tools of which the right figures are known."""
    place = tmp_path_factory.mktemp("known")
    tools: dict[str, Callable[[Pixels], Pixels]] = {
        "half": chroma_times(0.5),
        "opposite": chroma_times(-1.0),
        "brighter": lambda rgb: rgb + 20,
        "gray": lambda rgb: np.repeat((rgb @ LUMA)[..., None], 3, axis=2),
    }
    folders = {f"the {name}": colored_folder(place / name, made) for name, made in tools.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "SIZE", 64)
        patch.setattr(at_full_size, "STRIP_PIXELS", 90 * 7)  # so that full size is measured in strips
        return run_on_folder(colored_folder(place / "true"), folders, place / "out", at_full=True)


# --- Closed forms -------------------------------------------------------------------------------------------


def test_half_the_chroma_is_half_as_colourful_and_twice_the_strength_away(result: dict[str, Any]) -> None:
    """Colourfulness is linear in chroma at fixed luma, and the error is half of gray's: 6.02 dB less."""
    whole = value(result, "true photos", "colorfulness")
    assert value(result, "the half", "colorfulness") == pytest.approx(whole / 2, rel=0.02)
    equal = result["at_equal_colorfulness"]["the half"]
    for share in (0.7, 0.85, 1.0):
        assert equal[f"{share:.0%}"]["strength"]["value"] == pytest.approx(2 * share, rel=0.02)
    assert value(result, "the half", "psnr") == pytest.approx(value(result, "gray", "psnr") + 6.02, abs=0.2)
    assert equal["100%"]["ab"]["value"] < 0.12 * value(result, "gray", "ab")


def test_the_opposite_hue_is_as_colourful_and_twice_as_wrong_as_gray(result: dict[str, Any]) -> None:
    whole = value(result, "true photos", "colorfulness")
    assert value(result, "the opposite", "colorfulness") == pytest.approx(whole, rel=0.01)
    assert value(result, "the opposite", "psnr") == pytest.approx(
        value(result, "gray", "psnr") - 6.02, abs=0.1
    )


def test_luma_that_a_tool_changed_counts_until_it_is_put_back(result: dict[str, Any]) -> None:
    """20 levels of 255 at every pixel are 20 log10(255 / 20) = 22.11 dB; nothing else was changed."""
    assert value(result, "the brighter", "psnr") == pytest.approx(22.11, abs=0.02)
    assert result["subjects"]["the brighter"]["luma_change"] == pytest.approx(20, abs=0.3)
    back = f"the brighter{LUMA_BACK}"
    assert value(result, back, "psnr") > 45
    assert value(result, back, "ab") < 0.5
    assert result["kinds"][back] == "tool"
    assert f"the half{LUMA_BACK}" not in result["rows"]


def test_a_tool_without_colour_is_the_gray_row(result: dict[str, Any]) -> None:
    for measure in ("ab", "ciede2000", "psnr", "colorfulness"):
        assert value(result, "the gray", measure) == pytest.approx(value(result, "gray", measure), abs=0.03)


def test_figures_are_those_of_scikit_image_on_the_same_files(result: dict[str, Any]) -> None:
    found = []
    for seed in range(COUNT):
        true = soft_photo(seed)
        half = chroma_times(0.5)(true.astype(float)).round().astype(np.uint8)
        labs = [
            color.rgb2lab(np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.BICUBIC)))
            for p in (true, half)
        ]
        found.append(
            (
                color.deltaE_ciede2000(*labs).mean(),  # type: ignore[no-untyped-call]
                np.hypot(*np.moveaxis((labs[0] - labs[1])[..., 1:], -1, 0)).mean(),
            )
        )
    ciede2000, ab = np.mean(found, axis=0)
    assert value(result, "the half", "ciede2000") == pytest.approx(ciede2000, rel=1e-3)
    assert value(result, "the half", "ab") == pytest.approx(ab, rel=1e-3)


def test_full_size_is_measured_as_well(result: dict[str, Any]) -> None:
    rows = result["full_size"]["rows"]
    assert rows["true photos"]["ab"]["value"] == 0
    assert rows["the brighter"]["psnr"]["value"] == pytest.approx(22.11, abs=0.05)
    whole = rows["true photos"]["colorfulness"]["value"]
    assert rows["the half"]["colorfulness"]["value"] == pytest.approx(whole / 2, rel=0.03)
    equal = result["full_size"]["at_equal_colorfulness"]["the half"]
    assert equal["85%"]["strength"]["value"] == pytest.approx(1.7, rel=0.03)
    assert "ssim" not in rows["the half"]


def test_the_worst_are_found_photo_by_photo(result: dict[str, Any]) -> None:
    order = report.orders(result)["ciede2000", "the opposite", "the half"]
    losses = [
        result["by_photo"]["the opposite"]["ciede2000"][place]
        - result["by_photo"]["the half"]["ciede2000"][place]
        for place in order
    ]
    assert losses == sorted(losses)
    assert losses[0] > 0  # it wins nowhere


# --- What can be wrong --------------------------------------------------------------------------------------


def test_photos_that_a_tool_lacks_are_left_out_for_all(true: Path, tmp_path: Path) -> None:
    half = colored_folder(tmp_path / "half", chroma_times(0.5))
    (half / "photo 2.png").unlink()
    found = Folder(true, {"half": half})
    assert found.left_out == [("photo 2.jpg", "half has no file of this name")]
    assert len(found) == COUNT - 1


def test_files_are_matched_by_path_and_then_by_name(true: Path, tmp_path: Path) -> None:
    (true / "sub").mkdir()
    (true / "photo 1.jpg").rename(true / "sub" / "photo 1.jpg")
    flat = colored_folder(tmp_path / "flat")
    nested = colored_folder(tmp_path / "nested")
    (nested / "sub").mkdir()
    (nested / "photo 1.png").rename(nested / "sub" / "photo 1.png")
    for place in (flat, nested):
        assert len(Folder(true, {"tool": place})) == COUNT
    shutil.copy(true / "photo 0.jpg", true / "sub" / "photo 0.jpg")  # now that name alone says too little
    assert [each.photo for each in Folder(true, {"tool": flat}).left_out] == ["sub/photo 0.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: _bordered(picture, 6),
        lambda picture: picture.crop((5, 5, 85, 55)),
        lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda picture: Image.fromarray(soft_photo(77)),
    ],
    ids=["borders", "cropped", "mirrored", "another photo"],
)
def test_files_that_show_something_else_are_left_out(
    true: Path, tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    tool = colored_folder(tmp_path / "tool")
    with Image.open(tool / "photo 3.png") as picture:
        changed = change(picture.convert("RGB"))
    changed.save(tool / "photo 3.png")
    ((name, reason),) = Folder(true, {"tool": tool}).left_out
    assert name == "photo 3.jpg"
    assert f"({changed.width}x{changed.height}, the photo has 90x60)" in reason
    assert "is cropped, turned, has borders, or belongs to another photo" in reason


def _bordered(picture: Image.Image, width: int) -> Image.Image:
    large = Image.new("RGB", (picture.width + 2 * width, picture.height + 2 * width), "white")
    large.paste(picture, (width, width))
    return large


def test_other_sizes_and_shapes_are_resized_and_said(true: Path, tmp_path: Path) -> None:
    sizes = {"large": (180, 120), "square": (128, 128)}
    tools = {}
    for name, size in sizes.items():
        tools[name] = colored_folder(tmp_path / name)
        for path in tools[name].iterdir():
            with Image.open(path) as picture:
                picture.resize(size, Image.Resampling.BICUBIC).save(path)
    found = Folder(true, tools)
    assert len(found) == COUNT
    assert found.notes() == [
        f"large: {COUNT} of {COUNT} files have another size than the photo: resized",
        f"square: {COUNT} of {COUNT} files have another shape than the photo: squeezed back",
    ]


def test_names_that_do_not_match_are_shown(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = colored_folder(tmp_path / "tool")
    for path in tool.iterdir():
        path.rename(path.with_stem(f"{path.stem}_colorized"))
    said = refused("--photos", true, "--with", f"tool={tool}", capsys=capsys)
    assert "such as photo 0_colorized.png" in said
    assert "such as photo 0.jpg" in said
    assert "the suffix does not matter" in said


def test_two_files_of_one_name_are_refused(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = colored_folder(tmp_path / "tool")
    shutil.copy(true / "photo 0.jpg", tool / "photo 0.jpg")
    assert "differ only in their suffix" in refused("--photos", true, "--with", f"tool={tool}", capsys=capsys)


# --- The page -------------------------------------------------------------------------------------


def test_a_page_of_tools_alone_tells_nobody_to_train(true: Path, tmp_path: Path) -> None:
    measured_on = Folder(true, {"half": colored_folder(tmp_path / "half", chroma_times(0.5))})
    result = evaluate.evaluate(measured_on.tool_candidates(), measured_on, tmp_path / "out", vgg_photos=0)
    assert result["advice"] == [
        f"{COUNT} photos decide little: evaluate on 500 or more before you act on the rest."
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "PSNR" in page
    assert "perceptual distance" not in page  # no photo was judged by VGG16
    assert "not VGG16" in page
