"""The model card: what a model is, how it was made and what it is worth, for the person who gets the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from photochrom import model_folder
from photochrom.errors import PhotochromError
from photochrom.evaluation.measures import MEASURES, SET_MEASURES
from photochrom.flags import train_command
from photochrom.model_folder import ModelFolder, best_record

EVALUATION = "evaluation.json"  # written by `photochrom evaluate`: the model's row of its last report
SHOWN = (
    *("dark_error", "false_color", "dim_error", "ab", "ciede2000", "colorfulness"),
    *("psnr", "ssim", "pd_vgg16", "fd_vgg16", "fid", "diversity"),
)


def read_evaluation(folder: ModelFolder) -> dict[str, Any] | None:
    """What the model's last evaluation found, None if there was none; raises PhotochromError for a torn file."""
    try:
        found = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        return {key: found[key] for key in ("data", "date", "epoch", "val_loss", "rows")} | found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PhotochromError(
            f"{folder / EVALUATION} cannot be read ({error}): delete it, and evaluate again"
        ) from None


def is_current(evaluation: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `model.safetensors` still is what was evaluated: training that went on may have found a better epoch."""
    if not history:
        return evaluation["epoch"] is None
    best = best_record([dict(record) for record in history])
    return (evaluation["epoch"], evaluation["val_loss"]) == (best["epoch"], best["val_loss"])


def color_share(evaluation: Mapping[str, Any]) -> float | None:
    """Colourfulness as a share of the true photos'."""
    found, true = (evaluation["rows"][row]["colorfulness"]["value"] for row in ("model", "true"))
    return found / true if true else None


def write_card(folder: ModelFolder) -> None:
    """Write the folder's card anew from what is in the folder; before the first epoch there is nothing to tell."""
    if not folder.history:
        return
    try:
        evaluation = read_evaluation(folder)
    except PhotochromError:  # `photochrom models` says so; no training shall fail for it
        evaluation = None
    model_folder.write_bytes(folder / model_folder.CARD, model_card(folder, evaluation).encode())


def model_card(folder: ModelFolder, evaluation: Mapping[str, Any] | None) -> str:
    """The folder's README.md, as Markdown; at least one epoch has to be done."""
    name, config, history, source = folder.name, folder.config, folder.history, None
    with suppress(PhotochromError):  # the model that it went on from may be gone by now
        source = model_folder.find_model(config.source, folder.path.parent).config if config.source else None
    best = best_record(history)
    hours = sum(record["seconds"] for record in history) / 3600
    photos = sum(record["photos"] for record in history)
    known = all("device" in record for record in history)  # earlier ones did not write it down
    devices = ", ".join(dict.fromkeys(record["device"] for record in history)) if known else ""
    stages = "\n".join(map(_stage, model_folder.stages_of(history)))
    features = ", ".join(map(str, config.model.features))
    network = "EfficientNet-Lite0" if config.model.encoder.startswith("lite0") else "VGG16"
    larger = " at twice the size" if config.model.encoder.endswith("x2") else ""
    sight = f"sees with {network}{larger}; " if config.model.encoded else ""
    own = f"Trained on top of {config.source}" if config.source else "Trained"
    command = f"{own} by\n\n    {train_command(config, name, source)}\n\n" if len(config.stages) == 1 else ""
    return f"""# {name}

A diffusion model that colours grayscale photographs, trained with Photochrom.

    photochrom colorize old.jpg -o coloured/ --model {name}

![loss by epoch](loss_curve.png)

| | |
|---|---|
| network | U-Net, features {features}; {sight}chroma at 1/{config.model.chroma_scale} of luma's size |
| diffusion | {config.diffusion.timesteps} steps, {config.diffusion.schedule} schedule, {config.diffusion.prediction}-prediction |
| data set | {config.data.name}, photos of {config.data.size} pixels, checksum {config.data.checksum} |
| trained | {len(history)} epochs, {photos:,} photos, {hours:.2f} hours{" on " * bool(devices)}{devices} |
| validation loss | {best["val_loss"]:.4f} (epoch {best["epoch"]}, which `model.safetensors` holds; other stages have other losses) |
| seed | {config.training.seed} |

| stage | epochs | photos | noise | perceptual | adversarial |
|---|---:|---:|---:|---:|---:|
{stages}

{command}{_evaluation(name, history, evaluation)}## Use and limits

Colours are plausible guesses, not the truth: do not take them for evidence of what something looked like. The model
knows what its training photos showed and little else; faces, flags and uniforms come out as chance has it. The licence of
those photos may limit how it may be used: Tiny ImageNet, for instance, is for research only.
"""


def _stage(records: Sequence[Mapping[str, Any]]) -> str:
    """A row of the table of stages: what was done in one."""
    photos, weights = sum(record["photos"] for record in records), records[-1]["weights"]
    numbers = [f"{weights[name]:g}" for name in ("noise", "perceptual", "adversarial")]
    return f"| {' | '.join((records[-1]['stage'], str(len(records)), f'{photos:,}', *numbers))} |"


def _evaluation(name: str, history: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None) -> str:
    """The card's section about an evaluation; nothing without one."""
    if not evaluation:
        return ""
    data, rows, guidance = evaluation["data"], evaluation["rows"], evaluation.get("guidance", 1)
    average = evaluation.get("average", 1)
    stale = (
        f"**Measured at epoch {evaluation['epoch']}; the weights have changed since: "
        f"`photochrom evaluate {name}` tells how good they are now.**\n\n"
        if not is_current(evaluation, history)
        else ""
    )
    lines = "\n".join(_line(measure, rows) for measure in SHOWN if measure in rows["model"])
    share = color_share(evaluation)
    colourful = f"{share:.0%}".replace("%", " %") if share is not None else "an unknown share"
    return f"""## Evaluation

{stale}Of {data["photos"]} {data["split"]} photos of {data["name"]} (checksum {data["checksum"]}), {evaluation["sampler"]} in
{evaluation["steps"]} steps{f" with guidance {guidance:g}" if guidance != 1 else ""}, {f"what {average} colourings agree on, " if average > 1 else ""}seed {evaluation["seed"]}, {evaluation["date"]}, Photochrom {evaluation["photochrom"]}.

| measure | this model | 95 % interval | gray | true photos |
|---|---:|---:|---:|---:|
{lines}

Errors shrink as colours fade, so they mean something only beside colourfulness, here {colourful} of the true photos'.

"""


def _line(measure: str, rows: Mapping[str, Any]) -> str:
    about = (MEASURES | SET_MEASURES)[measure]

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.{about.digits}f}"

    found = rows["model"][measure]
    between = "" if found["low"] is None else f"{number(found['low'])} to {number(found['high'])}"
    others = [number(rows[row].get(measure, {}).get("value")) for row in ("gray", "true")]
    title = f"{about.title} {about.unit}".strip()
    return f"| {' | '.join((title, number(found['value']), between, *others))} |"
