"""Shows the report: as one HTML file that opens anywhere, and as tables in a terminal.

Both need only the content of `report.json` (see `evaluate`); the page also needs the pictures.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from typing import Any

import jinja2
import numpy as np
import rich.markup
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.style import context
from PIL import Image
from rich.table import Table

from photochrom.evaluation import metrics
from photochrom.evaluation.metrics import ALL_MEASURES, Array, Measure
from photochrom.evaluation.statistics import EXTRAPOLATED, GRAY, TARGETS, TRUTH

GALLERY = 24  # random photos
ENDS = 4  # best and worst photos by a measure, so many each
SORTED_BY = ("ciede2000", "ab", "dark_error", "false_color")
SMALL = 128  # pixels; larger pictures are embedded as WebP
# These differ clearly on white and on black.
COLORS = ("#2f8fd0", "#e07b00", "#009e73", "#cc6fa0", "#8a7be0", "#b0a000", "#d6453d")
INK = "#010203"  # stands for the page's own text colour
FALSE_MARK = np.array([255, 0, 200], dtype=np.uint8)
CURVES = ("ab", "ciede2000", "dark_error", "false_color", "dim_error", "psnr")


def places(result: Mapping[str, Any]) -> dict[str, list[int]]:
    """The photos to show of each row: the first GALLERY, and both ends of each of the `orders`."""
    shown = set(range(min(GALLERY, result["data"]["photos"])))
    for found in orders(result).values():
        shown |= {*found[:ENDS], *found[-ENDS:]}
    return {name: sorted(shown) for name in (GRAY, *result["subjects"], TRUTH)}


def orders(result: Mapping[str, Any]) -> dict[tuple[str, str, str | None], list[int]]:
    """Places of photos from best to worst, for each (measure, candidate, None).

    For (measure, candidate, other), the order is by how much the candidate wins against the other.
    """
    found: dict[tuple[str, str, str | None], list[int]] = {}
    candidates = list(result["subjects"])
    for measure in SORTED_BY:
        better = ALL_MEASURES[measure].better
        for one in candidates:
            values = result["by_photo"][one][measure]
            known = [place for place, value in enumerate(values) if value is not None]
            found[measure, one, None] = sorted(known, key=lambda place: -better * values[place])
            if one != candidates[0]:
                base = result["by_photo"][candidates[0]][measure]
                found[measure, one, candidates[0]] = sorted(
                    known,
                    key=lambda place: -better * (values[place] - base[place]),
                )
    return found


def html(result: Mapping[str, Any], photos: Mapping[str, Mapping[int, Array]]) -> str:
    """The page. photos: {row: {place: picture (S,S,3) uint8}}, as `places` asks for."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("photochrom.evaluation", ""), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "interval": interval, "signed": signed, "uri": _uri, "flags": _flags,
    }  # fmt: skip
    models = list(result["subjects"])
    return environment.get_template("report.html.j2").render(
        r=result,
        models=models,
        colors={model: COLORS[number % len(COLORS)] for number, model in enumerate(models)},
        truth=TRUTH,
        gray=GRAY,
        measures=ALL_MEASURES,
        measured=[
            name
            for name in ALL_MEASURES
            if any(name in row and row[name]["value"] is not None for row in result["rows"].values())
        ],
        targets=[f"{share:.0%}" for share in TARGETS],
        extrapolated=EXTRAPOLATED,
        equal_columns=CURVES,
        full_columns=[name for name in CURVES if name in result.get("full_size", result)["rows"][GRAY]],
        curves=[
            (ALL_MEASURES[name], curve_plot(result, name))
            for name in CURVES
            if result["rows"][GRAY][name]["value"] is not None  # there may be no dark pixel
        ],
        histograms=[(name, histogram(result, name)) for name in (TRUTH, *models)],
        shown=sorted(photos[TRUTH]),
        gallery=GALLERY,
        photos=photos,
        mark=mark_false_color,
        sorted_by=[name for name in SORTED_BY if result["rows"][GRAY][name]["value"] is not None],
        by_place={
            place: {key: [result["by_photo"][model][key][place] for model in models] for key in SORTED_BY}
            for place in photos[TRUTH]
        },
        better={name: measure.better for name, measure in ALL_MEASURES.items()},
        digits={name: measure.digits for name, measure in ALL_MEASURES.items()},
    )


def number(value: float | None, name: str, sign: str = "") -> str:
    """Format a value of the measure `name`; an unknown value becomes a dash."""
    digits = ALL_MEASURES[name].digits if name in ALL_MEASURES else 2
    return "-" if value is None else f"{value + 0.0:{sign}.{digits}f}"


def signed(value: float | None, name: str) -> str:
    """Format a difference, with its sign."""
    return number(value, name, "+")


def interval(entry: Mapping[str, Any], name: str) -> str:
    """Format an interval as low…high; empty if low equals high."""
    if entry["low"] is None:
        return "no interval" if entry["value"] is not None else ""
    low, high = entry["low"], entry["high"]
    return "" if low == high else f"{number(low, name)}…{number(high, name)}"


def _flags(sentence: str) -> Markup:
    """HTML that shows command options as code, so that a browser does not break them across lines."""
    return Markup(re.sub(r"(?<!\S)--[a-z-]+(?: [\w.]*\w)?", r"<code>\g<0></code>", str(escape(sentence))))


def _uri(photo: Array) -> str:
    buffer, format = BytesIO(), "PNG" if max(photo.shape) <= SMALL else "WEBP"
    Image.fromarray(photo).save(buffer, format=format, quality=88)
    return f"data:image/{format.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def mark_false_color(photo: Array, true: Array) -> Array:
    """A map (S,S,3) uint8: the true photo in faint gray, almost black pixels dark, false colour marked."""
    lab, true_lab = (metrics.lab(p[None].astype(np.float32) / 255)[0] for p in (photo, true))
    dark = true_lab[..., 0] < metrics.DARK[1]
    marked = np.repeat((170 + true_lab[..., :1] * 0.8).astype(np.uint8), 3, axis=-1)
    marked[dark] = 60
    marked[dark & metrics.false_color(lab, true_lab)] = FALSE_MARK
    return marked


def _svg(figure: Figure, label: str) -> Markup:
    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))  # type: ignore[no-untyped-call]
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))


def _figure() -> tuple[Figure, Any]:
    style = {
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "text.color": INK,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "photochrom",
    }  # fmt: skip
    with context(style):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
    return figure, axes


def curve_plot(result: Mapping[str, Any], measure: str) -> Markup:
    """SVG: a measure against colourfulness. Models are curves with intervals; gray is a square."""
    figure, axes = _figure()
    gray, true = result["rows"][GRAY][measure]["value"], result["rows"][TRUTH]["colorfulness"]["value"]
    right = 1.3 * true  # or farther, if a model at strength 1 is more colourful
    for share in TARGETS:
        axes.axvline(share * true, color="#999999", linewidth=0.8, linestyle=":" if share < 1 else "-")
    for number, curve in enumerate(result["curves"].values()):
        color = COLORS[number % len(COLORS)]
        colorful = np.array([entry["value"] for entry in curve["colorfulness"]])
        near = np.append(True, colorful[:-1] < 1.2 * true)  # points farther right would flatten the rest
        entries = [entry for entry, shown in zip(curve[measure], near, strict=True) if shown]
        x, y = colorful[near], np.array([entry["value"] for entry in entries])
        strength = np.array(curve["strength"])[near]
        axes.plot([0, x[0]], [gray, y[0]], ":", color=color, linewidth=0.8)
        axes.plot(x[strength <= EXTRAPOLATED], y[strength <= EXTRAPOLATED], color=color)
        axes.plot(x[strength >= EXTRAPOLATED], y[strength >= EXTRAPOLATED], "--", color=color, linewidth=0.8)
        axes.plot(x[strength == 1], y[strength == 1], "o", color=color)
        right = max([right, *1.03 * x[strength == 1]])
        if entries[0]["low"] is not None:
            low, high = ([entry[end] for entry in entries] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(0, gray, "s", color="#888888")
    axes.set(xlabel="colourfulness", ylabel=_label(ALL_MEASURES[measure]), xlim=(-0.02 * true, right))
    return _svg(figure, f"{ALL_MEASURES[measure].title} against colourfulness")


def _label(measure: Measure) -> str:
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title


def histogram(result: Mapping[str, Any], name: str) -> Markup:
    """SVG: how often each chroma occurs at each lightness; lines show the means of this row and the truth."""
    luma, chroma = (np.array(result[edges]) for edges in ("luma_edges", "chroma_edges"))
    figure, axes = _figure()
    counts = np.array(result["chroma_by_luma"][name])  # (lightness, chroma)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ink = LinearSegmentedColormap.from_list("ink", [(*to_rgb(COLORS[0]), 0.0), (*to_rgb(COLORS[0]), 1.0)])
    axes.pcolormesh(luma, chroma, share.T**0.5, cmap=ink, vmin=0, vmax=0.8, rasterized=True)
    middle = (chroma[1:] + chroma[:-1]) / 2
    for row, color, line in ((name, "#e07b00", "-"), (TRUTH, "#e07b00", ":")):
        found = np.array(result["chroma_by_luma"][row])
        filled = found.sum(axis=1) > 0
        axes.plot(
            (luma[1:] + luma[:-1])[filled] / 2,
            (found @ middle)[filled] / found.sum(axis=1)[filled],
            line,
            color=color,
        )
    axes.set(xlabel="lightness L*", ylabel="chroma C*", ylim=(0, 80))
    return _svg(figure, f"chroma by lightness: {name}")


def tables(result: Mapping[str, Any]) -> list[Table]:
    """The report as tables for 80 columns: values with intervals, values at equal colourfulness, verdicts."""
    rows, models = result["rows"], list(result["subjects"])
    judged = min(result["data"]["photos"], result["vgg_photos"])
    seen = f", and what VGG16 sees in {judged:,} photos" if judged else ""
    first = ("colorfulness", "ab", "ciede2000", "psnr", "ssim")
    second = ("dark_error", "false_color", "dim_error", "pd_vgg16", "fd_vgg16")
    found = [
        _table(
            title,
            names,
            [(name, [_cell(row[n], n) if n in row else "" for n in names]) for name, row in rows.items()],
        )
        for title, names in (("As made: colours", first), (f"As made: shadows{seen}", second))
    ]
    columns = ("strength", "ab", "ciede2000", "dark_error", "false_color")
    lines = [
        (f"{name}, {share}", [_cell(entry[n], n) for n in columns])
        for name, shares in result["at_equal_colorfulness"].items()
        for share, entry in shares.items()
    ]
    found.append(_table("At equal colourfulness, in shares of the true photos'", columns, lines))
    for model in models[1:]:
        told = [entry for entry in result["differences"] if entry["model"] == model and entry["at"]]
        lines = [
            (
                ALL_MEASURES[e["measure"]].title,
                [*(_cell(at, e["measure"], signed) for at in e["at"].values()), e["verdict"]],
            )
            for e in told
        ]
        shares = [f"{share:.0%}" for share in TARGETS]
        found.append(
            _table(f"{model} minus {models[0]}, at equal colourfulness", [*shares, "verdict"], lines)
        )
    return found


def _cell(entry: Mapping[str, Any], name: str, above: Any = number) -> str:
    return f"{above(entry['value'], name)}\n[dim]{interval(entry, name)}[/dim]"


def _table(title: str, columns: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("", max_width=18, overflow="fold")
    for name in columns:
        title = (
            ALL_MEASURES[name].title + (f"\n{ALL_MEASURES[name].unit}" if ALL_MEASURES[name].unit else "")
            if name in ALL_MEASURES
            else name
        )
        table.add_column(title, justify="right", vertical="top", min_width=11)
    for name, cells in lines:
        table.add_row(rich.markup.escape(name), *cells)
    return table
