"""The candidates of an evaluation: models, files that other tools have coloured, and references.

A candidate colours a batch of photos. Photos of a data set already have the size of measuring, so a candidate
gives luma and chroma of that size. Photos of a folder have any size, so a candidate gives whole pictures;
`of_pictures` resizes them in the same way for models, tools and references.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.coloring.colorings import agreed
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.options import EVALUATED, EVALUATED_WHOLE, Options, chosen
from photochrom.coloring.photo import GrayPhoto, open_gray
from photochrom.coloring.upsampling import lay_over
from photochrom.config import Config
from photochrom.data.dataset import DataSet
from photochrom.data.reading import on_white, open_photo
from photochrom.diffusion import color
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation import metrics
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import GRAY, STRENGTHS, TRUTH
from photochrom.model_folder import ModelFolder
from photochrom.training_history import best_epoch

MEAN_COLOR_PHOTOS = 2000
APART = 1_000_003  # step between the seeds of colourings to merge; `diversity` takes the seeds in between
GROUP_PIXELS = 64_000_000  # pixels at most of the photos that a model colours together
STRIP_PIXELS = 1 << 19  # pixels of a large picture in one strip
MEAN_COLOR, CEILING, LUMA_BACK = "mean colour", "chroma ceiling", " (luma put back)"


@dataclass(frozen=True)
class Batch:
    """A batch of photos.

    rgb: the truth (B,3,S,S) in [0,1], at the size of measuring. seeds: one per photo. files: the photos'
    files, if they come from a folder. apart: step between seeds that share no noise. at_full: measure at the
    photos' own size too.
    """

    rgb: Tensor
    seeds: list[int]
    files: list[Path] = field(default_factory=list)
    apart: int = 1
    at_full: bool = False

    def again(self, count: int, number: int) -> Batch:
        """The first `count` photos with other seeds; each `number`, from 1 on, gives others."""
        seeds = [seed + number * self.apart for seed in self.seeds[:count]]
        return replace(self, rgb=self.rgb[:count], seeds=seeds, files=self.files[:count], at_full=False)


class Painted(NamedTuple):
    """A coloured batch: luma y (B,1,S,S) in [-1,1], chroma c (B,2,h,w), and the result of `full_sums`."""

    y: Tensor
    c: Tensor
    full: dict[str, Array] | None = None


Pictures = Callable[[Batch], Iterable[Image.Image]]


class Ceiling(NamedTuple):
    """The best that a model can reach at its chroma size.

    way: everything that it depends on, so that models can share it. picture: makes it from a photo's file.
    """

    way: tuple[Any, ...]
    picture: Callable[[Path], Image.Image]


@dataclass(frozen=True)
class Candidate:
    """A row of the report.

    paint: colours a batch. A model sees only the photos' luma and keeps it; a tool may change it. facts:
    plain values for the report; a resumed evaluation must have the same. kind: models and tools are compared
    with each other, at every strength; time and diversity are measured only for models.
    """

    name: str
    paint: Callable[[Batch], Painted]
    facts: dict[str, Any] = field(default_factory=dict)
    kind: Literal["model", "tool", "reference"] = "model"
    ceiling: Ceiling | None = None

    @property
    def is_compared(self) -> bool:
        """Whether this is a model or a tool, not a reference."""
        return self.kind != "reference"


def given_luma(rgb: Tensor) -> Tensor:
    """The luma of a gray photo with 256 levels: (B,3,H,W) in [0,1] -> (B,1,H,W) in [-1,1]."""
    return color.in_levels(color.luma(rgb))


def render(y: Tensor, c: Tensor, strength: float) -> Array:
    """Pictures as the user gets them, in 256 levels.

    y: luma (B,1,H,W); c: chroma (B,2,h,w), multiplied by strength. Returns (B,H,W,3) float32 in [0,1].
    """
    rgb = color.into_gamut(color.to_rgb(y, strength * c), y)
    return np.ascontiguousarray(((rgb * 255).round() / 255).permute(0, 2, 3, 1).numpy(), dtype=np.float32)


# --- Photos of a data set -----------------------------------------------------------------------------------


def model_at_size(
    model: str | Path,
    models: str | Path,
    pack: DataSet,
    options: Options | None = None,
    *,
    device: str | None = None,
    compared: Collection[str] = (),
    **changes: Any,
) -> Candidate:
    """A trained model, by name or path, as a candidate for photos of a data set.

    options, or its fields as keyword arguments: only those in `EVALUATED`. compared: checksums of data sets
    that were compared with the photos (`HeldOut.compared`). Raises UsageError for other options, and
    PhotochromError if the model is unknown or was trained at another size.
    """
    options = chosen(options, changes)
    if unused := sorted(options.model_fields_set - set(EVALUATED)):
        raise UsageError(
            f"an evaluation on a data set cannot use {', '.join(unused)}: leave it out, or take a folder"
        )
    colorizer = Colorizer.load(model, models, device)
    config = colorizer.config
    if config.data.size not in (None, pack.size):
        raise PhotochromError(
            f"model {str(model)!r} was trained at {config.data.size} pixels, but these photos have "
            f"{pack.size}: evaluate it on a data set imported with --size {config.data.size}, or on a folder "
            "with --photos"
        )
    name, known = model_facts(model, models, colorizer, options)
    average = options.average
    facts = {
        "chroma_scale": config.model.chroma_scale,
        "other_data": _not_compared(config, models, {pack.checksum, *compared}),
        **known,
    }

    def paint(batch: Batch) -> Painted:
        y, parts = given_luma(batch.rgb), []
        for rows in torch.arange(len(y)).split(max(1, BATCH // average)):
            # All colourings of a photo together, so that the encoder sees it only once.
            several = [batch.seeds[row] + APART * k for k in range(average) for row in rows]
            again = y[rows].repeat(average, 1, 1, 1)
            c = colorizer.chroma(again, several, options)
            parts.append(agreed(c.unflatten(0, (average, len(rows)))))
        return Painted(y, torch.cat(parts))

    return Candidate(name, paint, facts)


def _not_compared(config: Config, models: str | Path, compared: Collection[str]) -> list[str]:
    """The data sets of a model's training that were not compared with the photos of the evaluation."""
    learnt_from = model_folder.learnt_from(config, Path(models))
    return [each.name for each in learnt_from if each.checksum not in compared]


def model_facts(
    model: str | Path, models: str | Path, colorizer: Colorizer, options: Options
) -> tuple[str, dict[str, Any]]:
    """A model's name, and the facts that a report gives about its options, weights and training."""
    weights = model_folder.find_weights(model, Path(models))
    in_folder = weights != Path(model)
    history = ModelFolder(weights.parent).history if in_folder else []
    best = best_epoch(history) if history else {"epoch": None, "val_loss": None}
    kept = ("epoch", "stage", "stage_began", "val_loss", "photos", "weights")
    facts = {
        "steps": options.steps_for(colorizer.config),
        "sampler": options.sampler,
        "guidance": options.guidance_for(colorizer.config),
        "average": options.average,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "config": colorizer.config.model_dump(mode="json"),
        "epoch": best["epoch"],  # of these weights
        "val_loss": best["val_loss"],
        "history": [{key: record[key] for key in kept if key in record} for record in history],
    }
    return weights.parent.name if in_folder else weights.stem, facts


def references(pack: DataSet, scales: Sequence[int]) -> list[Candidate]:
    """The references for a data set: the truth, true chroma at the models' scales, mean colour, gray."""

    def flat(c: Tensor) -> Callable[[Batch], Painted]:
        return lambda batch: Painted(
            given_luma(batch.rgb), c.expand(len(batch.rgb), 2, *batch.rgb.shape[-2:])
        )

    def ceiling(scale: int) -> Callable[[Batch], Painted]:
        return lambda batch: Painted(given_luma(batch.rgb), color.from_rgb(batch.rgb, scale)[1])

    rows = [Candidate(TRUTH, lambda batch: Painted(*color.from_rgb(batch.rgb, 1)), kind="reference")]
    rows += [Candidate(f"true chroma, 1/{s} size", ceiling(s), kind="reference") for s in scales if s > 1]
    chosen = np.sort(pack.drawn("train", MEAN_COLOR_PHOTOS, 0))
    if len(chosen):
        parts = np.array_split(chosen, -(-len(chosen) // 256))
        means = torch.cat([color.from_rgb(pack.rgb(part))[1].mean(dim=(2, 3)) for part in parts])  # (N, 2)
        mean = means.mean(dim=0).reshape(1, 2, 1, 1)
        rows.append(Candidate(MEAN_COLOR, flat(mean), kind="reference"))
    return [*rows, Candidate(GRAY, flat(torch.zeros(1, 2, 1, 1)), kind="reference")]


# --- Photos of any size -------------------------------------------------------------------------------------


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
    facts["other_data"] = _not_compared(colorizer.config, models, compared)

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
    way = (config.data.size, config.model.encoder == "none", config.model.chroma_scale, detail)
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
