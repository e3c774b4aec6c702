"""A report as people read it: the page, and tables on a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.console import Console

from photochrom.evaluation import report


def test_the_page_needs_nothing_else_and_shows_names_as_they_are(whole: tuple[dict[str, Any], Path]) -> None:
    page = (whole[1] / "report.html").read_text(encoding="utf-8")
    assert "<b>rough" not in page
    assert "&lt;b&gt;rough &amp; ready&lt;/b&gt;" in page
    assert "3 steps, 2 colourings merged" in page
    sources = re.findall(r'(?:src|href)="([^#][^"]{0,21})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"<script[^>]+src|<(link|iframe)|url\((?!#)|@import|fetch\(", page)
    assert page.count("<svg") == len(report.CURVES) + 3


def test_options_in_the_advice_stay_in_one_piece() -> None:
    said = report._flags("go on, --from a<b --perceptual 0.1. Or --gan; a--b stays.")
    assert said == (
        "go on, <code>--from a</code>&lt;b <code>--perceptual 0.1</code>. Or <code>--gan</code>; a--b stays."
    )


def test_terminal_tables_fit_80_columns(whole: tuple[dict[str, Any], Path]) -> None:
    console = Console(width=80, record=True, force_terminal=False)
    with console.capture() as capture:
        for table in report.tables(whole[0]):
            console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…\n" not in text
    for words in ("<b>rough", "true photos", "cannot be told apart", "FD-VGG16", "100%"):
        assert words in text
