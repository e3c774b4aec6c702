"""The package's rooms: each knows only rooms below it, imports make no circle, each module has its tests."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import photochrom

ROOT = Path(photochrom.__file__).parent
BASE = "base"  # the files that lie in no room
ORDER = (BASE, "diffusion", "data", "coloring", "evaluation", "training", "server", "commands")
MODULES = {
    ".".join(("photochrom", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path: Path, late: bool) -> set[str]:
    """The package's modules that a file imports; late: also inside functions, but never for types alone."""
    found = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.FunctionDef) and not late:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("photochrom"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {node.module} & MODULES.keys()
        todo += ast.iter_child_nodes(node)
    return found


def room(module: str) -> int:
    parts = module.split(".")
    return ORDER.index(parts[1] if len(parts) > 2 else BASE)


def test_a_room_knows_only_rooms_below_it() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports(path, late=True)
        if room(other) > room(module) and module != "photochrom.__main__"
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: imports(path, late=True) for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


UNTESTED = {"photochrom.__main__": "two lines, which `python -m photochrom` runs in commands/test_cli.py"}
"""Modules without a test file of their own name, and why."""


def test_each_module_has_tests_under_its_own_name() -> None:
    tests = Path(__file__).parent
    files = {
        module: tests / path.relative_to(ROOT).with_name(f"test_{path.name}")
        for module, path in MODULES.items()
    }
    without = {
        module
        for module, file in files.items()
        if not file.exists() or "def test_" not in file.read_text(encoding="utf-8")
    }
    assert without == UNTESTED.keys()
