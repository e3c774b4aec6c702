"""The figures of docs/measurements/full-size.md, from reports of `photochrom evaluate --photos`.

    photochrom evaluate photochrom-fast --photos real-test --count 500 --vgg-photos 500 \
        --with before=before --with at-128=at-128 -o reports/four
    photochrom evaluate photochrom-fast --photos real-test --count 500 --vgg-photos 0 \
        --average 1 -o reports/one
    python benchmarks/full_size.py reports/four reports/one

Compares all others with the first candidate of the first report, photo by photo. Verdicts come from each
report, against its own first candidate.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pages import MEASUREMENTS, write_figures
from photochrom.evaluation.metrics import ALL_MEASURES
from photochrom.evaluation.report import interval, number

PAGE = MEASUREMENTS / "full-size.md"
MADE = ("colorfulness", "ciede2000", "ab", "psnr", "dark_error", "false_color", "fd_vgg16")
EQUAL = ("strength", "ciede2000", "ab", "psnr", "dark_error", "false_color")
TOLD = EQUAL[1:]  # measures with verdicts
SHARES = ("70%", "85%", "100%")
SHOWN = "85%"  # the share to show differences at; a verdict takes all three
TELLING = (0.1, 0.2, 0.5, 1.0)  # differences of CIEDE2000


def read(folder: Path) -> dict[str, Any]:
    """A report."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def named(report: Mapping[str, Any], name: str) -> str:
    """A row's name beside those of other reports."""
    average = report["subjects"].get(name, {}).get("average")
    how = {None: "", 1: ", one colouring"}.get(average, f", mean of {average}")
    return f"**{name}{how}**" if name in report["subjects"] else name


def cell(entry: Mapping[str, Any] | None, name: str) -> str:
    """A value and its interval."""
    if entry is None or entry["value"] is None:
        return ""
    between = interval(entry, name)
    return number(entry["value"], name) + (f"<br><small>{between}</small>" if "…" in between else "")


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Markdown; the columns are measures."""
    arrows = {-1: " ↓", 0: " ≈", 1: " ↑"}
    titles = [
        ALL_MEASURES[name].title + arrows[ALL_MEASURES[name].better] if name in ALL_MEASURES else name
        for name in columns
    ]
    lines = [
        ["", *titles],
        ["---", *("---:" for _ in titles)],
        *([name, *cells] for name, cells in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def against_first(reports: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each candidate's difference from the first photo by photo, and how many photos tell them apart."""
    values = {
        named(report, name): np.array(report["by_photo"][name]["ciede2000"])
        for report in reports
        for name in report["subjects"]
    }
    first, *others = values
    rows = {}
    for name in others:
        differences = values[name] - values[first]
        deviation = float(differences.std(ddof=1))
        reach = 1.96 * deviation / len(differences) ** 0.5
        needed = [f"{(1.96 * deviation / d) ** 2:,.0f}" for d in TELLING]
        rows[name] = [f"{differences.mean():+.2f} ± {reach:.2f}", f"{deviation:.2f}", *needed]
    return rows


def verdicts(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """A report's verdicts on each candidate against its first, at equal colourfulness."""
    told = {(each["model"], each["measure"]): each for each in report["differences"] if each["at"]}

    def said(name: str, measure: str) -> str:
        found = told[name, measure]
        shown = found["at"][SHOWN]
        if shown["value"] is None:
            return "never as colourful"
        difference = f"{number(shown['value'], measure, '+')} ({interval(shown, measure)})"
        return f"{found['verdict']}<br><small>{difference}</small>"

    others = list(report["subjects"])[1:]
    return {named(report, name): [said(name, measure) for measure in TOLD] for name in others}


def figures(reports: Sequence[Mapping[str, Any]], command: str) -> str:
    """The tables. Ends the program if the reports are of different photos."""
    first = reports[0]
    data = first["data"]
    vgg = min(first["vgg_photos"], data["photos"])
    columns = MADE if vgg else MADE[:-1]
    made: dict[str, list[str]] = {}
    equal: dict[str, list[str]] = {}
    references: dict[str, list[str]] = {}
    for report in reports:
        if report["data"]["checksum"] != data["checksum"]:
            sys.exit("these reports are of different photos")
        for name, measured in report["rows"].items():
            rows = made if name in report["subjects"] else references
            row = dict(measured)
            if report["vgg_photos"] != first["vgg_photos"]:
                row["fd_vgg16"] = None  # the distance depends on the number of photos
            rows.setdefault(named(report, name), [cell(row.get(key), key) for key in columns])
        for name in report["subjects"]:
            for share in SHARES:
                found = report["at_equal_colorfulness"][name][share]
                label = f"{named(report, name)} at {share.replace('%', ' %')}"
                equal[label] = [cell(found.get(key), key) for key in EQUAL]
    told = "\n\n".join(
        f"Against {named(report, next(iter(report['subjects'])))}, at equal colourfulness "
        f"(the difference at {SHOWN.replace('%', ' %')}):\n\n" + table(TOLD, rows)
        for report in reports
        if (rows := verdicts(report))
    )
    apart = ""
    if rows := against_first(reports):
        needed = [f"photos for {d:g}" for d in TELLING]
        apart = f"""Photo by photo against {next(iter(made))}, as made: the difference of CIEDE2000, its
standard deviation from photo to photo, and how many photos show a difference of that size:

{table(["difference", "deviation", *needed], rows)}"""
    return f"""## Where we stand

`{command}`, Photochrom {first["photochrom"]}. {data["photos"]} photos of the folder {data["name"]}
(checksum {data["checksum"]}; {len(data["left_out"])} others left out), coloured at their own size and
measured at {data["size"]} x {data["size"]}, seed {first["seed"]}. Beneath each value: 95 % interval over
photos. ↓ lower is better, ↑ higher, ≈ nearer to the truth's.
{f"The Fréchet distance is FD-VGG16 of {vgg} photos, in thousands." if vgg else "VGG16 did not judge here."}

{table(columns, made | references)}

At equal colourfulness, in shares of the truth's (a strength above 1.5 is more than anybody would use):

{table(EQUAL, equal)}

{told}

{apart}"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="folders of reports")
    options = parser.parse_args()
    command = f"python benchmarks/full_size.py {' '.join(path.name for path in options.reports)}"
    text = figures([read(path) for path in options.reports], command)
    write_figures(PAGE, text)
    print(text)


if __name__ == "__main__":
    main()
