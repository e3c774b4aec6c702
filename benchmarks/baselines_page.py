"""The page about baselines: Markdown tables from the result of an evaluation."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pages import written_by
from photochrom.config import Config
from photochrom.evaluation import report
from photochrom.evaluation.metrics import ALL_MEASURES

SHARE = "85%"  # of the truth's colourfulness, at which rows are compared
AS_MADE = ("dark_error", "false_color", "dim_error", "ab", "ciede2000", "colorfulness", "psnr", "fd_vgg16")
EQUAL = ("strength", "dark_error", "false_color", "dim_error", "ab", "ciede2000")


def cell(entry: Mapping[str, Any], name: str) -> str:
    """A value with its interval, for a table in Markdown."""
    between = report.interval(entry, name)
    return report.number(entry["value"], name) + (f"<br><small>{between}</small>" if between else "")


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Markdown: the first column aligned left, the others right."""
    lines = [
        ["", *columns],
        ["---", *("---:" for _ in columns)],
        *([name, *cells] for name, cells in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def titles(names: Sequence[str]) -> list[str]:
    """Titles of columns, with unit and direction."""
    arrows = {-1: "↓", 0: "≈", 1: "↑"}
    return [
        f"{ALL_MEASURES[n].title} {arrows[ALL_MEASURES[n].better]} {ALL_MEASURES[n].unit}".strip()
        if n in ALL_MEASURES
        else n
        for n in names
    ]


def said(difference: Mapping[str, Any], reached: bool) -> str:
    """The verdict, if any strength makes the row colourful enough for one."""
    return str(difference["verdict"]) if reached else "never as colourful"


def figures(
    result: Mapping[str, Any], budgets: Mapping[str, Mapping[str, Any]], config: Config, steps: int
) -> str:
    """The figures of docs/measurements/baselines.md."""
    data, first = result["data"], next(iter(budgets))
    made = {
        name: [
            *(
                (f"{budgets[name]['minutes']:.1f}", f"{budgets[name]['photos']:,}")
                if name in budgets
                else ("", "")
            ),
            *(cell(row[measure], measure) for measure in AS_MADE),
        ]
        for name, row in result["rows"].items()
    }
    equal = {
        name: [cell(shares[SHARE][measure], measure) for measure in EQUAL]
        for name, shares in result["at_equal_colorfulness"].items()
    }
    told = {(d["model"], d["measure"]): d for d in result["differences"] if d["at"]}
    verdicts = {
        name: [said(told[name, measure], shown[SHARE]["reached"]) for measure in EQUAL[1:]]
        for name, shown in result["at_equal_colorfulness"].items()
        if name != first
    }
    return f"""
## As made

Errors alone mislead: they shrink as colours fade, and gray is hard to beat. ↓ lower is better, ↑ higher is
better, ≈ nearer to the true photos is better. Small figures are 95 % bootstrap intervals over photos
(FD-VGG16: jackknife). FD-VGG16 is in thousands.

{table(["processor minutes", "photos seen", *titles(AS_MADE)], made)}

## At {SHARE.replace("%", " %")} of the true photos' colourfulness

A strength multiplies each row's chroma until its photos are that colourful. It is at most 2.5; beyond 1.5
nobody would use it. A dash: no strength suffices.

{table(titles(EQUAL), equal)}

## Against {first}

A verdict takes 70, 85 and 100 % of the true photos' colourfulness together: better or worse only if no
interval includes 0.

{table(titles(EQUAL[1:]), verdicts)}

{written_by("baselines.py")}

- data set: {data["name"]} (checksum {data["checksum"]}), {data["photos"]} photos of its {data["split"]} part,
  {data["size"]}x{data["size"]} pixels
- network: features {", ".join(map(str, config.model.features))}; batches of {config.training.batch_size},
  peak learning rate {config.training.learning_rate:g} (pix2pix: its paper's)
- budget: processor minutes in training steps, all threads together. For models trained elsewhere: photos seen
  (a V2 counts those of its V1), times the processor time that a photo costs on this machine
- diffusion models sample with DDIM in {steps} steps
- {torch.get_num_threads()} threads, {platform.system()}, Python {platform.python_version()}
"""
