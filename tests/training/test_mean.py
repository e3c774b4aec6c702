"""`photochrom models mean`: a model of mean weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from photochrom import model_folder
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder, find_model
from tests.making import SMALL, make_model
from tests.running import TINY, Run


@pytest.fixture
def trained(models: Path, tmp_path: Path) -> Path:
    """A folder of models that holds the trained model `tiny`."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    return folder


def test_weights_are_the_mean_of_three(tmp_path: Path, run: Run) -> None:
    made = [
        make_model(ModelFolder(tmp_path / name), {"model": SMALL}, seed) for seed, name in enumerate("abc")
    ]
    assert run("models", "mean", "a", "b", "c", "--name", "d", "--models", tmp_path).code == 0
    a, b, c, mean = (load_file(tmp_path / name / model_folder.WEIGHTS) for name in "abcd")
    assert made[0].config.model == find_model("d", tmp_path).config.model
    assert mean.keys() == a.keys()
    for key, found in mean.items():
        wanted = (a[key].astype(np.float64) + b[key] + c[key]) / 3
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)  # the file rounds to float16


def test_it_says_what_it_is_a_mean_of_and_goes_on_learning(trained: Path, pack: Pack, run: Run) -> None:
    common = ("--data", pack.folder, "--models", trained)
    assert run("train", *TINY, "--name", "longer", "--from", "tiny", *common).code == 0
    found = run("models", "mean", "tiny", "longer", "--name", "both", "--models", trained)
    assert found.code == 0
    assert "photochrom evaluate tiny longer both" in found.out
    card = run("models", "show", "both", "--models", trained).out
    assert "the mean of those of tiny and longer:" in card
    assert "photochrom models mean tiny longer --name both" in card
    assert re.search(r"\| validation loss \| .*, of longer;", card)
    assert card == (trained / "both" / model_folder.CARD).read_text()
    both, longer = find_model("both", trained), find_model("longer", trained)
    assert both.config.mean_of == ("tiny", "longer")
    assert both.history == longer.history
    assert run("train", *TINY, "--name", "next", "--from", "both", *common).code == 0
    assert find_model("next", trained).config.mean_of == ()


def test_a_mean_is_no_training_to_go_on_with(trained: Path, pack: Pack, run: Run) -> None:
    run("models", "mean", "tiny", "tiny", "--name", "twice", "--models", trained)
    found = run("train", *TINY, "--name", "twice", "--data", pack.folder, "--models", trained)
    assert found.code == 1
    assert "mean_of" in found.err
    assert "--name" in found.err


def test_it_names_the_data_sets_of_all(tmp_path: Path, run: Run) -> None:
    for name, data in (("a", "flowers"), ("b", "streets"), ("c", "flowers")):
        make_model(ModelFolder(tmp_path / name), {"model": SMALL, "data": {"name": data}})
    run("models", "mean", "a", "b", "c", "--name", "d", "--models", tmp_path)
    config = json.loads((tmp_path / "d" / model_folder.CONFIG).read_text())
    assert config["data"]["name"] == "flowers"
    assert [each["name"] for each in config["ancestors"]] == ["streets"]


def test_the_file_of_weights_carries_the_same_configuration(tmp_path: Path, run: Run) -> None:
    for name in "ab":
        make_model(ModelFolder(tmp_path / name), {"model": SMALL})
    run("models", "mean", "a", "b", "--name", "c", "--models", tmp_path)
    config, _ = model_folder.read_weights(tmp_path / "c" / model_folder.WEIGHTS)
    assert config == ModelFolder(tmp_path / "c").config


def test_a_file_of_another_network_is_told(tmp_path: Path, run: Run) -> None:
    for name, features in (("a", (8, 16)), ("b", (8, 16)), ("other", (8, 8))):
        make_model(ModelFolder(tmp_path / name), {"model": {**SMALL, "features": features}})
    shutil.copy(tmp_path / "other" / model_folder.WEIGHTS, tmp_path / "a")
    found = run("models", "mean", "a", "b", "--name", "c", "--models", tmp_path)
    assert found.code == 1
    assert re.fullmatch(r".*model\.safetensors.* shape .*\n", found.err)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"model": {**SMALL, "features": (8,)}}, "model"),
        ({"model": SMALL, "diffusion": {"timesteps": 500}}, "diffusion"),
        ({"model": SMALL, "stages": [{"distill": 2}]}, "steps"),
    ],
    ids=["another network", "another noise", "a student"],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, run: Run, values: dict[str, object], word: str
) -> None:
    make_model(ModelFolder(tmp_path / "a"), {"model": SMALL})
    make_model(ModelFolder(tmp_path / "b"), values)
    found = run("models", "mean", "a", "b", "--name", "c", "--models", tmp_path)
    assert found.code == 2
    assert f"a and b have no mean: they differ in {word}" in found.err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("sources", "name", "words"),
    [
        (["a"], "c", "two models or more"),
        (["a", "missing"], "c", "no model 'missing'"),
        (["a", "a"], "b", "exists: choose another --name"),
        (["a", "a"], "../c", "model name '../c'"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, run: Run, sources: list[str], name: str, words: str) -> None:
    for each in "ab":
        make_model(ModelFolder(tmp_path / each), {"model": SMALL})
    before = (tmp_path / "b" / model_folder.WEIGHTS).read_bytes()
    found = run("models", "mean", *sources, "--name", name, "--models", tmp_path)
    assert found.code in (1, 2)
    assert words in found.err
    assert found.err.count("\n") == 1
    assert (tmp_path / "b" / model_folder.WEIGHTS).read_bytes() == before
