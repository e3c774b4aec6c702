"""`photochrom models`: the list, and the card of each."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
