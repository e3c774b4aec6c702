"""The package that people install: built, installed elsewhere, and used without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photochrom

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_colours_without_the_repository(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert all(name.startswith(("photochrom/", "photochrom-")) for name in names)
        assert "photochrom/py.typed" in names
    assert wheel.stat().st_size < 60e6
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", tmp_path / "installed", wheel], check=True, timeout=300)
    Image.linear_gradient("L").resize((48, 48)).save(tmp_path / "gray.png")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    where = run("-c", "import photochrom; print(photochrom.__file__)")
    assert Path(where).is_relative_to(tmp_path / "installed")
    assert run("-m", "photochrom", "--version") == f"photochrom {photochrom.__version__}"
    assert run("-m", "photochrom", "colorize", "gray.png", "-o", "out.png", "--average", "1") == "out.png"
    with Image.open(tmp_path / "out.png") as coloured, Image.open(tmp_path / "gray.png") as gray:
        assert np.ptp(np.asarray(coloured, dtype=int), axis=2).max() > 2  # there is colour
        difference = np.asarray(coloured.convert("L"), dtype=int) - np.asarray(gray, dtype=int)
        assert np.abs(difference).max() <= 1


def test_the_source_distribution_holds_what_tests_and_docs_need(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mkdocs.yml", "docs/index.md"):
        assert path in names
    assert {"src/photochrom/weights/README.md", "tests/test_package.py", "recipes/v2.toml"} <= names
    assert not any(name.startswith((".venv", "models/", "data/", "build/")) for name in names)
