"""Evaluation: models against a data set's held-out photos, and one model against another.

Fading the colours lowers every error, so a model is a curve: its errors against its colourfulness while its chroma is
multiplied by a strength. Every photo is sampled once, all strengths are made of that sample, and models are compared where
their colourfulness is equal. A batch's numbers are written down before the next one begins; the same command goes on there.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from torch import Tensor

from photochrom import __version__, files, processes
from photochrom.coloring.colorizer import pick_device
from photochrom.coloring.options import EVALUATED, Options, chosen
from photochrom.data.dataset import DataSet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation import card, metrics, report
from photochrom.evaluation.advice import advise
from photochrom.evaluation.candidates import Subject, model_subject, references, render
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import AS_MADE, GRAY, STRENGTHS, TRUTH, Results, summary
from photochrom.model_folder import EVALUATION, ModelFolder

BATCH = 32
# VGG16 costs as much as several steps of a small model, and twice as many photos say little more.
VGG_PHOTOS = 400
SMALLEST = 16  # pixels that are left one after the four halvings of VGG16
DIVERSITY_PHOTOS, DIVERSITY_SAMPLES = 32, 3
PARTIAL, SETTINGS, JSON, HTML = "partial", "settings.json", "report.json", "report.html"


def photo_seeds(indices: npt.NDArray[np.int64], seed: int) -> list[int]:
    """A seed of its own for each photo, so that one lucky noise cannot favour them all."""
    return [int(np.random.SeedSequence((seed, int(i))).generate_state(1)[0]) for i in indices]


def measure(
    subject: Subject, rgb: Tensor, seeds: Sequence[int], truth: Truth, extra: int
) -> dict[str, Array]:
    """All columns of one subject for a batch. `extra`: how many of its photos are also sampled for diversity."""
    begun = time.perf_counter()
    y, c = subject.paint(rgb, seeds)
    seconds = time.perf_counter() - begun
    pictures = [render(y, c, strength) for strength in (STRENGTHS if subject.is_model else (1.0,))]
    made = pictures[AS_MADE if subject.is_model else 0]
    with ThreadPoolExecutor() as pool:  # NumPy computes outside Python's lock
        ssim = pool.submit(
            metrics.ssim, made, truth.rgb
        )  # dear, and with luma given it hardly changes with strength
        sums = list(pool.map(lambda picture: metrics.photo_sums(picture, truth.rgb, truth.lab), pictures))
    columns = {name: np.stack([s[name] for s in sums], axis=1) for name in sums[0]}  # (B, K)
    columns |= {"ssim": ssim.result()[:, None], **truth.compare(made)}
    columns["chroma_by_luma"] = metrics.chroma_by_luma(metrics.lab(made))[None]
    columns["seconds"] = np.array([seconds])
    columns["diversity"] = np.zeros((len(rgb), 1))
    columns["diversity_photos"] = (np.arange(len(rgb)) < extra)[:, None].astype(float)
    if subject.is_model and extra:
        labs = [metrics.lab(made[:extra])]
        for again in range(1, DIVERSITY_SAMPLES):
            y, c = subject.paint(rgb[:extra], [s + again for s in seeds[:extra]])
            labs.append(metrics.lab(render(y, c, 1.0)))
        columns["diversity"][:extra, 0] = metrics.diversity(np.stack(labs))
    return columns


class Truth:
    """A batch of true photos, with what all subjects are compared to computed once."""

    def __init__(self, rgb: Tensor, few: int, nets: Nets) -> None:
        self.rgb = np.ascontiguousarray(rgb.permute(0, 2, 3, 1).numpy())
        self.lab = metrics.lab(self.rgb)
        self.few, self.nets = few, nets
        self.features = metrics.vgg_features(nets.vgg, self.rgb[:few]) if few else {}

    def compare(self, pictures: Array) -> dict[str, Array]:
        """Columns that need a network: of the first `few` photos."""
        count, few = len(pictures), self.few
        columns = {
            "pd_vgg16": np.zeros((count, 1)),
            "vgg_photos": (np.arange(count) < few)[:, None].astype(float),
        }
        if few:
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

    vgg: VGG16
    inception: Callable[[Array], Array] | None


def evaluate(
    models: Sequence[str | Path | Subject],
    pack: DataSet,
    out: Path,
    options: Options | None = None,
    *,
    models_dir: str | Path = "models",
    split: str = "validation",
    photos: int | None = None,
    inception_weights: Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    **changes: Any,
) -> dict[str, Any]:
    """Evaluate models on a data set; write `report.json` and `report.html` into the folder `out`, return the former.

    models: names, folders, or Subjects of other origin; the others are compared with the first. photos: how many, in a fixed
    order, so that few are a part of many. options, or their fields as keyword arguments: how models colour; `EVALUATED` count.
    progress(done, total, text) counts photos times models; what it raises ends the evaluation, and the
    same call goes on where it was.

    Raises PhotochromError for models and data sets that do not fit, for a part without photos, and for a folder `out` that
    holds something else, or a report and no `overwrite`.
    """
    options = chosen(options, changes)
    if not models:
        raise UsageError("give at least one model")
    if unused := sorted(options.model_fields_set - set(EVALUATED)):
        raise UsageError(f"an evaluation colours without {', '.join(unused)}")
    if pack.size < SMALLEST:
        raise PhotochromError(
            f"photos of {pack.size} pixels are too small for VGG16: import them with --size {SMALLEST}"
        )
    processes.connect()
    indices = choose(pack, split, photos)
    subjects = [
        model
        if isinstance(model, Subject)
        else model_subject(model, models_dir, pack, options, device=device)
        for model in models
    ]
    scales = sorted({subject.facts.get("chroma_scale", 1) for subject in subjects})
    rows = [*subjects, *references(pack, scales)]
    names = [row.name for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"two rows would be called {twice!r}: give each model once, in a folder of its own name"
        )
    data = {"name": pack.name, "checksum": pack.checksum, "split": split, "size": pack.size}
    settings = {
        "photochrom": __version__,
        "data": {**data, "photos": len(indices)},
        "seed": options.seed,
        "strengths": list(STRENGTHS),
        "batch": BATCH,
        "vgg_photos": VGG_PHOTOS,
        "inception": inception_weights is not None,
        "subjects": {subject.name: subject.facts for subject in subjects},
    }
    nets = Nets(
        VGG16.load().to(pick_device(device)),
        metrics.load_inception(inception_weights) if inception_weights else None,
    )
    processes.from_first(lambda: prepare(out, settings, overwrite))
    run(rows, pack, indices, options.seed, nets, out / PARTIAL, progress)
    processes.gather(None)  # until all have measured their share
    return processes.from_first(lambda: conclude(settings, rows, pack, indices, options.seed, out))


def conclude(
    settings: dict[str, Any],
    rows: Sequence[Subject],
    pack: DataSet,
    indices: npt.NDArray[np.int64],
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Write the report of what was measured, and return it."""
    model_names = [row.name for row in rows if row.is_model]
    results = load(out / PARTIAL, -(-len(indices) // BATCH))
    versions = {name: version(name) for name in ("torch", "numpy", "scikit-image")}
    result = {
        **settings,
        "python": platform.python_version(),
        "versions": versions,
        **summary(results, model_names),
    }
    result["advice"] = advise(result, model_names)
    result["origins"] = pack.origins(indices)
    wanted = report.places(result)
    pictures = {
        row.name: paint_again(row, pack, indices, wanted[row.name], seed)
        for row in rows
        if row.name in wanted
    }
    files.write_bytes(out / HTML, report.html(result, pictures).encode())
    files.write_json(out / JSON, result)  # last: where it is, the report is whole
    remove(out / PARTIAL)
    return result


def keep_in(folder: ModelFolder, result: dict[str, Any]) -> None:
    """Write the model's own row of a report into its folder (`evaluation.json`), and its card anew.

    A model that comes along is left as it is.
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


def choose(pack: DataSet, split: str, photos: int | None) -> npt.NDArray[np.int64]:
    """Indices of the photos to evaluate on, shuffled, so that any first part is a fair one."""
    if photos is not None and photos < 1:
        raise UsageError(f"photos {photos}: give 1 or more")
    if not pack.count(split):
        raise PhotochromError(
            f"data set {pack.name!r} has no {split} photos: import it again with more photos, or a larger --{split}"
        )
    return pack.drawn(split, photos, 0)


def prepare(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make the report's folder, or take up the evaluation that was interrupted in it."""
    found = {path.name for path in out.iterdir() if path.name[0] != "."} if out.is_dir() else set()
    if found - {PARTIAL, JSON, HTML} or (out.exists() and not out.is_dir()):
        raise PhotochromError(f"{out} holds other things than a report: choose another folder with --out")
    if JSON in found and not overwrite:
        raise PhotochromError(f"{out} holds a report: choose another folder with --out, or --overwrite")
    partial = out / PARTIAL
    if any(partial.glob("*.npz")):
        before = json.loads((partial / SETTINGS).read_text(encoding="utf-8"))
        if before == json.loads(json.dumps(settings)):
            return
        if not overwrite:
            raise PhotochromError(
                f"{out} holds an unfinished evaluation with other settings: repeat it with those, choose another "
                f"folder with --out, or --overwrite"
            )
        remove(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotochromError(f"cannot write {partial}: {error.strerror}; choose another --out") from error
    files.write_json(partial / SETTINGS, settings)


def remove(partial: Path) -> None:
    """Delete what an evaluation keeps while it runs."""
    for path in partial.iterdir():
        path.unlink()
    partial.rmdir()


def run(
    rows: Sequence[Subject],
    pack: DataSet,
    indices: npt.NDArray[np.int64],
    seed: int,
    nets: Nets,
    partial: Path,
    progress: Callable[[int, int, str], None],
) -> None:
    """Measure this process's share, batch after batch, each into a file of its own; those that are there are passed over."""
    models = sum(row.is_model for row in rows)
    batches = {
        first: indices[first : first + BATCH] for first in processes.mine(range(0, len(indices), BATCH))
    }
    done, total = 0, models * sum(map(len, batches.values()))
    for first, batch in batches.items():
        file = partial / f"{first:08}.npz"
        if not file.exists():
            rgb, seeds = pack.rgb(batch), photo_seeds(batch, seed)
            truth = Truth(rgb, min(len(batch), max(0, VGG_PHOTOS - first)), nets)
            extra = min(len(batch), max(0, DIVERSITY_PHOTOS - first))
            columns: dict[str, Array] = {}
            for row in rows:
                if row.is_model:
                    progress(done, total, f"{row.name}, {first + 1:,} of {len(indices):,} photos")
                found = measure(row, rgb, seeds, truth, extra)
                columns |= {f"{row.name}/{name}": values for name, values in found.items()}
                done += len(batch) * row.is_model
            buffer = BytesIO()
            np.savez(buffer, **columns)  # type: ignore[arg-type]
            files.write_bytes(file, buffer.getvalue())
        else:
            done += len(batch) * models
        progress(done, total, f"{first + len(batch):,} of {len(indices):,} photos")


def load(partial: Path, count: int) -> Results:
    """The columns of all batches together, of which there are to be `count`."""
    parts: dict[str, dict[str, list[Array]]] = {}
    files = sorted(partial.glob("*.npz"))
    if len(files) < count:
        raise PhotochromError(
            f"{partial} has {len(files)} of {count} measured batches: take a folder (--out) that all processes write to"
        )
    for file in files:
        with np.load(file, allow_pickle=False) as columns:
            for key, values in columns.items():
                row, _, name = key.rpartition("/")
                parts.setdefault(row, {}).setdefault(name, []).append(values)
    return {row: {name: np.concatenate(v) for name, v in columns.items()} for row, columns in parts.items()}


def paint_again(
    row: Subject, pack: DataSet, indices: npt.NDArray[np.int64], places: Sequence[int], seed: int
) -> dict[int, Array]:
    """The pictures to show, (S,S,3) uint8 by place among the photos: the same seed makes the same picture once more."""
    pictures: dict[int, Array] = {}
    for first in range(0, len(places), BATCH):
        batch = list(places[first : first + BATCH])
        rgb, seeds = pack.rgb(indices[batch]), photo_seeds(indices[batch], seed)
        made = (255 * render(*row.paint(rgb, seeds), 1.0)).round().astype(np.uint8)
        pictures |= dict(zip(batch, made, strict=True))
    return pictures


def print_report(result: dict[str, Any]) -> None:
    """Print the tables and the advice on stdout."""
    console = Console(highlight=False)
    for table in report.tables(result):
        console.print(table, "")
    for sentence in result["advice"]:
        console.print(f"- {sentence}", markup=False)
