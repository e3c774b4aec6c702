"""`photochrom train`: flags, going on, signals, and that no model gets lost."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from photochrom import flags, model_folder
from photochrom.config import SECTIONS
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder
from tests.running import TINY, Run


def test_every_field_of_the_configuration_is_a_flag(run: Run) -> None:
    shown = run("train", "--help").out
    for section, model in SECTIONS.items():
        for field in model.model_fields:
            name = flags.RENAMED.get(f"{section}.{field}", field.replace("_", "-"))
            if f"{section}.{field}" not in flags.WITHOUT_FLAG:
                assert f"--{name} " in shown
    assert "--no-flip" in shown
    assert "64,128,256,512" in shown


def test_the_command_of_a_card_trains_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("--no-flip", "--learning-rate", "5e-4", "--photos-per-epoch", "16", "--data", "demo")
    assert run("train", "--name", "one", *TINY, *few).code == 0
    folder = ModelFolder(Path("models/one"))
    command = flags.train_command(folder.config, "two")
    assert f"    {flags.train_command(folder.config, 'one')}\n" in (folder / model_folder.CARD).read_text()
    assert run(*shlex.split(command)[1:]).code == 0
    again = ModelFolder(Path("models/two"))
    assert again.config == folder.config
    assert again.history[-1]["val_loss"] == folder.history[-1]["val_loss"]
    slower = ("--from", "two", "--learning-rate", "1e-4", "--epochs", "1", "--perceptual", "0")  # the default
    assert run("train", "--name", "three", *slower).code == 0
    card = Path("models/three", model_folder.CARD).read_text()
    stages = [line for line in card.splitlines() if line.startswith("| v1 |")]
    for line, start in zip(
        stages, ("| v1 | 2 | 32 | 1 | 0 | 0 |", "| v1 | 1 | 16 | 1 | 0 | 0 |"), strict=True
    ):
        assert line.startswith(start)  # the last column depends on this machine's cores
    (command,) = [line.strip() for line in card.splitlines() if line.startswith("    photochrom train")]
    assert run(*shlex.split(command.replace("three", "four"))[1:]).code == 0
    third, fourth = (ModelFolder(Path("models", name)) for name in ("three", "four"))
    assert fourth.config == third.config
    assert fourth.history[-1]["val_loss"] == third.history[-1]["val_loss"]
    monkeypatch.setattr("typer.confirm", lambda *question, **how: True)
    finishing = run("train", "--name", "two", "--ask")  # as the questions do it: with its own settings
    assert (finishing.code, "All epochs are done" in finishing.err) == (0, True)


def test_train_says_where_the_model_is_and_goes_on_when_run_again(run: Run, pack: Pack) -> None:
    command = ("train", *TINY, "--name", "mine", "--data", pack.folder)
    first = run(*command)
    assert first.code == 0
    assert first.out == "models/mine\n"
    assert "epoch 1/2" in first.err
    assert "photochrom colorize PHOTO.jpg --model mine" in first.err
    again = run(*command)
    assert (again.code, again.out) == (0, "models/mine\n")
    assert "All epochs are done" in again.err
    assert "--epochs" in again.err
    more = run(*command, "--epochs", 3)
    assert more.code == 0
    assert "epoch 3/3" in more.err
    assert "epoch 2/3" not in more.err
    assert len(ModelFolder(Path("models/mine")).history) == 3


def test_the_same_command_goes_on_once_the_model_that_it_went_on_from_is_deleted(
    run: Run, pack: Pack
) -> None:
    assert run("train", *TINY, "--name", "old", "--data", pack.folder, "--epochs", 1).code == 0
    command = ("train", "--from", "old", "--perceptual", 0, "--data", pack.folder)
    assert run(*command, "--epochs", 1).code == 0
    shutil.rmtree("models/old")
    more = run(*command, "--epochs", 2)
    assert more.code == 0, more.err
    assert len(ModelFolder(Path("models/old_v2")).history) == 3
    assert run("train", "--name", "old_v2", "--data-dir", pack.folder.parent).code == 0
    other = run(*command, "--epochs", 2, "--learning-rate", 0.1)
    assert other.code == 1
    assert "training.learning_rate" in other.err
    assert "no model 'old'" in run(*command, "--name", "new").err
    assert "no model 'older'" in run("train", "--from", "older", "--name", "old_v2").err


def no(*question: object, **how: object) -> None:
    """What `typer.confirm` does where the answer is no."""
    raise typer.Abort


def test_a_model_is_lost_neither_to_other_settings_nor_to_overwriting_with_wrong_ones(
    run: Run, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", *TINY, "--name", "mine", "--data", pack.folder)
    assert run(*command).code == 0
    before = Path("models/mine/best_model.pth").read_bytes()
    other = run(*command, "--seed", 1)
    assert other.code == 1
    assert "training.seed = 0, not 1" in other.err
    uneven = run(*command, "--features", "8,16,24,32,40", "--overwrite")
    assert uneven.code == 2
    itself = run(*command, "--from", "mine", "--overwrite")
    assert itself.code == 2
    assert "a model that starts from mine cannot replace it" in itself.err
    assert run(*command, "--name", "wide", "--features", "16,16").code == 0
    assert run(*command, "--from", "wide", "--overwrite").code == 2
    assert run(*command, "--distill", 2, "--perceptual", 0, "--overwrite").code == 2
    monkeypatch.setattr("typer.confirm", no)
    assert run(*command, "--seed", 1, "--overwrite", "--ask").code == 1
    assert Path("models/mine/best_model.pth").read_bytes() == before
    assert run(*command, "--seed", 1, "--overwrite").code == 0
    assert Path("models/mine/best_model.pth").read_bytes() != before


def test_unknown_data_set_lists_those_there(run: Run, pack: Pack) -> None:
    result = run("train", "--data", "nope", "--data-dir", pack.folder.parent)
    assert result.code == 1
    assert "tiny" in result.error


def test_minutes_chosen_at_first_hold_when_run_again(run: Run, pack: Pack) -> None:
    command = ("train", *TINY[:-2], "--minutes", "0.02", "--name", "mine", "--data", pack.folder)
    assert run(*command).code == 0
    folder = ModelFolder(Path("models/mine"))
    config = folder.config
    assert run(*command).code == 0
    assert folder.config == config


@pytest.fixture
def training(pack: Pack, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training that would never end, in another process, in its second epoch."""
    options = [*TINY[:-1], "100000", "--name", "mine", "--data", str(pack.folder)]
    command = [sys.executable, "-m", "photochrom", "train", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if line.startswith("epoch"):
            break
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(
    run: Run, pack: Pack, training: subprocess.Popen[str], number: int, code: int
) -> None:
    training.send_signal(number)
    _, err = training.communicate(timeout=120)
    assert training.returncode == code
    assert "all saved; the same command goes on from here" in err
    assert "Traceback" not in err
    done = model_folder.read_checkpoint(Path("models/mine/last_model.pth"))["epoch"]
    again = run("train", *TINY[:-1], done + 1, "--name", "mine", "--data", pack.folder)
    assert again.code == 0
    assert f"epoch {done + 1}/{done + 1}" in again.err
    assert f"epoch {done}/{done + 1}" not in again.err
