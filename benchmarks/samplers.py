"""How good each sampler is after how many network evaluations, beside DDPM with all steps of the schedule.

    python benchmarks/samplers.py --model photochrom-v2 --data tiny-imagenet-200 --photos 300

Uses validation photos, by the protocol of `photochrom evaluate`. Compares every row with DDIM in 50
evaluations, on the same photos from the same noise. Writes docs/measurements/samplers.md and samplers.png
there. Heun is implemented here, the others in the package.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Options
from photochrom.commands.terminal import Display
from photochrom.data.dataset import find
from photochrom.diffusion.samplers import CLEAN, SAMPLERS, Level, Noise, Predict
from photochrom.evaluation import evaluate
from photochrom.evaluation.candidates import Batch, Candidate, Painted, given_luma
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.statistics import EQUAL
from photochrom.files import write_bytes

EVALUATIONS = (1, 2, 4, 8, 12, 20, 50)
REFERENCE = "ddim 50"
SHOWN = {
    "colorfulness": "colourfulness ≈",
    "dark_error": "dark error ↓",
    "false_color": "false colour, % ↓",
    "ciede2000": "CIEDE2000 ↓",
    "pd_vgg16": "PD-VGG16 ↓",
    "fd_vgg16": "FD-VGG16 ↓",
}
EQUALLY = {
    "strength": "strength",
    "dark_error": "dark error ↓",
    "false_color": "false colour, % ↓",
    "ciede2000": "CIEDE2000 ↓",
}


def heun(predict: Predict, xt: Tensor, path: Sequence[Level], noise: Noise) -> Tensor:
    """Heun's method for d(xt / alpha) = eps d(sigma / alpha) (DDIM, equation 14).

    Two evaluations a step, at every other level of the path; one in the first step, from pure noise, and in
    the last. Source: Karras et al. 2022 (EDM), algorithm 1.
    """
    for now, then in pairwise([*path[:-1:2], CLEAN]):
        x0 = predict(xt, now.t)
        eps = (xt - now.alpha * x0) / now.sigma
        ahead = then.alpha * x0 + then.sigma * eps
        if then is not CLEAN and now.alpha > 0:
            eps_ahead = (ahead - then.alpha * predict(ahead, then.t)) / then.sigma
            way = then.sigma / then.alpha - now.sigma / now.alpha
            ahead = then.alpha * (xt / now.alpha + way * (eps + eps_ahead) / 2)
        xt = ahead
    return xt


def candidate(colorizer: Colorizer, sampler: str, steps: int) -> Candidate:
    """A row: one sampler with some number of evaluations."""
    # `model_copy` checks nothing, since `heun` is not among the samplers to choose from.
    options = Options().model_copy(update={"steps": steps, "sampler": sampler})

    @torch.inference_mode()
    def paint(batch: Batch) -> Painted:
        y = given_luma(batch.rgb)
        return Painted(y, colorizer.chroma(y, batch.seeds, options))

    scale = colorizer.config.model.chroma_scale
    facts = {"chroma_scale": scale, "steps": steps, "sampler": sampler}
    return Candidate(f"{sampler} {steps}", paint, facts)


def table(result: dict[str, Any], rows: Sequence[str]) -> str:
    """A row each: measures as made, bold if the reference cannot be told apart, and at 85 %."""
    verdicts = {(d["model"], d["measure"]): d["as_made"]["verdict"] for d in result["differences"]}
    titles = [*SHOWN.values(), *(f"at 85 %: {title}" for title in EQUALLY.values())]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for row in rows:
        cells = []
        for measure in SHOWN:
            text = f"{result['rows'][row][measure]['value']:.2f}"
            same = row == REFERENCE or verdicts[row, measure] == EQUAL
            cells.append(f"**{text}**" if same else text)
        equally = result["at_equal_colorfulness"].get(row, {}).get("85%")
        cells += [f"{equally[measure]['value']:.2f}" if equally else "" for measure in EQUALLY]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(result: dict[str, Any], samplers: Sequence[str], slowest: str) -> bytes:
    """Three measures against evaluations, one line for each sampler."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axis, measure in zip(axes, ("colorfulness", "dark_error", "fd_vgg16"), strict=True):
        for sampler in samplers:
            values = [result["rows"][f"{sampler} {n}"][measure]["value"] for n in EVALUATIONS]
            axis.plot(EVALUATIONS, values, marker="o", markersize=3, label=sampler)
        axis.axhline(result["rows"][slowest][measure]["value"], color="gray", linestyle=":", label=slowest)
        axis.set(xscale="log", xlabel="network evaluations", title=SHOWN[measure].rstrip(" ≈↓"))
        axis.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])
    axes[0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def main() -> None:
    """Measure and write."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("--model", default="photochrom-v2")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("reports/samplers"))
    options = parser.parse_args()
    SAMPLERS["heun"] = heun
    pack = find(options.data, options.data_dir, typed=True)
    colorizer = Colorizer.load(options.model, options.models)
    samplers = ("ddim", "dpm++", "unipc", "heun", "ddpm")
    slowest = f"ddpm {colorizer.config.diffusion.timesteps}"
    pairs = [("ddim", 50)] + [(s, n) for s in samplers for n in EVALUATIONS if (s, n) != ("ddim", 50)]
    candidates = [candidate(colorizer, s, n) for s, n in pairs]
    candidates.append(candidate(colorizer, "ddpm", colorizer.config.diffusion.timesteps))
    with Display() as display:
        result = evaluate.evaluate(
            candidates,
            HeldOut(pack, count=options.photos),
            options.out,
            overwrite=True,
            progress=display.show,
        )
    write(result, options.model, samplers, slowest)


def write(result: dict[str, Any], model: str, samplers: Sequence[str], slowest: str) -> None:
    """The figures of docs/measurements/samplers.md, and docs/measurements/samplers.png."""
    data = result["data"]
    rows = [f"{s} {n}" for s in samplers for n in EVALUATIONS] + [slowest]
    text = f"""
{table(result, rows)}

Measures as made, at strength 1; in the last columns where strength makes all 85 % as colourful as the true
photos ({result["rows"]["true photos"]["colorfulness"]["value"]:.2f}). Bold: cannot be told apart from DDIM
with 50 evaluations on the same photos with the same first noise (95 % interval of the difference, or less
than the measure resolves). Heun takes two evaluations a step and leaves out what does not fit.

{written_by(f"samplers.py --data {data['name']} --photos {data['photos']}")}: model {model},
{data["photos"]} validation photos of {data["name"]} (checksum {data["checksum"]}).
"""
    write_bytes(MEASUREMENTS / "samplers.png", plot(result, samplers, slowest))
    write_figures(MEASUREMENTS / "samplers.md", text)


if __name__ == "__main__":
    main()
