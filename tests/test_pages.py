"""The pages that benchmarks write: figures come and go, the sentences around them stay."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
WRITES = re.compile(
    r"write_figures\(MEASUREMENTS / \"([\w-]+\.md)\"|^REPORT = MEASUREMENTS / \"([\w-]+\.md)\"", re.MULTILINE
)


@pytest.fixture(scope="module")
def pages() -> Any:
    """benchmarks/pages.py; its folder is where Python looks for its neighbours, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # type: ignore[no-untyped-call, unused-ignore]
        return importlib.import_module("pages")


def test_new_figures_replace_old_ones_and_nothing_else(pages: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Edges\n\n**Do they hold?** Yes.\n", encoding="utf-8")
    pages.write_figures(page, "| 1 |\n")
    first = page.read_text(encoding="utf-8")
    assert first.startswith("# Edges\n\n**Do they hold?** Yes.\n")
    page.write_text(first + "\n## Limits\n\nSix photos.\n", encoding="utf-8")
    pages.write_figures(page, "\n| 2 |\n")
    again = page.read_text(encoding="utf-8")
    assert again == first.replace("| 1 |", "| 2 |") + "\n## Limits\n\nSix photos.\n"
    pages.write_figures(page, "| 2 |")
    assert page.read_text(encoding="utf-8") == again


def test_a_page_is_begun_where_there_is_none(pages: Any, tmp_path: Path) -> None:
    pages.write_figures(tmp_path / "new.md", "| 1 |")
    assert "\n| 1 |\n" in (tmp_path / "new.md").read_text(encoding="utf-8")


def test_every_page_with_figures_has_its_marks(pages: Any) -> None:
    """Otherwise a script would write a second table below the first."""
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")]
    names = {a or b for script in scripts if "write_figures(" in script for a, b in WRITES.findall(script)}
    assert len(names) > 5
    for page in (pages.MEASUREMENTS / name for name in names):
        text = page.read_text(encoding="utf-8") if page.exists() else pages.BEGIN + pages.END
        assert text.count(pages.BEGIN) == text.count(pages.END) == 1, page.name
        assert text.index(pages.BEGIN) < text.index(pages.END), page.name
