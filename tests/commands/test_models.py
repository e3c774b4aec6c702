"""`photochrom models`: the list, and the card of each."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from photochrom import model_folder
from photochrom.model_folder import ModelFolder
from tests.running import Run


def test_models_are_listed(run: Run, models: Path) -> None:
    table = run("models", "--models", models)
    assert table.code == 0
    assert re.search(r"tiny +v1 +2/2", table.out)
    assert table.err == ""
    assert run("models", "list", "--models", models).out == table.out
    assert run("models", "--models", models, "list").out == table.out
    (facts,) = json.loads(run("models", "--models", models, "--json").out)
    assert (facts["name"], facts["stage"], facts["epoch"], facts["epochs"]) == ("tiny", "v1", 2, 2)
    assert facts["best_val_loss"] == min(
        record["val_loss"] for record in ModelFolder(models / "tiny").history
    )


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (model_folder.HISTORY, lambda values: values[0].update(stage="v1\x1b]0;title\x07")),
        (model_folder.HISTORY, lambda values: values[-1].update(device="\x1b[2J")),
        (model_folder.EVALUATION, lambda values: values["data"].update(name="mine\n# Heading")),
        (model_folder.EVALUATION, lambda values: values.update(sampler="ddim\x9b5m")),
    ],
)
def test_records_that_a_terminal_would_obey_are_refused(
    tmp_path: Path, run: Run, file: str, change: Callable[[Any], None]
) -> None:
    """A stranger's model brings them along, and its card and the list show them."""
    folder = tmp_path / "strange"
    shutil.copytree(
        Path(model_folder.__file__).parent / "weights" / "photochrom-v2",
        folder,
        ignore=shutil.ignore_patterns("*.safetensors"),
    )
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))
    for command in (("models", "show", "strange"), ("models",)):
        found = run(*command, "--models", tmp_path)
        assert "cannot be printed" in found.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", found.out + found.err)
