"""Makes pages from the code when the site is built: every command, and every setting of a recipe."""

from __future__ import annotations

import re
from typing import Any, get_args

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup, TyperOption

from photochrom.commands.cli import app
from photochrom.config import Config

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:src|recipes|benchmarks|tests)/[^)]*\)")


INTERVAL = re.compile(r"\([^()|]*\d (?:to|±) [^()|]*\)")
COLUMNS = 6  # a table of more needs the room of the page's table of contents


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs: add the pages to those that it has found."""
    for name, text in (("commands", commands()), ("settings", settings())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Called by MkDocs: links into the repository become plain names, since the site holds the docs alone.

    Wide tables get room, and each interval in them stays in one piece.
    """
    lines = OUTSIDE.sub(r"\1", markdown).splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    for number in rows:
        lines[number] = INTERVAL.sub(r"<small>\g<0></small>", lines[number])
    if max((lines[number].count("|") - 1 for number in rows), default=0) > COLUMNS:
        page.meta["hide"] = ["toc"]
    return "\n".join(lines)


def commands() -> str:
    """Every command with its flags."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return "# Commands\n\n" + "\n".join(_commands(group, "photochrom"))


def _commands(group: TyperGroup, path: str) -> list[str]:
    pages = []
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            pages += [_page(command, f"{path} {name}")] if command.invoke_without_command else []
            pages += _commands(command, f"{path} {name}")
        else:
            pages.append(_page(command, f"{path} {name}"))
    return pages


def _page(command: TyperCommand | TyperGroup, path: str) -> str:
    told, _, examples = (command.help or "").partition("[bold]Examples[/bold]")
    lines = [f"## {path}", "", told.strip(), ""]
    if examples:
        lines += [
            "```bash",
            *(line.strip().removeprefix("$ ") for line in examples.strip().splitlines()),
            "```",
            "",
        ]
    lines += ["| Flag | Meaning |", "|---|---|"]
    for parameter in command.params:
        if isinstance(parameter, TyperOption):
            lines.append(f"| `{', '.join(parameter.opts)}` | {_cell(parameter.help)} |")
        else:
            lines.append(f"| {parameter.human_readable_name} | {_cell(getattr(parameter, 'help', ''))} |")
    return "\n".join([*lines, ""])


def settings() -> str:
    """Every setting, section by section, as a recipe has it."""
    text = [
        "# Settings of a recipe",
        "",
        "A recipe is a TOML file. Each setting is also a flag of `photochrom train`.",
        "",
    ]
    for name, field in Config.model_fields.items():
        (section,) = get_args(field.annotation)[:1] or (field.annotation,)
        if isinstance(section, type) and issubclass(section, BaseModel):
            text += [f"## [{name}]" if name != "stages" else "## [[stages]]", "", *_table(section), ""]
    return "\n".join(text)


def _table(section: type[BaseModel]) -> list[str]:
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for name, field in section.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        lines.append(
            f"| `{name}` | {'' if default is None else f'`{default}`'} | {_cell(field.description)} |"
        )
    return lines


def _cell(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())
