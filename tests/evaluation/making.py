"""Candidates of known quality, and evaluations without the page, whose plots take longest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation import evaluate, report
from photochrom.evaluation.candidates import Batch, Candidate, Painted, given_luma
from photochrom.evaluation.folder import Folder
from photochrom.evaluation.held_out import HeldOut
from tests import running

COUNT = 5  # photos in a folder
LUMA = np.array([0.299, 0.587, 0.114])
Pixels = npt.NDArray[Any]


def blotchy(name: str, amount: float, fade: float = 1.0) -> Candidate:
    """True chroma with soft noise of this amount, faded."""

    def paint(batch: Batch) -> Painted:
        c = color.from_rgb(batch.rgb)[1]
        noise = [torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in batch.seeds]
        blotches = F.interpolate(torch.stack(noise), size=c.shape[-2:], mode="bilinear")
        return Painted(given_luma(batch.rgb), fade * (c + amount * blotches))

    return Candidate(name, paint, {"amount": amount, "fade": fade, "sampler": "none", "steps": 1})


def run(
    candidates: Sequence[Candidate],
    pack: Pack,
    out: Path,
    *,
    page: bool = False,
    split: str = "validation",
    photos: int | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate, without the page unless it is asked for: its plots take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        if not page:
            patch.setattr(report, "html", lambda result, photos: "")
        return evaluate.evaluate(candidates, HeldOut(pack, split, photos, seed), out, **options)


def soft_photo(seed: int) -> Pixels:
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


def colored_folder(
    place: Path, made: Callable[[Pixels], Pixels] = lambda rgb: rgb, kind: str = ".png"
) -> Path:
    """A folder of what a tool has made of the photos."""
    place.mkdir(parents=True)
    for seed in range(COUNT):
        pixels = made(soft_photo(seed).astype(float)).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"photo {seed}{kind}")
    return place


def run_on_folder(
    place: Path,
    tools: dict[str, Path],
    out: Path,
    models: Sequence[Candidate] = (),
    **options: Any,
) -> dict[str, Any]:
    """Evaluate on a folder, without VGG16 and without the page's plots."""
    measured_on = Folder(place, tools, at_full=options.pop("at_full", False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda result, photos: "")
        every = [*models, *measured_on.tool_candidates()]
        return evaluate.evaluate(every, measured_on, out, vgg_photos=0, **options)


def value(result: dict[str, Any], row: str, measure: str) -> float:
    """A figure of a report."""
    return float(result["rows"][row][measure]["value"])


def verdicts(result: dict[str, Any], measure: str) -> tuple[str, str | None]:
    """(overall, as made)"""
    found = next(entry for entry in result["differences"] if entry["measure"] == measure)
    return found["verdict"], found["as_made"]["verdict"]


def call(*arguments: object) -> int:
    """Run a command; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda result, photos: "")
        return running.call(*arguments)


def refused(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an evaluation that fails."""
    assert call("evaluate", *arguments) in (1, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "photochrom: error: " in line]
    assert len(lines) == 1
    return lines[0]
