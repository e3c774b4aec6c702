"""`photochrom data`: what it counts, lists and leaves out."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image

from photochrom.data.pack import Pack
from tests.commands.making import photo, truncated
from tests.running import Run


def test_import_reports_counts_and_what_was_left_out(run: Run, tmp_path: Path) -> None:
    for number in range(9):
        photo(tmp_path / f"My photos/{number}.png", 16 + number)
    truncated(tmp_path / "My photos/bad.jpg")
    options = ("--size", 16, "--validation", 0.3, "--test", 0)
    result = run("data", "import", "My photos", *options)
    assert result.code == 0
    assert re.search(r"train +6 *\n", result.out)
    assert re.search(r"left out: broken +1 *\n", result.out)
    assert "broken: bad.jpg" in result.err
    assert "photochrom train --data My-photos" in result.err
    assert Pack.open(Path("data/My-photos")).size == 16
    again = run("data", "import", "My photos", *options)
    assert again.code == 1
    assert "--overwrite" in again.error
    report = json.loads(run("data", "import", "My photos", *options, "--overwrite", "--json").out)
    assert report["counts"] == {"train": 6, "validation": 3, "test": 0}
    assert [entry["origin"] for entry in report["left_out_files"]] == ["bad.jpg"]


def test_info_counts_and_draws_a_contact_sheet(run: Run, pack: Pack) -> None:
    shown = run("data", "info", pack.folder, "--sheet", "sheet.png")
    assert shown.code == 0
    assert re.search(r"validation +8 *\n", shown.out)
    assert "sheet.png" in shown.err
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 100
    facts = json.loads(run("data", "info", "tiny", "--data-dir", pack.folder.parent, "--json").out)
    assert facts["counts"]["train"] == 24
    assert Path(facts["contact_sheet"]) == pack.folder / "contact_sheet.png"


def test_data_sets_are_listed_and_a_torn_one_does_not_hide_the_others(run: Run, pack: Pack) -> None:
    torn = pack.folder.parent / "torn"
    torn.mkdir()
    (torn / "index.json").write_text("{")
    table = run("data", "list", "--data-dir", pack.folder.parent)
    assert table.code == 0
    assert re.search(r"tiny +16 +24 +8 +0", table.out)
    assert "torn" in table.err
    (facts,) = json.loads(run("data", "list", "--data-dir", pack.folder.parent, "--json").out)
    assert facts["name"] == "tiny"
    (torn / "index.json").unlink()
    torn.rmdir()
