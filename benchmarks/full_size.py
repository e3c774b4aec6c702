"""The table of docs/measurements/full-size.md, from reports of `photochrom evaluate --photos` on the same photos.

    photochrom evaluate photochrom-fast --photos real-test --count 500 -o reports/four
    photochrom evaluate photochrom-fast --photos real-test --count 500 --average 1 -o reports/one
    python benchmarks/full_size.py reports/four reports/one

The first report is what the others are held against, photo by photo, which also says how many photos a verdict needs.
Replaces what stands below the mark in the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from photochrom.evaluation.metrics import MEASURES, SET_MEASURES
from photochrom.evaluation.report import interval, number
from photochrom.files import write_bytes

PAGE = Path(__file__).parents[1] / "docs" / "measurements" / "full-size.md"
MARK = "<!-- From here on written by benchmarks/full_size.py. -->\n"
ALL = MEASURES | SET_MEASURES
MADE = ("colorfulness", "ciede2000", "ab", "psnr", "dark_error", "false_color", "fd_vgg16")
EQUAL = ("strength", "ciede2000", "ab", "psnr", "dark_error", "false_color")
SHARES = ("70%", "85%", "100%")
TELLING = (0.1, 0.2, 0.5, 1.0)  # differences of CIEDE2000


def read(folder: Path) -> dict[str, Any]:
    """A report."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def named(report: Mapping[str, Any], name: str) -> str:
    """What a row is called among those of other reports."""
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
    titles = [ALL[name].title + arrows[ALL[name].better] if name in ALL else name for name in columns]
    lines = [
        ["", *titles],
        ["---", *("---:" for _ in titles)],
        *([name, *cells] for name, cells in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """How far two candidates differ from photo to photo, and how many photos tell them apart."""
    (one, *_), (two, *_) = first["subjects"], other["subjects"]
    pairs = zip(other["by_photo"][two]["ciede2000"], first["by_photo"][one]["ciede2000"], strict=True)
    differences = np.array([a - b for a, b in pairs])
    deviation = float(differences.std(ddof=1))
    needed = ", ".join(f"{(1.96 * deviation / d) ** 2:,.0f} for {d:g}" for d in TELLING)
    return (
        f"{named(other, two)} against {named(first, one)}, as made: CIEDE2000 {differences.mean():+.2f} ± "
        f"{1.96 * deviation / len(differences) ** 0.5:.2f}. From photo to photo the difference has a standard deviation of "
        f"{deviation:.2f}, so a verdict needs this many photos by the size of the difference: {needed}."
    )


def page(reports: Sequence[Mapping[str, Any]], command: str) -> str:
    """What stands below the mark."""
    first = reports[0]
    vgg = min(first["vgg_photos"], first["data"]["photos"])
    columns = MADE if vgg else MADE[:-1]
    made: dict[str, list[str]] = {}
    equal: dict[str, list[str]] = {}
    for report in reports:
        if report["data"]["checksum"] != first["data"]["checksum"]:
            sys.exit("these reports are of different photos")
        for name in report["subjects"]:
            made[named(report, name)] = [cell(report["rows"][name].get(key), key) for key in columns]
            for share in SHARES:
                found = report["at_equal_colorfulness"][name][share]
                label = f"{named(report, name)} at {share.replace('%', ' %')}"
                equal[label] = [cell(found.get(key), key) for key in EQUAL]
    for name, row in first["rows"].items():
        if name not in first["subjects"]:
            made[name] = [cell(row.get(key), key) for key in columns]
    left_out = len(first["data"]["left_out"])
    notes = "\n\n".join(spread(first, other) for other in reports[1:])
    return f"""
## Where we stand

`{command}`, Photochrom {first["photochrom"]}. {first["data"]["photos"]} photos of the folder {first["data"]["name"]} (checksum {first["data"]["checksum"]}; {left_out} others left out), coloured
at their own size and measured at {first["data"]["size"]} x {first["data"]["size"]}, seed {first["seed"]}. Beneath each value: 95 % interval over photos. ↓ lower is better, ↑ higher, ≈ nearer to
the truth's. {f"FD-VGG16 of the first {vgg} photos, in thousands." if vgg else "VGG16 did not judge here."}

{table(columns, made)}

At equal colourfulness, in shares of the truth's (a strength above 1.5 is more than anybody would use):

{table(EQUAL, equal)}

{notes}
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="folders of reports")
    options = parser.parse_args()
    command = f"python benchmarks/full_size.py {' '.join(path.name for path in options.reports)}"
    above, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    text = page([read(path) for path in options.reports], command)
    write_bytes(PAGE, (above + MARK + text.rstrip() + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
