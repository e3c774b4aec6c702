"""Candidates of known quality, and evaluations without the page, whose plots take longest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation import evaluate, report
from photochrom.evaluation.candidates import (
    Batch,
    Candidate,
    Painted,
    given_luma,
)
from photochrom.evaluation.photos import Packed
from tests import running


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
        return evaluate.evaluate(candidates, Packed(pack, split, photos, seed), out, **options)


def verdicts(result: dict[str, Any], measure: str) -> tuple[str, str | None]:
    """(overall, as made)"""
    found = next(entry for entry in result["differences"] if entry["measure"] == measure)
    return found["verdict"], found["as_made"]["verdict"]


def call(*arguments: object) -> int:
    """Run a command; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda result, photos: "")
        return running.call(*arguments)
