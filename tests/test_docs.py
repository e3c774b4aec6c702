"""What the documentation says is true: links lead somewhere, commands parse, code runs, the notebook runs."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

import photochrom
from photochrom import model_folder
from photochrom.commands.cli import app

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")
GENERATED = {"commands.md", "settings.md"}  # by docs/reference/generate.py
FASTEST = {"EPOCHS, PHOTOS = 4, 1024": "EPOCHS, PHOTOS = 1, 32"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")) or Path(target).name in GENERATED:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{target}#{anchor}"


def test_the_site_keeps_intervals_whole_and_gives_wide_tables_room() -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    on_page_markdown = runpy.run_path(str(ROOT / "docs" / "reference" / "generate.py"))["on_page_markdown"]
    narrow, wide = SimpleNamespace(meta={}), SimpleNamespace(meta={})
    text = (
        "1 to 2 (3 to 4)\n\n| V2 ([a](../../src/b.py)) | **-0.4** (-1.0 to +0.2) | 5.0 (**-4.9 ± 4.7**) |\n"
    )
    assert on_page_markdown(text, narrow) == (
        "1 to 2 (3 to 4)\n\n"
        "| V2 (a) | **-0.4** <small>(-1.0 to +0.2)</small> | 5.0 <small>(**-4.9 ± 4.7**)</small> |"
    )
    on_page_markdown("| " * 7 + "|", wide)
    assert (narrow.meta, wide.meta) == ({}, {"hide": ["toc"]})


def commands(page: Path) -> list[list[str]]:
    """The words of every `photochrom` command in the page's shell blocks."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if "photochrom" in words and words[0] not in ("pip", "torchrun", "accelerate"):
            found.append(words[words.index("photochrom") + 1 :])
    return found


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "index.md", *GUIDES], ids=name_of)
def test_commands_parse(page: Path) -> None:
    """Every flag and command that the guides show exists. Nothing runs."""
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        name = "photochrom"
        while isinstance(command, TyperGroup) and words and words[0] in command.commands:
            name = words.pop(0)
            command = command.commands[name]
        with command.make_context(name, list(words), resilient_parsing=False):
            pass


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photos that the guides speak of, and the models that ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_folder, "SHIPPED", Path(photochrom.__file__).parent / "weights")
    pixels = np.random.default_rng(0).integers(0, 256, (340, 640), dtype=np.uint8)
    for name in ("old.jpg", "one.jpg", "two.png", "car.jpg"):
        Image.fromarray(pixels).save(name)


@pytest.mark.parametrize("page", [ROOT / "README.md", *GUIDES], ids=name_of)
@pytest.mark.usefixtures("photos")
def test_python_blocks_run(page: Path) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)


@pytest.mark.usefixtures("photos")
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "notebooks" / "first_steps.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            for slow, fast in FASTEST.items():
                code = code.replace(slow, fast)
            exec(compile(code, cell["id"], "exec"), names)
    assert (tmp_path / "models/notebook_v2/model.safetensors").is_file()
    coloured = np.asarray(names["coloured"], dtype=float)
    assert np.abs(coloured - np.asarray(names["coloured"].convert("L"), dtype=float)[..., None]).max() > 20
