"""What is compared on a data set: models that see luma and nothing else, and rows that are no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from photochrom.coloring.colorings import agreed
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError
from photochrom.evaluation.at_size import model_at_size, references
from photochrom.evaluation.candidates import APART, Batch, given_luma, render
from tests.evaluation.making import call


def test_a_model_sees_luma_and_nothing_else(models: Path, pack: Pack) -> None:
    tiny = model_at_size("tiny", models, pack, steps=2, sampler="ddim", guidance=None, device=None)
    rgb = pack.rgb([0, 1])
    gray = (given_luma(rgb) + 1).expand_as(rgb) / 2
    one, other = (tiny.paint(Batch(each, [1, 2])) for each in (rgb, gray))
    assert one.y == pytest.approx(other.y, abs=1e-5)
    assert one.c == pytest.approx(other.c, abs=1e-5)


def test_what_colourings_agree_on_is_measured_as_colorize_makes_it(
    models: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, four = (
        model_at_size("tiny", models, pack, steps=2, sampler="ddim", average=count, device=None)
        for count in (1, 4)
    )
    rgb, seeds = pack.rgb([0, 1]), [5, 8]
    drawn = [one.paint(Batch(rgb, [seed + APART * k for seed in seeds])).c for k in range(4)]
    # bfloat16, where it is faster, rounds a batch otherwise.
    calm = agreed(torch.stack(drawn), given_luma(rgb))
    assert torch.allclose(four.paint(Batch(rgb, seeds)).c, calm, atol=0.02)
    where = ("--models", models, "--data", pack.folder, "--steps", 2, "-o", tmp_path / "report")
    assert call("evaluate", "tiny", "--average", 65, *where) == 2
    assert "average = 65: " in capsys.readouterr().err
    assert call("evaluate", "tiny", "--average", 3, *where) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["subjects"]["tiny"]["average"] == 3


def test_the_true_photos_are_painted_as_they_are(pack: Pack) -> None:
    rgb = pack.rgb(range(8))
    truth = references(pack, [1])[0]
    y, c, _ = truth.paint(Batch(rgb, list(range(8))))
    assert (render(y, c, 1.0) == rgb.permute(0, 2, 3, 1).numpy()).all()


def test_a_model_of_another_size_is_refused(models: Path, pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(
        PhotochromError, match=r"'large' was trained at 32 pixels, but these photos have 16: .*--size 32"
    ):
        model_at_size("large", models, pack)


def test_an_unknown_model_is_refused_with_those_there_are(models: Path, pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"no model 'tinny' .* large, tiny"):
        model_at_size("tinny", models, pack)
