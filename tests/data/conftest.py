"""An archive, a folder, and the data set made from the archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from photochrom.data.importing import import_photos
from tests.data.making import album, tiny_imagenet, write_zip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("archive") / "tiny.zip", tiny_imagenet())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album(tmp_path_factory.mktemp("album") / "holidays")


@pytest.fixture(scope="module")
def packed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_photos(archive, tmp_path_factory.mktemp("packed") / "tiny").folder
