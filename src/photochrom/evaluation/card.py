"""Writes the model card, which tells a stranger what a model is, how it was made and how good it is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NotRequired

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    TypeAdapter,
    with_config,
)
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from photochrom import files, model_folder
from photochrom.errors import PhotochromError
from photochrom.evaluation.metrics import ALL_MEASURES
from photochrom.files import Printable, read_json
from photochrom.flags import train_command
from photochrom.model_folder import EVALUATION, ModelFolder
from photochrom.training_history import EpochRecord, best_epoch, stages_of

ALWAYS = ("colorfulness", "ab", "ciede2000", "dark_error", "false_color")  # in every evaluation
SHOWN = (
    *("dark_error", "false_color", "dim_error", "ab", "ciede2000", "colorfulness"),
    *("psnr", "ssim", "pd_vgg16", "fd_vgg16", "fid", "diversity"),
)


class Interval(TypedDict):
    """A measure's value, and its 95 % interval if it has one."""

    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


def _measures(row: Any) -> Any:
    """Keep only the measures of a row. It also holds the time per photo, which has no interval."""
    return (
        {name: value for name, value in row.items() if name in ALL_MEASURES} if isinstance(row, dict) else row
    )


def _has_colors(row: dict[str, Interval]) -> dict[str, Interval]:
    if missing := [name for name in ALWAYS if name not in row]:
        raise ValueError(f"{missing[0]} is missing")
    return row


Row = Annotated[dict[str, Interval], BeforeValidator(_measures), AfterValidator(_has_colors)]


class Rows(TypedDict):
    """The rows of the model, of gray and of the true photos."""

    model: Row
    gray: Row
    true: Row


class Photos(TypedDict):
    """The photos that a model was measured on."""

    name: Printable
    checksum: Printable | None
    split: NotRequired[Printable]  # of a data set
    photos: NonNegativeInt
    size: NotRequired[int]


@with_config(ConfigDict(extra="allow", allow_inf_nan=False))
class Evaluation(TypedDict):
    """`evaluation.json`: the last evaluation of a model by `photochrom evaluate`."""

    photochrom: Printable
    date: Printable
    data: Photos
    seed: int
    steps: int
    sampler: Printable
    guidance: NotRequired[FiniteFloat]
    average: NotRequired[int]
    epoch: int | None
    val_loss: FiniteFloat | None
    rows: Rows


EVALUATION_FILE = TypeAdapter(Evaluation)


def read_evaluation(folder: ModelFolder) -> Evaluation | None:
    """Read the model's last evaluation, None if there is none. Raises PhotochromError for a broken file."""
    try:
        return read_json(folder / EVALUATION, EVALUATION_FILE)
    except FileNotFoundError:
        return None
    except PhotochromError as error:
        raise PhotochromError(f"{error}: delete it, and evaluate again") from None


def is_current(evaluation: Evaluation, history: Sequence[EpochRecord]) -> bool:
    """Whether the evaluation measured the present `model.safetensors`, and not that of an earlier epoch."""
    if not history:
        return evaluation["epoch"] is None
    best = best_epoch(history)
    return (evaluation["epoch"], evaluation["val_loss"]) == (best["epoch"], best["val_loss"])


def color_share(evaluation: Evaluation) -> float | None:
    """The model's colourfulness as a share of the true photos', None if unknown."""
    rows = evaluation["rows"]
    found, true = rows["model"]["colorfulness"]["value"], rows["true"]["colorfulness"]["value"]
    return found / true if found is not None and true else None


def write_card(folder: ModelFolder) -> None:
    """Write the folder's card from its configuration, history and evaluation, once an epoch is finished."""
    if not folder.history:
        return
    try:
        evaluation = read_evaluation(folder)
    except PhotochromError:  # `photochrom models` reports it; training must not fail because of it
        evaluation = None
    files.write_bytes(folder / model_folder.CARD, model_card(folder, evaluation).encode())


def model_card(folder: ModelFolder, evaluation: Evaluation | None) -> str:
    """The folder's README.md as Markdown. Needs at least one finished epoch."""
    name, config, history, source = folder.name, folder.config, folder.history, None
    with suppress(PhotochromError):  # the source may be gone by now
        source = model_folder.find_source(config, folder.path.parent).config if config.source else None
    best = best_epoch(history)
    loss, epoch = best["val_loss"], best["epoch"]
    hours = sum(record["seconds"] for record in history) / 3600
    photos = sum(record["photos"] for record in history)
    known = all("device" in record for record in history)  # earlier versions did not record it
    devices = ", ".join(dict.fromkeys(record["device"] for record in history)) if known else ""
    diffusion, stages = config.diffusion, "\n".join(map(_stage, stages_of(history)))
    features = ", ".join(map(str, config.model.features))
    network = "EfficientNet-Lite0" if config.model.encoder.startswith("lite0") else "VGG16"
    larger = " at twice the size" if config.model.encoder.endswith("x2") else ""
    sight = f"sees with {network}{larger}; " if config.model.encoded else ""
    data = config.data
    seen_at = f", seen at {', '.join(map(str, data.sides))}" if data.sides else ""
    checksum = f", checksum {data.checksum}" if data.checksum else ""
    trained = config.mean_of[-1] if config.mean_of else name
    start = f"Trained from {config.source}" if config.source else "Trained"
    command = (
        f"{start} with\n\n    {train_command(config, trained, source)}\n\n" if len(config.stages) == 1 else ""
    )
    chosen = "the one in `model.safetensors`"
    if config.mean_of:
        chosen = f"of {trained}"
        how = f", {command[0].lower()}{command[1:]}" if command else ".\n\n"
        command = (
            f"The weights are the mean of those of {' and '.join(config.mean_of)}:\n\n"
            f"    {shlex.join(['photochrom', 'models', 'mean', *config.mean_of, '--name', name])}\n\n"
            f"Stages, loss and seed are those of {trained}{how}"
        )
    return f"""# {name}

A diffusion model that colours grayscale photographs, trained with Photochrom.

    photochrom colorize old.jpg -o coloured/ --model {name}

![loss by epoch](loss_curve.png)

| | |
|---|---|
| network | U-Net, features {features}; {sight}chroma at 1/{config.model.chroma_scale} of luma's size |
| diffusion | {diffusion.timesteps} steps, {diffusion.schedule} schedule, {diffusion.prediction}-prediction |
| data set | {data.title}, photos of {data.size} pixels{seen_at}{checksum} |
| trained | {len(history)} epochs, {photos:,} photos, {hours:.2f} hours{" on " * bool(devices)}{devices} |
| validation loss | {loss:.4f} at epoch {epoch}, {chosen}; stages do not compare |
| seed | {config.training.seed} |

| stage | epochs | photos | noise | perceptual | adversarial | threads |
|---|---:|---:|---:|---:|---:|---|
{stages}

{command}{_evaluation(name, history, evaluation)}## Use and limits

Colours are plausible guesses, not the truth: do not take them as evidence of what something looked like.
The model knows little beyond its training photos; the colours of clothes, flags and uniforms are chance. The
licence of those photos may limit the use of the model: Tiny ImageNet, for instance, is for research only.
"""


def hub_card(folder: ModelFolder) -> str:
    """The model card with the metadata for the Hugging Face Hub at its beginning."""
    facts: dict[str, Any] = {
        "library_name": "photochrom",
        "license": "other",
        "license_name": "as-the-training-photos-allow",
        "pipeline_tag": "image-to-image",
        "tags": ["image-colorization", "diffusion", "photochrom"],
    }
    with suppress(PhotochromError):  # a broken evaluation must not prevent sharing
        if evaluation := read_evaluation(folder):
            facts["metrics"] = list(evaluation["rows"]["model"])
    card = folder / model_folder.CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {folder.name}\n"
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value)}" for key, value in facts.items()), "---", "", text]
    )


def _stage(records: Sequence[Mapping[str, Any]]) -> str:
    """One row of the table of stages."""
    photos, last = sum(record["photos"] for record in records), records[-1]
    numbers = [f"{last['weights'][name]:g}" for name in ("noise", "perceptual", "adversarial")]
    cells = (last["stage"], str(len(records)), f"{photos:,}", *numbers, _threads(last))
    return f"| {' | '.join(cells)} |"


def _threads(record: Mapping[str, Any]) -> str:
    """How many threads an epoch took, and whether they shared batches or operations; empty if unknown."""
    if "threads" not in record:  # earlier versions did not record it
        return ""
    count, way = record["workers"] * record["threads"], "parts" if record["workers"] > 1 else "operations"
    return "1" if count == 1 else f"{count} by {way}"


def _evaluation(name: str, history: Sequence[EpochRecord], evaluation: Evaluation | None) -> str:
    """The card's section about an evaluation; empty without one."""
    if not evaluation:
        return ""
    data, rows, guidance = evaluation["data"], evaluation["rows"], evaluation.get("guidance", 1)
    average, size = evaluation.get("average", 1), data.get("size")
    stale = (
        f"**Measured at epoch {evaluation['epoch']}, but the weights have changed since: "
        f"run `photochrom evaluate {name}` to measure the present ones.**\n\n"
        if not is_current(evaluation, history)
        else ""
    )
    lines = "\n".join(_line(measure, rows) for measure in SHOWN if measure in rows["model"])
    share = color_share(evaluation)
    colourful = f"{share:.0%}".replace("%", " %") if share is not None else "an unknown share"
    where = (
        f"{data['split']} photos of {data['name']}"
        if "split" in data
        else f"photos of the folder {data['name']}, coloured at their own size and measured at {size}x{size}"
    )
    guided = f" with guidance {guidance:g}" if guidance != 1 else ""
    merged = f"{average} colourings merged, " if average > 1 else ""
    return f"""## Evaluation

{stale}On {data["photos"]} {where} (checksum {data["checksum"]}), {evaluation["sampler"]} in
{evaluation["steps"]} steps{guided}, {merged}seed {evaluation["seed"]}. Photochrom {evaluation["photochrom"]},
{evaluation["date"]}.

| measure | this model | 95 % interval | gray | true photos |
|---|---:|---:|---:|---:|
{lines}

Errors shrink as colours fade, so read them beside colourfulness. Here it is {colourful} of the true photos'.

"""


def _line(measure: str, rows: Rows) -> str:
    about = ALL_MEASURES[measure]

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.{about.digits}f}"

    found = rows["model"][measure]
    between = "" if found["low"] is None else f"{number(found['low'])} to {number(found['high'])}"
    others = [number(row[measure]["value"]) if measure in row else "" for row in (rows["gray"], rows["true"])]
    title = f"{about.title} {about.unit}".strip()
    return f"| {' | '.join((title, number(found['value']), between, *others))} |"
