"""Photos of any size beside other tools' colourings: figures in closed form, and what can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import color

from photochrom.errors import Interrupted, PhotochromError
from photochrom.evaluation import candidates, evaluate, photos, report
from photochrom.evaluation.candidates import LUMA_BACK, model_at_full_size
from photochrom.evaluation.photos import Folder
from tests.evaluation.making import call

COUNT = 5
LUMA = np.array([0.299, 0.587, 0.114])
Pixels = npt.NDArray[Any]


def photo(seed: int) -> Pixels:
    """Soft shapes and grain, (60,90,3), in colours so weak that rotated or doubled they stay in gamut."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(100, 156, (6, 9, 3), dtype=np.uint8))
    colors = np.asarray(coarse.resize((90, 60), Image.Resampling.BICUBIC), dtype=float)
    grain = Image.fromarray(random.normal(0, 14, (20, 30)).astype(np.float32))
    grains = np.asarray(grain.resize((90, 60), Image.Resampling.BICUBIC))[..., None]
    return np.asarray((colors + grains).clip(50, 205).round().astype(np.uint8))


def chroma_times(factor: float) -> Callable[[Pixels], Pixels]:
    """A tool that multiplies the distance to the gray of the same luma."""

    def made(rgb: Pixels) -> Pixels:
        gray = (rgb @ LUMA)[..., None]
        return np.asarray(gray + factor * (rgb - gray))

    return made


def folder(place: Path, made: Callable[[Pixels], Pixels] = lambda rgb: rgb, kind: str = ".png") -> Path:
    """A folder of what a tool has made of the photos."""
    place.mkdir(parents=True)
    for seed in range(COUNT):
        pixels = made(photo(seed).astype(float)).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"photo {seed}{kind}")
    return place


def run(
    place: Path,
    tools: dict[str, Path],
    out: Path,
    models: Sequence[candidates.Candidate] = (),
    **options: Any,
) -> dict[str, Any]:
    """Evaluate on a folder, without VGG16 and without the page's plots."""
    measured_on = Folder(place, tools, at_full=options.pop("at_full", False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda result, photos: "")
        every = [*models, *measured_on.tool_candidates()]
        return evaluate.evaluate(every, measured_on, out, vgg_photos=0, **options)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the pixels says the same here."""
    monkeypatch.setattr(photos, "SIZE", 64)


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
    folders = {f"the {name}": folder(place / name, made) for name, made in tools.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "SIZE", 64)
        patch.setattr(candidates, "STRIP_PIXELS", 90 * 7)  # so that full size is measured in strips
        return run(folder(place / "true"), folders, place / "out", at_full=True)


# --- Closed forms -------------------------------------------------------------------------------------------


def value(result: dict[str, Any], row: str, measure: str) -> float:
    return float(result["rows"][row][measure]["value"])


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
        true = photo(seed)
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


def test_strips_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Image.fromarray(photo(seed)) for seed in (0, 1))
    whole = candidates.full_sums(one, other, (0.5, 1.0))
    monkeypatch.setattr(candidates, "STRIP_PIXELS", 90 * 7)
    strips = candidates.full_sums(one, other, (0.5, 1.0))
    for name, values in whole.items():
        assert strips[name] == pytest.approx(values, rel=1e-6), name


def test_the_worst_are_found_photo_by_photo(result: dict[str, Any]) -> None:
    order = report.orders(result)["ciede2000", "the opposite", "the half"]
    losses = [
        result["by_photo"]["the opposite"]["ciede2000"][place]
        - result["by_photo"]["the half"]["ciede2000"][place]
        for place in order
    ]
    assert losses == sorted(losses)
    assert losses[0] > 0  # it wins nowhere


# --- Models -------------------------------------------------------------------------------------------------


def test_a_model_is_measured_as_colorize_writes(models: Path, tmp_path: Path) -> None:
    place = folder(tmp_path / "photos")
    model = ("--model", models / "tiny", "--steps", 2, "--strength", 1.3)
    assert call("colorize", place, "-o", tmp_path / "theirs", *model) == 0
    where = ("--photos", place, "--with", f"theirs={tmp_path / 'theirs'}", "--vgg-photos", 0)
    how = ("--steps", 2, "--strength", 1.3, "-o", tmp_path / "out")
    assert call("evaluate", models / "tiny", *where, *how) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["subjects"]["tiny"]["average"] == 4
    for measure in ("ab", "ciede2000", "psnr", "colorfulness", "ssim"):
        ours, theirs = (value(result, row, measure) for row in ("tiny", "theirs"))
        assert ours == pytest.approx(theirs, rel=1e-3), measure  # bfloat16 rounds other batches otherwise
    assert value(result, "tiny", "ab") > 1
    assert "seconds_per_photo" in result["rows"]["tiny"]
    assert not {"seconds_per_photo", "diversity"} & set(result["rows"]["theirs"])
    assert list(result["rows"])[2:] == ["true photos", "chroma ceiling", "mean colour", "gray"]
    assert value(result, "chroma ceiling", "ab") < 0.5 * value(result, "gray", "ab")
    assert value(result, "mean colour", "ab") < value(result, "gray", "ab")


def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "at_once", 2)
    place, half = folder(tmp_path / "photos"), folder(tmp_path / "half", chroma_times(0.5))
    tiny = model_at_full_size(models / "tiny", models, steps=2)

    def stop(done: int, total: int, text: str) -> None:
        if done == 4:
            raise Interrupted("enough", 2)

    expected = run(place, {"half": half}, tmp_path / "whole", [tiny])
    with pytest.raises(Interrupted):
        run(place, {"half": half}, tmp_path / "halves", [tiny], progress=stop)
    assert len(list((tmp_path / "halves" / "partial").glob("*.npz"))) == 1
    found = run(place, {"half": half}, tmp_path / "halves", [tiny])
    for each in (expected, found):
        del each["rows"]["tiny"]["seconds_per_photo"]
    assert found == expected
    with pytest.raises(Interrupted):
        run(place, {"half": half}, tmp_path / "changed", [tiny], progress=stop)
    Image.fromarray(photo(0)).save(half / "photo 0.png")  # the tool was run again
    with pytest.raises(PhotochromError, match="unfinished evaluation with other settings"):
        run(place, {"half": half}, tmp_path / "changed", [tiny])


# --- What can be wrong --------------------------------------------------------------------------------------


@pytest.fixture
def true(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", kind=".jpg")


def refused(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails."""
    assert call("evaluate", *arguments) in (1, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "photochrom: error: " in line]
    assert len(lines) == 1
    return lines[0]


def test_gray_and_broken_photos_are_left_out_and_counted(true: Path) -> None:
    levels = (photo(9).astype(float) @ LUMA).astype(np.uint16)
    Image.fromarray(levels.astype(np.uint8)).save(true / "gray.png")
    Image.fromarray(levels * 257).save(true / "gray16.png")
    (true / "broken.jpg").write_bytes((true / "photo 0.jpg").read_bytes()[:300])
    found = Folder(true)
    reasons = dict(found.left_out)
    assert set(reasons) == {"gray.png", "gray16.png", "broken.jpg"}
    assert reasons["gray.png"] == reasons["gray16.png"] == "it is gray itself"
    assert "cannot be read as a photo" in reasons["broken.jpg"]
    assert len(found) == found.facts["photos"] == COUNT
    assert len(found.facts["left_out"]) == 3
    assert any("gray.png" in note and "gray itself" in note for note in found.notes())


def test_few_photos_are_a_part_of_many(true: Path) -> None:
    assert Folder(true, count=2).origins() == Folder(true).origins()[:2]
    assert Folder(true, count=2).facts["checksum"] != Folder(true).facts["checksum"]


def test_photos_that_a_tool_lacks_are_left_out_for_all(true: Path, tmp_path: Path) -> None:
    half = folder(tmp_path / "half", chroma_times(0.5))
    (half / "photo 2.png").unlink()
    found = Folder(true, {"half": half})
    assert found.left_out == [("photo 2.jpg", "half has no file of this name")]
    assert len(found) == COUNT - 1


def test_files_are_matched_by_path_and_then_by_name(true: Path, tmp_path: Path) -> None:
    (true / "sub").mkdir()
    (true / "photo 1.jpg").rename(true / "sub" / "photo 1.jpg")
    flat = folder(tmp_path / "flat")
    nested = folder(tmp_path / "nested")
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
        lambda picture: Image.fromarray(photo(77)),
    ],
    ids=["borders", "cropped", "mirrored", "another photo"],
)
def test_files_that_show_something_else_are_left_out(
    true: Path, tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    tool = folder(tmp_path / "tool")
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
        tools[name] = folder(tmp_path / name)
        for path in tools[name].iterdir():
            with Image.open(path) as picture:
                picture.resize(size, Image.Resampling.BICUBIC).save(path)
    found = Folder(true, tools)
    assert len(found) == COUNT
    assert found.notes() == [
        f"large: {COUNT} of {COUNT} files have another size than the photo: resized",
        f"square: {COUNT} of {COUNT} files have another shape than the photo: squeezed back",
    ]


def test_folders_without_photos_are_refused(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no photo")
    tool = ("--with", f"tool={empty}")
    assert f"{empty} has no photo in it" in refused("--photos", empty, *tool, capsys=capsys)
    assert f"{empty} has no photo in it" in refused("--photos", true, *tool, capsys=capsys)
    assert "there is no folder nowhere" in refused("--photos", "nowhere", *tool, capsys=capsys)


def test_names_that_do_not_match_are_shown(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = folder(tmp_path / "tool")
    for path in tool.iterdir():
        path.rename(path.with_stem(f"{path.stem}_colorized"))
    said = refused("--photos", true, "--with", f"tool={tool}", capsys=capsys)
    assert "such as photo 0_colorized.png" in said
    assert "such as photo 0.jpg" in said
    assert "the suffix does not matter" in said


def test_two_files_of_one_name_are_refused(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = folder(tmp_path / "tool")
    shutil.copy(true / "photo 0.jpg", tool / "photo 0.jpg")
    assert "differ only in their suffix" in refused("--photos", true, "--with", f"tool={tool}", capsys=capsys)


def test_gray_photos_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gray = folder(tmp_path / "gray", chroma_times(0.0))
    said = refused("--photos", gray, "--with", f"tool={gray}", capsys=capsys)
    assert f"none of the {COUNT} files in {gray} can be measured on" in said
    assert "it is gray itself" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--photos", ".", "--with", "theirs"], "--with theirs: give a name and a folder"),
        (["--photos", ".", "--with", "a=b", "--with", "a=c"], "--with a is given twice"),
        (["--with", "a=b"], "--with and --at need a folder of photos"),
        (["--photos", ".", "--at", "512", "--with", "a=b"], "--at 512: give 256, or full for both sizes"),
        (["--photos", ".", "--data", "demo", "--with", "a=b"], "--photos FOLDER and --data together"),
        (["--photos", "."], "give at least one model, or --photos FOLDER --with NAME=FOLDER"),
        (["--photos", ".", "--with", "a=b", "--detail", "2"], "detail = 2"),
    ],
)
def test_commands_that_make_no_sense(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(*arguments, capsys=capsys)


# --- The page -------------------------------------------------------------------------------------


def test_a_page_of_tools_alone_tells_nobody_to_train(true: Path, tmp_path: Path) -> None:
    measured_on = Folder(true, {"half": folder(tmp_path / "half", chroma_times(0.5))})
    result = evaluate.evaluate(measured_on.tool_candidates(), measured_on, tmp_path / "out", vgg_photos=0)
    assert result["advice"] == [
        f"{COUNT} photos decide little: evaluate on 500 or more before you act on the rest."
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "PSNR" in page
    assert "perceptual distance" not in page  # no photo was judged by VGG16
    assert "not VGG16" in page
