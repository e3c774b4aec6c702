"""One change of the recipe at a time, in equal training time: what helps, and by how much.

    python benchmarks/changes.py pace     --data tiny-imagenet-200     # times each change's step
    python benchmarks/changes.py train    --data tiny-imagenet-200     # trains what is missing
    python benchmarks/changes.py evaluate --data tiny-imagenet-200     # writes docs/measurements/changes.md

Keeps everything in models/changes. Run `pace` on a quiet machine; `train` may run twice at once. A change
with slower steps gets fewer of them, by its pace beside the base's, both on one thread. Patches the package
where it does not offer a change as an option.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.colorizer import Colorizer
from photochrom.commands.terminal import Display
from photochrom.config import Config, build
from photochrom.data.dataset import find
from photochrom.data.pack import Pack
from photochrom.diffusion.diffusion import Diffusion, Network
from photochrom.errors import PhotochromError
from photochrom.evaluation import candidates, evaluate
from photochrom.evaluation.candidates import Candidate, Painted, given_luma
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.statistics import EQUAL
from photochrom.files import write_json
from photochrom.model_folder import WEIGHTS, ModelFolder
from photochrom.randomness import stratified_steps
from photochrom.training import batches, loop
from photochrom.training.aging import aged_luma
from photochrom.training.inputs import Inputs, Photos
from photochrom.training.state import Training
from photochrom.training.step import train_step

PHOTOS, EPOCHS = 16_000, 4
ROUNDS, STEPS_A_ROUND = 6, 6
SMALL = (32, 64, 128, 256)
BASE: dict[str, dict[str, Any]] = {
    "model": {"features": SMALL, "encoder": "vgg16"},
    "data": {"aged": 0.3, "flip": False},
    "training": {
        **{"batch_size": 32, "learning_rate": 8e-4, "precision": "bf16", "sample_every": 0},
        "encoder_dropout": 0.0,
    },
    "stage": {"perceptual": 0.0},
}
SHOWN = {
    "colour distance, ΔE": ("ab", 2),
    "CIEDE2000": ("ciede2000", 2),
    "PSNR, dB": ("psnr", 2),
    "dark error, ΔE": ("dark_error", 2),
    "false colour, %": ("false_color", 1),
}
Patch = Callable[[], AbstractContextManager[None]]
Shown = Callable[[Sequence[Tensor], Inputs], Sequence[Tensor]]


@contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """In this block, owner.name is something else."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


def shows(features_shown: Shown) -> Patch:
    """Training shows the network other features."""
    real = Inputs.of

    def photos(self: Inputs, *arguments: Any, **named: Any) -> Photos:
        found = real(self, *arguments, **named)
        return found._replace(features=features_shown(found.features, self))

    return lambda: replaced(Inputs, "of", photos)


def masked(*keep: int) -> Shown:
    """Hide some of the encoder's layers: those with 0 in `keep`."""
    return lambda features, _: [k * f for k, f in zip(keep, features, strict=True)]


def steps_by(weight: Callable[[np.ndarray], np.ndarray]) -> Patch:
    """Draw time steps as often as weight(alpha_bar) says: a weighted loss without its variance."""

    def drawn(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
        share = weight(Diffusion(build({}).diffusion).alpha_bar.numpy())
        places = (stratified_steps(count, timesteps, generator).numpy() + 0.5) / timesteps
        return torch.from_numpy(np.searchsorted(np.cumsum(share) / share.sum(), places))

    return lambda: replaced(batches, "stratified_steps", drawn)


def min_snr(alpha_bar: np.ndarray) -> np.ndarray:
    """min(SNR, 5) / (SNR + 1), for v. Source: Hang et al. 2023, section 3.4."""
    snr = alpha_bar / (1 - alpha_bar)
    return np.minimum(snr, 5) / (snr + 1)


def rising(alpha_bar: np.ndarray) -> np.ndarray:
    """Three times as often at pure noise as at none."""
    return np.linspace(0.5, 1.5, len(alpha_bar))


@dataclass(frozen=True)
class Change:
    """What differs from BASE. keep: 0 for hidden layers of the encoder; share: of the training time."""

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    patch: Patch = nullcontext
    keep: tuple[int, ...] = ()
    share: float = 1.0


CHANGES: dict[str, Change] = {
    "base": Change(),
    "another seed": Change({"training": {"seed": 1}}),
    "no encoder": Change({"model": {"encoder": "none"}}),
    "relu5_3 alone": Change(patch=shows(masked(0, 0, 1)), keep=(0, 0, 1)),
    "relu4_3 and relu5_3": Change(patch=shows(masked(0, 1, 1)), keep=(0, 1, 1)),
    "learning rate doubled": Change({"training": {"learning_rate": 1.6e-3}}),
    "learning rate halved": Change({"training": {"learning_rate": 4e-4}}),
    "epsilon instead of v": Change({"diffusion": {"prediction": "epsilon"}}),
    "linear schedule": Change({"diffusion": {"schedule": "linear"}}),
    "min-SNR weighting": Change(patch=steps_by(min_snr)),
    "more often at high noise": Change(patch=steps_by(rising)),
    "encoder dropped for a tenth": Change({"training": {"encoder_dropout": 0.1}}),
    "narrower: 24, 48, 96, 192": Change({"model": {"features": (24, 48, 96, 192)}}),
    "wider: 48, 96, 192, 384": Change({"model": {"features": (48, 96, 192, 384)}}),
    "no attention": Change({"model": {"attention": 0}}),
    "perceptual 0.1 from the start": Change({"stage": {"perceptual": 0.1}}),
    "photos not aged": Change({"data": {"aged": 0.0, "keep_features": False}}),
    "float32, as many photos": Change({"training": {"precision": "fp32"}}),
    "average of 0.99": Change({"training": {"ema_decay": 0.99}}),
    "twice the time": Change(share=2.0),
    "four times the time": Change(share=4.0),
}
FREE, AGED = (
    "photos not aged",
    "aged photos",
)  # their features are not kept, since that would take another 6 GB
GUIDED, GUIDANCE = "encoder dropped for a tenth", "guidance "
SCALES = (1.5, 2.5)


def config(change: Change, photos: int = PHOTOS, **data: Any) -> Config:
    """The whole training of a change, over this many photos."""
    settings = {part: values | change.settings.get(part, {}) for part, values in BASE.items()}
    settings["diffusion"] = change.settings.get("diffusion", {})
    stage = settings.pop("stage") | {"epochs": EPOCHS}
    settings["data"] = settings["data"] | {"photos_per_epoch": round(photos / EPOCHS)} | data
    return build(settings | {"stages": [stage]})


def pace(pack: Pack, out: Path) -> None:
    """Time a step of each change and one of the base, in turns on one thread, into pace.json."""
    torch.set_num_threads(1)
    differing = {
        name: change
        for name, change in CHANGES.items()
        if name == "base" or (change.settings.keys() & {"model", "stage"})
    }
    trainings = {}
    for name, change in differing.items():
        trainings[name] = Training(config(change), pack)
        trainings[name].inputs.prepare()
        train_step(trainings[name])
    ratios: dict[str, list[float]] = {name: [] for name in differing}
    for _ in range(ROUNDS):
        seconds = {}
        for name, trial in trainings.items():
            begun = time.perf_counter()
            for _ in range(STEPS_A_ROUND):
                train_step(trial)
            seconds[name] = time.perf_counter() - begun
        for name, spent in seconds.items():
            ratios[name].append(spent / seconds["base"])
    write_json(out / "pace.json", {name: statistics.median(each) for name, each in ratios.items()})
    print((out / "pace.json").read_text())


def photos_of(name: str, out: Path) -> int:
    """The number of photos that a change gets for the equal time."""
    paces = json.loads((out / "pace.json").read_text())
    return round(PHOTOS * CHANGES[name].share / paces.get(name, 1.0))


def train_all(pack: Pack, out: Path, names: Sequence[str]) -> None:
    """Train what nobody has trained, and nobody is training."""
    torch.set_num_threads(1)
    for name in names:
        change = CHANGES[name]
        folder = folder_of(name, out)
        with change.patch():
            try:
                loop.train(config(change, photos_of(name, out), name=pack.name), folder, pack)
            except PhotochromError as error:
                print(f"{name}: {error}", flush=True)
                continue
        record = folder.history[-1]
        seconds = sum(each["seconds"] for each in folder.history)
        print(f"{name}: validation loss {record['val_loss']:.4f}, {seconds / 60:.1f} min", flush=True)


class Masked:
    """A network that gets only some layers of the encoder."""

    def __init__(self, network: Network, keep: Sequence[int]) -> None:
        self.config, self.network, self.keep = network.config, network, keep

    def __call__(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """See `UNet.forward`."""
        return self.network(xt, t, y, [k * f for k, f in zip(self.keep, features, strict=True)])


def folder_of(name: str, out: Path) -> ModelFolder:
    """The folder of a change's model."""
    return ModelFolder(out / name.translate(str.maketrans(" ", "-", ":,")))


def candidate(row: str, out: Path) -> Candidate:
    """A row of the table. On "aged photos" the network sees aged luma; its colours go with the true luma."""
    name, _, how = row.partition(" | ")
    change, colorizer = CHANGES[name], Colorizer.load(folder_of(name, out).path)
    guidance = float(how.removeprefix(GUIDANCE)) if how.startswith(GUIDANCE) else 1.0
    if change.keep:
        colorizer.network = Masked(colorizer.network, change.keep)  # type: ignore[assignment]

    def paint(batch: candidates.Batch) -> Painted:
        y = given_luma(batch.rgb)
        seen = aged_luma(batch.rgb, y, np.array(batch.seeds), 1.0) if how == AGED else y
        return Painted(y, colorizer.chroma(seen, batch.seeds, guidance=guidance))

    return Candidate(row, paint, {"chroma_scale": 2, "photos": photos_of(name, out)})


def measure(pack: Pack, out: Path, photos: int) -> None:
    """Evaluate trained changes that no report has, each beside the base."""
    trained = [name for name in CHANGES if (folder_of(name, out) / WEIGHTS).exists()]
    rows = [name for name in trained if name != "base"]
    if GUIDED in trained:
        rows += [f"{GUIDED} | {GUIDANCE}{scale:g}" for scale in SCALES]
    groups = [("base", [row for row in rows if row not in measured(out)])]
    if FREE in trained and f"{FREE} | {AGED}" not in measured(out):
        groups.append((f"base | {AGED}", [f"{FREE} | {AGED}"]))
    for base, others in groups:
        if others:
            with Display() as display:
                evaluate.evaluate(
                    [candidate(row, out) for row in (base, *others)],
                    HeldOut(pack, count=photos),
                    out / "reports" / others[0].translate(str.maketrans(" |", "--", ":,")),
                    overwrite=True,
                    progress=display.show,
                )


def measured(out: Path) -> dict[str, dict[str, Any]]:
    """The rows that reports have, each with its report."""
    reports = [json.loads(path.read_text()) for path in sorted(out.glob("reports/*/report.json"))]
    return {row: report for report in reports for row in report["subjects"]}


def number(interval: dict[str, Any], digits: int) -> str:
    """A difference with its interval, bold if chance does not explain it."""
    text = f"{interval['value']:+.{digits}f}"
    if interval["verdict"] not in (None, EQUAL):
        text = f"**{text}**"
    return f"{text} ({interval['low']:+.{digits}f} to {interval['high']:+.{digits}f})"


def line(row: str, report: dict[str, Any]) -> str:
    """A row: photos, colourfulness, and differences to its base at 85 % of the true colourfulness."""
    found = {d["measure"]: d for d in report["differences"] if d["model"] == row}
    cells = [f"{report['subjects'][row]['photos']:,}", f"{report['rows'][row]['colorfulness']['value']:.1f}"]
    cells += [number(found[measure]["at"]["85%"], digits) for measure, digits in SHOWN.values()]
    cells.append(number(found["fd_vgg16"]["as_made"], 0))
    return f"| {row.replace(' | ', ', ')} | {' | '.join(cells)} |"


def write(out: Path) -> None:
    """The figures of docs/measurements/changes.md."""
    reports = measured(out)
    order = sorted(reports, key=lambda row: list(CHANGES).index(row.partition(" | ")[0]))
    plain = next(report for report in reports.values() if "base" in report["subjects"])
    base, equal = plain["rows"]["base"], plain["at_equal_colorfulness"]["base"]["85%"]
    titles = ["photos seen", "colourfulness", *SHOWN, "FD-VGG16, as made"]
    absolute = [f"{equal[measure]['value']:.{digits}f}" for measure, digits in SHOWN.values()]
    head = [
        *(f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)),
        f"| base, itself | {plain['subjects']['base']['photos']:,} | {base['colorfulness']['value']:.1f} "
        f"| {' | '.join(absolute)} | {base['fd_vgg16']['value']:.0f} |",
    ]
    rows = [line(row, reports[row]) for row in order if not row.startswith("base")]
    data, training = plain["data"], BASE["training"]
    text = f"""
{chr(10).join([*head, *rows])}

The base is a V1 over {PHOTOS:,} photos: features {", ".join(map(str, SMALL))}, encoder vgg16, luma of 30 %
aged, not mirrored, batches of {training["batch_size"]}, learning rate {training["learning_rate"]:g} falling
to 0, {training["precision"]}, seed 0. Every other row differs in one thing and was trained for the same
processor time: where a step costs more, over fewer photos (paces measured in turns on one thread). "{FREE}"
saw as many photos as the base, and was not timed.

Differences to the base, with 95 % intervals over photos, where strength makes both 85 % as colourful as the
true photos ({plain["rows"]["true photos"]["colorfulness"]["value"]:.1f}); the last column as made. Bold:
chance of the photos does not explain it. "another seed" shows what chance of the training does: a smaller
difference says nothing. `{GUIDANCE.strip()}`: the answer moves away from the one without the encoder, by
that factor; it takes two evaluations a step. `{AGED}`: both models of the pair see the luma aged.

{written_by(f"changes.py evaluate --data {data['name']}")}, on {data["photos"]} validation photos of
{data["name"]}; DDIM in 20 steps, one colouring each.
"""
    write_figures(MEASUREMENTS / "changes.md", text)


def main() -> None:
    """Run the part that the command line names."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("what", choices=("pace", "train", "evaluate"))
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("models/changes"))
    parser.add_argument("--only", nargs="*", default=list(CHANGES))
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    pack = find(options.data, options.data_dir, typed=True)
    assert isinstance(pack, Pack)
    if options.what == "pace":
        pace(pack, options.out)
    elif options.what == "train":
        train_all(pack, options.out, options.only)
    else:
        measure(pack, options.out, options.photos)
        write(options.out)


if __name__ == "__main__":
    main()
