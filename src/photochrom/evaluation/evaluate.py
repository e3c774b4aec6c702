"""Evaluates candidates on photos that they have not seen, and compares them with each other.

Fading the colours lowers every error, so a candidate is a curve: its error against its colourfulness, as a
strength multiplies its chroma. A candidate colours every photo once, and all strengths come from that
colouring. Candidates are compared at equal colourfulness. The numbers of each batch are saved before the next
begins, so that the same command can resume.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from photochrom import __version__, files, processes
from photochrom.coloring.colorizer import pick_device
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation import card, metrics, report
from photochrom.evaluation.advice import advise
from photochrom.evaluation.candidates import Batch, Candidate, render
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import AS_MADE, FULL, GRAY, STRENGTHS, TRUTH, Results, summary
from photochrom.model_folder import EVALUATION, ModelFolder

# VGG16 costs as much as several steps of a small model, and twice as many photos would say little more.
VGG_PHOTOS = 400
DIVERSITY_PHOTOS, DIVERSITY_SAMPLES = 32, 3
PARTIAL, SETTINGS, JSON, HTML = "partial", "settings.json", "report.json", "report.html"


class Photos(Protocol):
    """The photos of an evaluation, in random order, so that the first N are a fair sample.

    `held_out.HeldOut` takes them from a data set, `folder.Folder` from a folder.
    """

    seed: int
    facts: dict[str, Any]  # plain values: name, checksum, size, number of photos
    at_once: int  # photos in a batch; an evaluation can stop between batches

    def __len__(self) -> int: ...

    def batch(self, places: Sequence[int]) -> Batch:
        """The photos at these places of the order."""

    def origins(self) -> list[str]:
        """The name of each photo."""

    def shapes(self) -> list[float]:
        """Width over height of each photo, for display."""

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The rows to compare with: the truth, ..., gray."""


def measure(candidate: Candidate, batch: Batch, truth: Truth, extra: int) -> dict[str, Array]:
    """Measure one candidate on a batch: columns with one row per photo.

    extra: of how many photos to draw further samples, for diversity.
    """
    begun = time.perf_counter()
    y, c, full = candidate.paint(batch)
    seconds = time.perf_counter() - begun
    compared = candidate.is_compared
    pictures = [render(y, c, strength) for strength in (STRENGTHS if compared else (1.0,))]
    made = pictures[AS_MADE if compared else 0]
    with ThreadPoolExecutor() as pool:  # NumPy computes outside Python's lock
        # SSIM is slow, and hardly changes with strength, since luma is given.
        ssim = pool.submit(metrics.ssim, made, truth.rgb)
        sums = list(pool.map(lambda picture: metrics.pixel_sums(picture, truth.rgb, truth.lab), pictures))
    found = [metrics.photo_columns(each) for each in sums]
    columns = {name: np.stack([each[name] for each in found], axis=1) for name in found[0]}  # (B, K)
    columns |= {"ssim": ssim.result()[:, None], **truth.compare(made)}
    columns["chroma_by_luma"] = metrics.chroma_by_luma(metrics.lab(made))[None]
    columns["seconds"] = np.array([seconds])
    if full is not None:
        kept = slice(None) if compared else slice(AS_MADE, AS_MADE + 1)
        columns |= {FULL + name: values[:, kept] for name, values in full.items()}
    diverse = extra if candidate.kind == "model" else 0
    columns["diversity"] = np.zeros((len(y), 1))
    columns["diversity_photos"] = (np.arange(len(y)) < diverse)[:, None].astype(float)
    if diverse:
        labs = [metrics.lab(made[:extra])]
        for number in range(1, DIVERSITY_SAMPLES):
            y, c, _ = candidate.paint(batch.again(extra, number))
            labs.append(metrics.lab(render(y, c, 1.0)))
        columns["diversity"][:extra, 0] = metrics.diversity(np.stack(labs))
    return columns


class Truth:
    """A batch of true photos; computes once what every candidate is compared with."""

    def __init__(self, batch: Batch, few: int, nets: Nets) -> None:
        self.rgb = np.ascontiguousarray(batch.rgb.permute(0, 2, 3, 1).numpy())
        self.lab = metrics.lab(self.rgb)
        self.few, self.nets = few, nets
        self.features = metrics.vgg_features(nets.vgg, self.rgb[:few]) if nets.vgg and few else {}

    def compare(self, pictures: Array) -> dict[str, Array]:
        """The columns that need a network. VGG16 sees only the first `few` photos."""
        count, few = len(pictures), self.few
        columns = {
            "pd_vgg16": np.zeros((count, 1)),
            "vgg_photos": (np.arange(count) < few)[:, None].astype(float),
        }
        if self.nets.vgg and few:
            equal = np.array_equal(pictures[:few], self.rgb[:few])
            found = self.features if equal else metrics.vgg_features(self.nets.vgg, pictures[:few])
            columns["pd_vgg16"][:few, 0] = metrics.perceptual_distance(found, self.features)
            columns["fd_vgg16"] = metrics.frechet_features(found)
        if self.nets.inception:
            columns["fid"] = self.nets.inception(pictures)
        return columns


@dataclass(frozen=True)
class Nets:
    """The networks that judge."""

    vgg: VGG16 | None  # None if it is to see no photo
    inception: Callable[[Array], Array] | None
    vgg_photos: int


def evaluate(
    candidates: Sequence[Candidate],
    photos: Photos,
    out: Path,
    *,
    vgg_photos: int = VGG_PHOTOS,
    inception_weights: Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> dict[str, Any]:
    """Evaluate candidates on photos. Writes `report.json` and `report.html` into `out`; returns the former.

    candidates: the first is the one that the others are compared with. vgg_photos: how many photos VGG16
    sees; it takes the most time. inception_weights: file for FID (default: no FID). progress(done, total,
    text) counts photos times candidates; an exception in it ends the evaluation, and the same call resumes
    it.

    Raises UsageError without candidates, or if two have one name. Raises PhotochromError if `out` holds other
    files, or a report and `overwrite` is not set.
    """
    if not candidates:
        raise UsageError("give at least one model")
    processes.connect()
    rows = [*candidates, *photos.references(candidates)]
    names = [row.name for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"two rows would have the name {twice!r}: give each model once, from a folder with its own name"
        )
    settings = {
        "photochrom": __version__,
        "data": photos.facts,
        "seed": photos.seed,
        "strengths": list(STRENGTHS),
        "batch": photos.at_once,
        "vgg_photos": vgg_photos,
        "inception": inception_weights is not None,
        "subjects": {candidate.name: candidate.facts for candidate in candidates},
    }
    nets = Nets(
        VGG16.load().to(pick_device(device)) if vgg_photos else None,
        metrics.load_inception(inception_weights) if inception_weights else None,
        vgg_photos,
    )
    processes.from_first(lambda: prepare(out, settings, overwrite))
    run(rows, photos, nets, out / PARTIAL, progress)
    processes.gather(None)  # waits until all processes have measured their share
    return processes.from_first(lambda: conclude(settings, rows, photos, out))


def conclude(
    settings: dict[str, Any], rows: Sequence[Candidate], photos: Photos, out: Path
) -> dict[str, Any]:
    """Write the report from the measured batches, and return it."""
    compared = [row.name for row in rows if row.is_compared]
    results = load(out / PARTIAL, -(-len(photos) // photos.at_once))
    versions = {name: version(name) for name in ("torch", "numpy", "scikit-image")}
    result = {
        **settings,
        "python": platform.python_version(),
        "versions": versions,
        "kinds": {row.name: row.kind for row in rows},
        **summary(results, compared, [row.name for row in rows if row.kind == "model"]),
    }
    result["advice"] = advise(result, compared)
    result["origins"], result["shapes"] = photos.origins(), photos.shapes()
    wanted = report.places(result)
    pictures = {row.name: paint_again(row, photos, wanted[row.name]) for row in rows if row.name in wanted}
    files.write_bytes(out / HTML, report.html(result, pictures).encode())
    files.write_json(out / JSON, result)  # last, so that its existence means a complete report
    remove(out / PARTIAL)
    return result


def keep_in(folder: ModelFolder, result: dict[str, Any]) -> None:
    """Write the model's row of a report into its folder (`evaluation.json`), and update its card.

    The models of the package are left as they are.
    """
    if folder.shipped:
        return
    facts = result["subjects"][folder.name]
    rows = {"model": folder.name, "gray": GRAY, "true": TRUTH}
    kept = {
        "photochrom": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        **{key: result[key] for key in ("data", "seed")},
        **{
            key: facts[key]
            for key in ("steps", "sampler", "guidance", "average", "epoch", "val_loss", "weights_sha256")
        },
        "rows": {key: result["rows"][name] for key, name in rows.items()},
        "at_equal_colorfulness": result["at_equal_colorfulness"][folder.name],
    }
    files.write_json(folder / EVALUATION, kept)
    card.write_card(folder)


def prepare(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make the report's folder, or resume the unfinished evaluation in it.

    Raises PhotochromError if it holds something else, and `overwrite` does not allow to replace it.
    """
    found = {path.name for path in out.iterdir() if path.name[0] != "."} if out.is_dir() else set()
    if found - {PARTIAL, JSON, HTML} or (out.exists() and not out.is_dir()):
        raise PhotochromError(f"{out} holds files that are no report: choose another folder with --out")
    if JSON in found and not overwrite:
        raise PhotochromError(f"{out} holds a report: choose another folder with --out, or --overwrite it")
    partial = out / PARTIAL
    if any(partial.glob("*.npz")):
        before = json.loads((partial / SETTINGS).read_text(encoding="utf-8"))
        if before == json.loads(json.dumps(settings)):
            return
        if not overwrite:
            raise PhotochromError(
                f"{out} holds an unfinished evaluation with other settings: use those settings, choose "
                "another folder with --out, or --overwrite it"
            )
        remove(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotochromError(f"cannot write {partial}: {error.strerror}; choose another --out") from error
    files.write_json(partial / SETTINGS, settings)


def remove(partial: Path) -> None:
    """Delete the measured batches of an evaluation."""
    for path in partial.iterdir():
        path.unlink()
    partial.rmdir()


def run(
    rows: Sequence[Candidate],
    photos: Photos,
    nets: Nets,
    partial: Path,
    progress: Callable[[int, int, str], None],
) -> None:
    """Measure this process's share of the photos, one file per batch. Skips batches already measured."""
    compared, count, step = sum(row.is_compared for row in rows), len(photos), photos.at_once
    batches = {
        first: range(first, min(first + step, count)) for first in processes.mine(range(0, count, step))
    }
    done, total = 0, compared * sum(map(len, batches.values()))
    for first, places in batches.items():
        file = partial / f"{first:08}.npz"
        if not file.exists():
            batch = photos.batch(places)
            truth = Truth(batch, min(len(places), max(0, nets.vgg_photos - first)), nets)
            extra = min(len(places), max(0, DIVERSITY_PHOTOS - first))
            columns: dict[str, Array] = {}
            for row in rows:
                if row.is_compared:
                    progress(done, total, f"{row.name}, {first + 1:,} of {count:,} photos")
                found = measure(row, batch, truth, extra)
                columns |= {f"{row.name}/{name}": values for name, values in found.items()}
                done += len(places) * row.is_compared
            buffer = BytesIO()
            np.savez(buffer, **columns)  # type: ignore[arg-type]
            files.write_bytes(file, buffer.getvalue())
        else:
            done += len(places) * compared
        progress(done, total, f"{first + len(places):,} of {count:,} photos")


def load(partial: Path, count: int) -> Results:
    """Read and join the columns of all batches. Raises PhotochromError if there are fewer than `count`."""
    parts: dict[str, dict[str, list[Array]]] = {}
    files = sorted(partial.glob("*.npz"))
    if len(files) < count:
        raise PhotochromError(
            f"{partial} has {len(files)} of {count} measured batches: give a folder (--out) that all "
            "processes share"
        )
    for file in files:
        with np.load(file, allow_pickle=False) as columns:
            for key, values in columns.items():
                row, _, name = key.rpartition("/")
                parts.setdefault(row, {}).setdefault(name, []).append(values)
    return {row: {name: np.concatenate(v) for name, v in columns.items()} for row, columns in parts.items()}


def paint_again(row: Candidate, photos: Photos, places: Sequence[int]) -> dict[int, Array]:
    """Colour the photos to show once more, with the same seeds: {place: picture (S,S,3) uint8}."""
    pictures: dict[int, Array] = {}
    for first in range(0, len(places), photos.at_once):
        batch = list(places[first : first + photos.at_once])
        y, c, _ = row.paint(replace(photos.batch(batch), at_full=False))
        made = (255 * render(y, c, 1.0)).round().astype(np.uint8)
        pictures |= dict(zip(batch, made, strict=True))
    return pictures


def print_report(result: dict[str, Any]) -> None:
    """Print the tables and the advice on stdout."""
    console = Console(highlight=False)
    for table in report.tables(result):
        console.print(table, "")
    for sentence in result["advice"]:
        console.print(f"- {sentence}", markup=False)
