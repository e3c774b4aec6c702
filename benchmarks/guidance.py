"""What guidance on the encoder, and agreement of several colourings, do to trained models' colours.

    python benchmarks/guidance.py photochrom-v2 --data tiny-imagenet-200 --guidance 1 1.25 1.5 2
    python benchmarks/guidance.py photochrom-fast --data tiny-imagenet-200 --average 1 4

Prints the measures as made, and where strength makes the rows as colourful as the true photos, or 85 % of
that. reports/guidance has the report with intervals. Choose on validation photos, and measure the choice with
--split test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pages import parser_for
from photochrom.commands.terminal import Display
from photochrom.data.dataset import DataSet, find
from photochrom.evaluation import evaluate
from photochrom.evaluation.at_size import model_at_size
from photochrom.evaluation.candidates import Candidate
from photochrom.evaluation.held_out import HeldOut

SHOWN = ("ab", "ciede2000", "psnr", "dark_error", "false_color")


def candidate(model: str, models: Path, pack: DataSet, guidance: float | None, average: int) -> Candidate:
    """A model with some guidance, and the agreement of some of its colourings."""
    found = model_at_size(model, models, pack, guidance=guidance, average=average)
    calm = f"what {average} agree on" if average > 1 else "one"
    return replace(found, name=f"{found.name}, guidance {found.facts['guidance']:g}, {calm}")


def main() -> None:
    """Measure and print."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--guidance", type=float, nargs="*", default=[None], help="default: each model's own")
    parser.add_argument("--average", type=int, nargs="*", default=[1])
    parser.add_argument("--split", default="validation")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("reports/guidance"))
    options = parser.parse_args()
    pack = find(options.data, options.data_dir, typed=True)
    candidates = [
        candidate(model, options.models_dir, pack, guidance, average)
        for model in options.models
        for guidance in options.guidance
        for average in options.average
    ]
    with Display() as display:
        result = evaluate.evaluate(
            candidates,
            HeldOut(pack, options.split, options.photos),
            options.out,
            overwrite=True,
            progress=display.show,
        )
    print(
        "| | colourfulness | FD-VGG16 | "
        + " | ".join(SHOWN)
        + " | at | strength | "
        + " | ".join(SHOWN)
        + " |"
    )
    for name, row in result["rows"].items():
        made = f"{row['colorfulness']['value']:.1f} | {row['fd_vgg16']['value']:.0f}"
        plain = " | ".join(f"{row[measure]['value']:.2f}" for measure in SHOWN)
        for share in ("85%", "100%") if name in result["at_equal_colorfulness"] else ():
            equal = result["at_equal_colorfulness"][name][share]
            cells = " | ".join(f"{equal[measure]['value']:.2f}" for measure in ("strength", *SHOWN))
            print(f"| {name} | {made} | {plain} | {share} | {cells} |")
        if name not in result["at_equal_colorfulness"]:
            print(f"| {name} | {made} | {plain} | | | | | | | |")


if __name__ == "__main__":
    main()
