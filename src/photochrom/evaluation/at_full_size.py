"""Candidates for photos of any size: each gives whole pictures.

`of_pictures` resizes the pictures of models, tools and references in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import EVALUATED, EVALUATED_WHOLE, Options, chosen
from photochrom.coloring.photo import GrayPhoto, open_gray
from photochrom.coloring.upsampling import lay_over
from photochrom.data.reading import on_white, open_photo
from photochrom.diffusion import color
from photochrom.errors import UsageError
from photochrom.evaluation import metrics
from photochrom.evaluation.candidates import (
    MEAN_COLOR,
    Batch,
    Candidate,
    Ceiling,
    Painted,
    model_facts,
    not_compared,
    render,
)
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import GRAY, STRENGTHS, TRUTH

GROUP_PIXELS = 64_000_000  # pixels at most of the photos that a model colours together
STRIP_PIXELS = 1 << 19  # pixels of a large picture in one strip
CEILING, LUMA_BACK = "chroma ceiling", " (luma put back)"
Pictures = Callable[[Batch], Iterable[Image.Image]]


def shrunk(picture: Image.Image, size: int) -> Tensor:
    """Squeeze a picture into a square of side `size` with Pillow's bicubic filter: (1,3,S,S) in [0,1]."""
    return _tensor(on_white(picture).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def of_pictures(pictures: Pictures) -> Callable[[Batch], Painted]:
    """Make a `Candidate.paint` from a function that gives one whole picture per photo of a batch."""

    def paint(batch: Batch) -> Painted:
        small, full = [], []
        for file, picture in zip(batch.files, pictures(batch), strict=True):
            small.append(shrunk(picture, batch.rgb.shape[-1]))
            if batch.at_full:
                full.append(full_sums(picture, true_picture(file), STRENGTHS))
        sums = {name: np.stack([each[name] for each in full]) for name in full[0]} if full else None
        return Painted(*color.from_rgb(torch.cat(small)), sums)

    return paint


def full_sums(picture: Image.Image, true: Image.Image, strengths: Sequence[float]) -> dict[str, Array]:
    """The columns of `metrics.photo_columns` at the photo's own size, each (K,), one value per strength."""
    if picture.size != true.size:
        picture = picture.resize(true.size, Image.Resampling.BICUBIC)
    totals: list[dict[str, Array]] = [{} for _ in strengths]
    for box in _strips(true):
        part, true_part = (_tensor(each.crop(box)) for each in (picture, true))
        truth = np.ascontiguousarray(true_part.permute(0, 2, 3, 1).numpy())
        lab, (y, c) = metrics.lab(truth), color.from_rgb(part)
        for total, strength in zip(totals, strengths, strict=True):
            for name, value in metrics.pixel_sums(render(y, c, strength), truth, lab).items():
                total[name] = total.get(name, 0) + value
    columns = [metrics.photo_columns(total) for total in totals]
    return {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}


def _strips(picture: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        yield 0, top, picture.width, min(top + rows, picture.height)


def with_chroma(luma: Image.Image, chroma: Callable[[tuple[int, int, int, int]], Tensor]) -> Image.Image:
    """Combine luma (mode L) with the chroma (1,2,h,w) that a function gives for each box of it."""
    made = Image.new("RGB", luma.size)
    for box in _strips(luma):
        made.paste(color.to_images(color.luma_tensor(luma.crop(box)), chroma(box))[0], box)
    return made


def model_at_full_size(
    model: str | Path,
    models: str | Path = "models",
    options: Options | None = None,
    *,
    device: str | None = None,
    compared: Collection[str] = (),
    **changes: Any,
) -> Candidate:
    """A trained model, by name or path, as a candidate for photos of any size.

    It colours as `photochrom colorize` does.

    options, or its fields as keyword arguments: only those in `EVALUATED_WHOLE`. compared: checksums of data
    sets that were compared with the photos (`Folder.compared`). Raises UsageError for other options, and
    PhotochromError if the model is unknown.
    """
    options = chosen(options, changes)
    if unused := sorted(options.model_fields_set - set(EVALUATED_WHOLE)):
        raise UsageError(f"an evaluation cannot use {', '.join(unused)}: leave it out")
    colorizer = Colorizer.load(model, models, device)
    name, facts = model_facts(model, models, colorizer, options)
    more = options.model_fields_set - set(EVALUATED)
    facts |= {each: str(getattr(options, each)) for each in sorted(more)}
    facts["other_data"] = not_compared(colorizer.config, models, compared)

    def paint(batch: Batch) -> Iterator[Image.Image]:
        for group in _groups(batch.files):
            for samples in colorizer.samples(group, options=options.but(seed=batch.seeds[0])):
                yield samples.average()

    return Candidate(name, of_pictures(paint), facts, ceiling=ceiling_of(colorizer, options.detail))


def _groups(files: Iterable[Path]) -> Iterator[list[GrayPhoto]]:
    """Open photos in groups of about GROUP_PIXELS pixels."""
    group: list[GrayPhoto] = []
    pixels = 0
    for file in files:
        group.append(open_gray(file))
        pixels += group[-1].luma.width * group[-1].luma.height
        if pixels > GROUP_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def tool(name: str, files: Mapping[Path, Path], facts: dict[str, Any], luma_back: bool) -> Candidate:
    """Another tool's coloured files, {photo: file}, as a candidate. luma_back: give them the photos' luma."""

    def paint(batch: Batch) -> Iterator[Image.Image]:
        for file in batch.files:
            picture = true_picture(files[file])
            yield put_luma_back(picture, open_gray(file).luma) if luma_back else picture

    return Candidate(name + LUMA_BACK * luma_back, of_pictures(paint), facts, "tool")


def put_luma_back(picture: Image.Image, luma: Image.Image) -> Image.Image:
    """Give a picture a photo's luma (mode L) and size. It keeps its chroma as far as the gamut allows."""
    if picture.size != luma.size:
        picture = picture.resize(luma.size, Image.Resampling.BICUBIC)
    return with_chroma(luma, lambda box: color.from_rgb(_tensor(picture.crop(box)))[1])


def true_picture(file: Path) -> Image.Image:
    """A photo in its true colours: upright, mode RGB."""
    return open_photo(file).convert("RGB")


def ceiling_of(colorizer: Colorizer, detail: int | None) -> Ceiling:
    """The ceiling of a model: true chroma, shrunk to the model's size and enlarged like the model's."""

    def picture(file: Path) -> Image.Image:
        luma = open_gray(file).luma
        seen = colorizer.view(luma, detail)
        small = true_picture(file).resize(
            (seen.width, seen.height), Image.Resampling.LANCZOS, reducing_gap=4.0
        )
        down, right = seen.y.shape[2] - seen.height, seen.y.shape[3] - seen.width
        rgb = F.pad(_tensor(small), (0, right, 0, down), mode="replicate")
        return lay_over(luma, seen, color.from_rgb(rgb, seen.scale)[1])

    config = colorizer.config
    way = (config.data.smallest_side, config.model.encoder == "none", config.model.chroma_scale, detail)
    return Ceiling(way, picture)


def full_size_references(mean: Sequence[float], candidates: Sequence[Candidate]) -> list[Candidate]:
    """The references for photos of any size: the truth, the models' ceilings, mean colour, gray.

    mean: the photos' mean chroma (2,).
    """

    def row(name: str, picture: Callable[[Path], Image.Image]) -> Candidate:
        return Candidate(name, of_pictures(lambda batch: map(picture, batch.files)), kind="reference")

    ways: dict[tuple[Any, ...], tuple[Ceiling, list[str]]] = {}
    for each in candidates:
        if each.ceiling:
            ways.setdefault(each.ceiling.way, (each.ceiling, []))[1].append(each.name)
    flat = torch.tensor(mean, dtype=torch.float32).reshape(1, 2, 1, 1)
    return [
        row(TRUTH, true_picture),
        *(
            row(CEILING if len(ways) == 1 else f"{CEILING} of {', '.join(names)}", ceiling.picture)
            for ceiling, names in ways.values()
        ),
        row(MEAN_COLOR, lambda file: with_chroma(open_gray(file).luma, lambda box: flat)),
        row(GRAY, lambda file: open_gray(file).luma),
    ]


def _tensor(picture: Image.Image) -> Tensor:
    """A picture as (1,3,H,W) in [0,1], on white where it is transparent."""
    return color.rgb_tensor(on_white(picture))
