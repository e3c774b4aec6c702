"""A model and its figures stay together: on its card, in the list, and when it is trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from photochrom import files, model_folder
from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.evaluation.card import read_evaluation
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training_history import best_epoch
from tests.evaluation.making import call


def test_a_models_own_figures_stay_with_it(
    trained: ModelFolder, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, out = ("--models", trained.path.parent), tmp_path / "report"
    assert "Evaluation" not in (trained / model_folder.CARD).read_text(encoding="utf-8")
    assert call("evaluate", "mine", *models, "--data", pack.folder, "--steps", 2, "-o", out) == 0
    row = json.loads((out / "report.json").read_text(encoding="utf-8"))["rows"]["mine"]
    kept = read_evaluation(trained)
    assert kept is not None
    assert kept["rows"]["model"] == {
        name: value for name, value in row.items() if name != "seconds_per_photo"
    }
    assert kept["epoch"] == best_epoch(trained.history)["epoch"]
    capsys.readouterr()
    assert call("models", "show", "mine", *models) == 0
    card = capsys.readouterr().out
    assert card == (trained / model_folder.CARD).read_text(encoding="utf-8")
    ab = row["ab"]
    assert f"| {ab['value']:.2f} | {ab['low']:.2f} to {ab['high']:.2f} |" in card
    assert "On 8 validation photos of tiny" in card
    assert "weights have changed" not in card
    assert call("models", *models) == 0
    table = capsys.readouterr()
    assert f" {row['ciede2000']['value']:.2f} " in table.out
    assert max(map(len, table.out.splitlines())) <= 80
    assert table.err == ""
    assert call("models", "show", "mine", *models, "--json") == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == json.loads(json.dumps(kept))


def test_an_evaluation_of_earlier_weights_says_so(
    trained: ModelFolder,
    pack: Pack,
    values: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ("--models", trained.path.parent)
    assert call("evaluate", "mine", *models, "--data", pack.folder, "--steps", 2, "-o", tmp_path / "out") == 0
    before, measured = (trained / "evaluation.json").read_bytes(), best_epoch(trained.history)
    values["stages"][0]["epochs"] = 6
    train(build(values), trained, pack)
    assert best_epoch(trained.history)["epoch"] != measured["epoch"]
    assert (trained / "evaluation.json").read_bytes() == before
    card = (trained / model_folder.CARD).read_text(encoding="utf-8")
    assert f"Measured at epoch {measured['epoch']}, but the weights have changed since" in card
    capsys.readouterr()
    assert call("models", *models) == 0
    table = capsys.readouterr()
    assert re.search(r"\d\.\d\d\*", table.out)
    assert "photochrom evaluate mine" in table.err
    assert call("models", *models, "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["evaluation"]["current"] is False


def test_the_card_says_which_threads_did_the_work(
    trained: ModelFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    def cell() -> str:
        """What `models show` has in the last column of the only stage."""
        capsys.readouterr()
        assert call("models", "show", "mine", "--models", trained.path.parent) == 0
        (row,) = re.findall(r"^\| v[12] .*$", capsys.readouterr().out, re.MULTILINE)
        return str(row.split("|")[-2].strip())

    assert cell() == "1"
    history = trained.history
    for parts, workers, each, told in ((4, 2, 1, "2 by parts"), (1, 1, 2, "2 by operations")):
        history[-1] |= {"parts": parts, "workers": workers, "threads": each}
        files.write_json(trained / model_folder.HISTORY, history)
        assert cell() == told
    for record in history:  # as earlier versions wrote them
        del record["parts"], record["threads"]
    files.write_json(trained / model_folder.HISTORY, history)
    assert cell() == ""


def test_a_torn_evaluation_is_told_and_stops_no_training(
    trained: ModelFolder, pack: Pack, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "evaluation.json").write_text('{"rows":', encoding="utf-8")
    values["stages"][0]["epochs"] = 3
    train(build(values), trained, pack)
    assert len(trained.history) == 3
    assert call("models", "show", "mine", "--models", trained.path.parent) == 1
    assert re.search(r"evaluation.json cannot be read: .*: delete it", capsys.readouterr().err)


def test_a_model_before_its_first_epoch_has_no_card(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models", "show", "tiny", "--models", models) == 1
    assert "'tiny' has no card before its first epoch is done" in capsys.readouterr().err
    assert call("models", "show", "nope", "--models", models) == 1
    assert "there are: large, tiny" in capsys.readouterr().err


def test_a_model_folder_that_takes_no_files_costs_no_report(
    trained: ModelFolder, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "evaluation.json").mkdir()
    out = tmp_path / "report"
    assert call("evaluate", trained.path, "--data", pack.folder, "--steps", 2, "-o", out) == 0
    assert (out / "report.json").exists()
    assert "cannot write mine's card: cannot write" in capsys.readouterr().err
