"""Longer trainings from nothing, by one recipe: the learning curve, one change at a time, two ways to go on.

    python benchmarks/curve.py train --data tiny-imagenet-200
    python benchmarks/curve.py evaluate --data tiny-imagenet-200

For a GPU: all of it is 8 million photos, twenty minutes of an H100 or a day of two cores. Skips what is
trained, so several processes may share the names with `--only`. The second command writes
docs/measurements/curve.md, and the report in OUT/report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from changes import SHOWN, number
from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.commands.terminal import Display
from photochrom.config import PRESETS, Config, build
from photochrom.data.dataset import DataSet, find
from photochrom.evaluation import evaluate
from photochrom.evaluation.at_size import model_at_size
from photochrom.evaluation.held_out import HeldOut
from photochrom.model_folder import WEIGHTS, ModelFolder
from photochrom.training import loop

TWO_CORES = 123 * 60  # photos a minute, see docs/measurements/curve.md
K, BATCH = 1_000, 256


@dataclass(frozen=True)
class Run:
    """A training, and the run that it starts from."""

    photos: int
    epochs: int
    source: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    def config(self, data: str) -> Config:
        """The whole configuration."""
        return build(
            {
                "model": {"features": PRESETS["small"].features, "encoder": "vgg16x2"} | self.model,
                "data": {"name": data, "aged": 0.3, "photos_per_epoch": round(self.photos / self.epochs)},
                "training": {"batch_size": BATCH, "learning_rate": 1.2e-3, "sample_every": 0} | self.training,
                "stages": [{"perceptual": 0.0, "epochs": self.epochs} | self.stage],
            }
        )


CURVE = {
    "150k": Run(150 * K, 4),
    "300k": Run(300 * K, 4),
    "600k": Run(600 * K, 5),
    "1200k": Run(1_200 * K, 8),
    "3200k": Run(3_200 * K, 20),
}
BASE = "300k"
CHANGES = {
    "another seed": Run(300 * K, 4, training={"seed": 1}),
    "learning rate halved": Run(300 * K, 4, training={"learning_rate": 6e-4}),
    "learning rate doubled": Run(300 * K, 4, training={"learning_rate": 2.4e-3}),
    "average of 0.99": Run(300 * K, 4, training={"ema_decay": 0.99}),
    "average of 0.9999": Run(300 * K, 4, training={"ema_decay": 0.9999}),
    "preset default, four times the network": Run(
        300 * K, 4, model={"features": PRESETS["default"].features}
    ),
    "perceptual 0.1 from the start": Run(300 * K, 4, stage={"perceptual": 0.1}),
}
ON = {"seed": 1, "learning_rate": 8e-4}
GOING_ON = {
    "200,000 by noise alone": Run(200 * K, 4, "600k", ON),
    "150,000 with perceptual 0.1": Run(150 * K, 4, "600k", ON, {"perceptual": 0.1}),
    "150,000 with perceptual 0.1, and GAN": Run(150 * K, 4, "600k", ON, {"perceptual": 0.1, "gan": True}),
}
RUNS = CURVE | CHANGES | GOING_ON


def folder_of(name: str, out: Path) -> ModelFolder:
    """The folder of a run's model."""
    return ModelFolder(out / name.translate(str.maketrans(" ", "-", ":,")))


def differences(report: dict[str, Any], name: str) -> str:
    """Cells with a model's differences to the report's first, at 85 % of the true colourfulness."""
    found = {d["measure"]: d for d in report["differences"] if d["model"] == name}
    cells = [number(found[measure]["at"]["85%"], digits) for measure, digits in SHOWN.values()]
    return " | ".join([*cells, number(found["fd_vgg16"]["as_made"], 0)])


def absolute(report: dict[str, Any], name: str) -> str:
    """Cells with a model's own measures at 85 % of the true colourfulness."""
    equal, made = report["at_equal_colorfulness"][name]["85%"], report["rows"][name]["fd_vgg16"]
    cells = [f"{equal[measure]['value']:.{digits}f}" for measure, digits in SHOWN.values()]
    return " | ".join([*cells, f"{made['value']:.0f}"])


def text(reports: dict[str, dict[str, Any]], data: str, device: str, dearer: float) -> str:
    """The figures of docs/measurements/curve.md, from a report for each model that others are compared with.

    dearer: how many times as long a photo takes with the perceptual loss.
    """
    names = list(CURVE)
    head = " | ".join([*SHOWN, "FD-VGG16, as made"]) + " |\n|---|" + "---:|" * (len(SHOWN) + 1)
    first = next(iter(reports.values()))
    lengths = [
        f"| {CURVE[name].photos:,}, {CURVE[name].photos / TWO_CORES / 60:.1f} hours "
        f"| {absolute(reports[name], name)} |"
        for name in names
    ]
    doublings = [
        f"| {CURVE[b].photos:,} after {CURVE[a].photos:,} | {differences(reports[a], b)} |"
        for a, b in pairwise(names)
    ]
    changes = [f"| {name} | {differences(reports[BASE], name)} |" for name in CHANGES]
    noise, *others = GOING_ON
    gan = GOING_ON[others[-1]]
    steps = gan.epochs * -(-gan.photos // gan.epochs // BATCH)
    on = [f"| {name} | {differences(reports[noise], name)} |" for name in others]
    return f"""
## Length

Photos seen, and the hours that two cores would take for them (123 photos a second):

| | {head}
{chr(10).join(lengths)}

Differences of each to the one before:

| | {head}
{chr(10).join(doublings)}

## One change at a time, {CURVE[BASE].photos:,} photos

Differences to the same training without the change:

| | {head}
{chr(10).join(changes)}

## Two ways to go on

From the model of {CURVE["600k"].photos:,} photos, learning rate 8e-4, seed 1. With the perceptual loss, a
photo took {dearer:.2f} times as long; 150,000 photos make equal time at 1.33. Differences to `{noise}`
({absolute(reports[noise], noise).replace(" | ", ", ")}):

| | {head}
{chr(10).join(on)}

The discriminator learns alone for 500 steps (`--gan-delay`). It took part in the last {steps - 500} of
{steps} steps only, with a weight of 0.01.

{written_by(f"curve.py evaluate --data {data}")}. Trained on {device}: preset small, encoder vgg16x2 with
guidance 1.5, luma of 30 % aged, mirrored, batches of {BATCH}, learning rate 1.2e-3 falling to 0, seed 0;
from nothing, unless a row says otherwise. {first["data"]["photos"]} validation photos, one colouring each,
DDIM in 20 steps, where strength makes all 85 % as colourful as the true photos. Intervals: 95 % over
photos. Bold: chance of the photos does not explain it. "another seed" shows what chance of the training
does.
"""


def train_all(names: list[str], pack: DataSet, out: Path) -> None:
    """Train what is not trained yet; a run after the run that it starts from."""
    for name in names:
        run = RUNS[name]
        source = folder_of(run.source, out) if run.source else None
        loop.train(run.config(pack.name), folder_of(name, out), pack, source=source)
        print(f"{name}: validation loss {folder_of(name, out).history[-1]['val_loss']:.4f}", flush=True)


def evaluate_all(pack: DataSet, out: Path, photos: int) -> None:
    """Evaluate everything once for each model that others are compared with, and write the page."""
    noise, *others = GOING_ON
    held = {shorter: [longer] for shorter, longer in pairwise(CURVE)} | {list(CURVE)[-1]: [], noise: others}
    held[BASE] += CHANGES
    reports = {}
    for first, rest in held.items():
        with Display() as display:
            report = evaluate.evaluate(
                [model_at_size(folder_of(name, out).path, "models", pack) for name in (first, *rest)],
                HeldOut(pack, count=photos),
                out / "report" / folder_of(first, out).name,
                overwrite=True,
                progress=display.show,
            )
        reports[first] = renamed(report, {folder_of(name, out).name: name for name in (first, *rest)})
    device = folder_of(BASE, out).history[-1].get("device", "another machine")
    paces = [folder_of(name, out).history[-1]["photos_per_second"] for name in (noise, others[0])]
    write_figures(MEASUREMENTS / "curve.md", text(reports, pack.name, device, paces[0] / paces[1]))


def renamed(report: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A report with the names of runs in the place of their folders' names."""
    kept = {
        part: {names.get(model, model): row for model, row in report[part].items()}
        for part in ("rows", "at_equal_colorfulness")
    }
    found = [d | {"model": names[d["model"]]} for d in report["differences"]]
    return {"data": report["data"], "differences": found, **kept}


def main() -> None:
    """Run the part that the command line names."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("what", choices=("train", "evaluate"))
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("models/curve"))
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=RUNS)
    options = parser.parse_args()
    pack = find(options.data, options.data_dir, typed=True)
    if options.what == "train":
        train_all(options.only, pack, options.out)
        return
    missing = [name for name in RUNS if not (folder_of(name, options.out) / WEIGHTS).exists()]
    if missing:
        parser.error(f"not trained yet: {', '.join(missing)}")
    evaluate_all(pack, options.out, options.photos)


if __name__ == "__main__":
    main()
