"""Baselines beside Photochrom: the same training budget, the same photos, the same evaluation.

    python benchmarks/baselines.py --data tiny-imagenet-200 --minutes 40 --photos 500
    python benchmarks/baselines.py --data tiny-imagenet-200 --photos 500 --models models/v1 models/v2

A budget is processor time: what all threads of the process compute during training steps. So other programs
on the machine take nothing from any row; two cores that are busy for 20 minutes use up to 40. Evaluation,
reading weights and saving do not count. Every row uses the package's own training loop, with the same photos
in the same order, batch size, optimiser, averaging and schedule, unless the baseline's file says otherwise. A
row that is already trained is not trained again. Writes docs/measurements/baselines.md, and a sheet of photos
beside the report, because a data set may not allow them in a repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # threads that spin while they wait would use up the budget

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from baselines_page import figures
from pages import MEASUREMENTS, parser_for, write_figures
from photochrom import files, model_folder, pictures
from photochrom.commands.terminal import Display
from photochrom.config import Config, StageConfig, build, read_recipe
from photochrom.data.dataset import DataSet, find
from photochrom.diffusion.diffusion import sample
from photochrom.errors import PhotochromError
from photochrom.evaluation import evaluate
from photochrom.evaluation.at_size import model_at_size
from photochrom.evaluation.candidates import Candidate, Painted, given_luma
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.statistics import GRAY, TRUTH
from photochrom.model_folder import ModelFolder
from photochrom.training.state import Training
from photochrom.training.step import train_step
from pix2pix import Pix2Pix
from regression import Regression
from rgb_diffusion import RgbDiffusion

HOME = Path(__file__).parents[1]
SHEET_PHOTOS = 8


class PhotochromV1(Training):
    """This package's default, with the noise loss alone."""

    title = "Photochrom V1"

    def paint(self, rgb: Tensor, seeds: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """Colour photos by their luma, each by its seed. Returns luma and chroma, in [-1,1]."""
        y, generators = given_luma(rgb), [torch.Generator().manual_seed(seed) for seed in seeds]
        return y, sample(self.averaged, self.diffusion, y.to(self.device), generators, steps).cpu()


class PhotochromV2(PhotochromV1):
    """The same with the perceptual loss, from the first step on."""

    title = "Photochrom V2"

    def __init__(self, config: Config, pack: DataSet) -> None:
        stage = StageConfig(epochs=config.stages[0].epochs)
        super().__init__(config.model_copy(update={"stages": (stage,)}), pack)


METHODS: dict[str, Any] = {
    "v1": PhotochromV1,
    "v2": PhotochromV2,
    "regression": Regression,
    "rgb-diffusion": RgbDiffusion,
    "pix2pix": Pix2Pix,
}


def train_for(training: Training, seconds: float, name: str) -> float:
    """Train for this much processor time. Returns the time used.

    The learning rate falls to 0 as always: before each step, the number of steps is estimated again.
    """
    begun, spent = time.process_time(), 0.0
    with Display() as display:
        while spent < seconds:
            if done := training.step:
                training.steps_per_epoch = max(done + 1, round(done * seconds / spent))
            loss = train_step(training)["loss"]
            spent = time.process_time() - begun
            display.show(min(spent, seconds), seconds, f"{name}: step {training.step:,}, loss {loss:.4f}")
    return spent


def trained(
    method: str, config: Config, pack: DataSet, minutes: float, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """A trained row and the facts about it: read from its file in the folder, or trained now and saved there.

    Raises PhotochromError if the file has other settings.
    """
    training, file = METHODS[method](config, pack), folder / f"{method}.safetensors"
    settings = json.dumps({"minutes": minutes, "config": config.model_dump(mode="json")})
    if not file.exists():
        used = train_for(training, 60 * minutes, method)
        photos = training.step * config.training.batch_size
        facts = {"settings": settings, "minutes": json.dumps(used / 60), "photos": json.dumps(photos)}
        weights = {name: value.cpu().contiguous() for name, value in training.averaged.state_dict().items()}
        files.write_bytes(file, safetensors.torch.save(weights, facts))
    with safetensors.safe_open(file, framework="pt") as opened:
        facts = opened.metadata()
    found = {key: json.loads(facts[key]) for key in ("minutes", "photos")}
    if facts["settings"] != settings:
        raise PhotochromError(
            f"{file} was trained with other settings or another budget ({found['minutes']:.1f} minutes): "
            "choose another folder with --out"
        )
    model_folder.load_tensors(training.averaged, safetensors.torch.load_file(file), file)
    return training, {**found, "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def budget_of(folder: ModelFolder, pack: DataSet, steps: int = 5) -> dict[str, Any]:
    """Processor minutes and photos of a model's training: the photos it saw, times the present cost of one.

    Its history records wall-clock time only, which also runs while other programs use the processor.
    """
    photos: Counter[tuple[tuple[str, float], ...]] = Counter()
    for record in folder.history:
        photos[tuple(record["weights"].items())] += record["photos"]
    seconds = 0.0
    for weights, count in photos.items():
        stage = dict(weights) | {"gan": dict(weights)["adversarial"] > 0, "gan_delay": 0}
        config = folder.config.model_copy(
            update={"stages": (folder.config.stages[-1].model_copy(update=stage),), "first_epoch": 0}
        )
        training = Training(config, pack)
        train_step(training)  # the first one is slower
        begun = time.process_time()
        for _ in range(steps):
            train_step(training)
        seconds += count * (time.process_time() - begun) / (steps * config.training.batch_size)
    return {"minutes": seconds / 60, "photos": sum(photos.values())}


def candidate(training: Any, facts: dict[str, Any], steps: int) -> Candidate:
    """A row of the evaluation."""
    paint = partial(training.paint, steps=steps)
    return Candidate(training.title, lambda batch: Painted(*paint(batch.rgb, batch.seeds)), facts)


def sheet(candidates: Sequence[Candidate], photos: HeldOut) -> Image.Image:
    """The first photos of the evaluation: gray, by each model, and true."""
    rows = {row.name: row for row in photos.references([])}
    columns = {}
    for row in (rows[GRAY], *candidates, rows[TRUTH]):
        made = evaluate.paint_again(row, photos, range(len(photos)))
        columns[row.name] = [Image.fromarray(made[place]) for place in range(len(photos))]
    return pictures.sheet(columns)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(__doc__, data="demo")
    parser.add_argument(
        "--minutes", type=float, default=20.0,
        help="processor minutes for each row, all threads together (default: 20; with --models, theirs)",
    )  # fmt: skip
    parser.add_argument("--photos", type=int, help="photos to evaluate on (default: the whole part)")
    parser.add_argument("--models", nargs="*", type=Path, default=[], help="model folders to compare with")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS), help="what to train")
    parser.add_argument("--split", default="validation", help="validation or test")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of diffusion models")
    parser.add_argument("--seed", type=int, default=0, help="of training and sampling")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--recipe",
        type=Path,
        help="settings of all rows (default: those of the first model, or recipes/cpu-small.toml)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports/baselines"), help="weights and report")
    parser.add_argument("--doc", type=Path, default=MEASUREMENTS / "baselines.md", help="the page")
    return parser.parse_args(arguments)


def configured(folders: Sequence[ModelFolder], recipe: Path | None, seed: int, pack: DataSet) -> Config:
    """The recipe's settings, or the first model's, with one stage of noise loss as long as the budget."""
    if folders and not recipe:
        config = folders[0].config
        values = {name: getattr(config, name).model_dump() for name in ("model", "diffusion", "training")}
        values["data"] = {"flip": config.data.flip}  # and nothing that is of the other's data set
    else:
        values = read_recipe(recipe or HOME / "recipes" / "cpu-small.toml")
    values["training"] = values.get("training", {}) | {"seed": seed}
    values["data"] = values.get("data", {}) | {"name": pack.name, "checksum": pack.checksum}
    return build(values | {"stages": [{"epochs": 1, "perceptual": 0.0}]})


def run(options: argparse.Namespace) -> str:
    """Train what is not trained yet, evaluate, and write the page. Returns the page."""
    pack = find(options.data, options.data_dir, typed=True)
    folders = [model_folder.find_model(model, Path("models")) for model in options.models]
    config = configured(folders, options.recipe, options.seed, pack)
    budgets = {folder.name: budget_of(folder, pack) for folder in folders}
    for name, budget in budgets.items():
        print(f"{name}: {budget['minutes']:.1f} processor minutes", file=sys.stderr)
    common = {"steps": options.steps, "sampler": "ddim", "device": None}
    candidates = [model_at_size(folder.path, Path("models"), pack, **common) for folder in folders]
    options.out.mkdir(parents=True, exist_ok=True)
    for method in options.methods:
        training, facts = trained(method, config, pack, options.minutes, options.out)
        facts |= {"chroma_scale": training.config.model.chroma_scale, "steps": options.steps}
        candidates.append(candidate(training, facts, options.steps))
        budgets[training.title] = facts
    with Display() as display:
        result = evaluate.evaluate(
            candidates, HeldOut(pack, options.split, options.photos, options.seed), options.out / "report",
            overwrite=True, progress=display.show,
        )  # fmt: skip
    text = figures(result, budgets, config, options.steps)
    files.write_bytes(
        options.out / "sheet.png",
        pictures.png(sheet(candidates, HeldOut(pack, options.split, SHEET_PHOTOS, options.seed))),
    )
    write_figures(options.doc, text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and print errors in one line."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        print(run(options))
    except PhotochromError as error:
        sys.exit(f"compare: error: {error}")
    print(f"written: {options.doc}", file=sys.stderr)


if __name__ == "__main__":
    main()
