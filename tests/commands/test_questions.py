"""The questions of `photochrom train`, asked on a pseudo-terminal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from photochrom import files, model_folder
from photochrom.commands.questions import is_finished
from photochrom.config import Config, build
from photochrom.model_folder import ModelFolder
from tests.making import epoch

pexpect = pytest.importorskip(
    "pexpect", reason="pexpect is not installed, or there are no pseudo-terminals here"
)

# One process for all tests, since importing torch takes seconds. It reads a folder and names of data sets.
SCRIPT = """
from pathlib import Path
from rich.console import Console
from photochrom import model_folder, files
from photochrom.commands.questions import as_command, ask_for_flags
while True:
    try:
        models, *data_sets = input("ready> ").split()
        model_folder.SHIPPED = Path(models).parent / "shipped"
        flags = ask_for_flags(Path(models), data_sets, Console(width=500, height=50))
        print("the command:", as_command(flags))
    except KeyboardInterrupt:
        print("stopped")
"""
NETWORK = ("Features", "Encoder", "Time embedding", "Timesteps", "Batch size", "Learning rate")
STAGE = ("Epochs", "Noise weight", "Perceptual weight", "GAN")


class Terminal:
    """A person before the terminal."""

    def __init__(self) -> None:
        environment = os.environ | {"TERM": "dumb"}  # which has neither bold nor colour
        self.child = pexpect.spawn(sys.executable, ["-c", SCRIPT], encoding="utf-8", env=environment)
        self.child.expect("ready> ", timeout=60)

    def begin(self, models: Path, *data_sets: str) -> None:
        self.interrupt()  # whatever the test before left
        self.child.sendline(" ".join((str(models), *data_sets)))

    def answer(self, question: str, answer: str = "") -> str:
        """Wait for this question, and for no other before it; returns its default."""
        self.child.expect(r"([^\r\n\[]+) \[([^\]]*)\]: ")
        assert self.child.match[1] == question
        default: str = self.child.match[2]
        self.child.sendline(answer)
        return default

    def interrupt(self) -> None:
        """Press Ctrl-C, again if Python was not yet listening: between question and waiting it is lost."""
        for _ in range(20):
            self.child.sendintr()
            if self.child.expect(["stopped\r\nready> ", pexpect.TIMEOUT], timeout=1) == 0:
                return
        raise AssertionError("Ctrl-C was not heard")

    def expect(self, text: str) -> None:
        self.child.expect_exact(text)

    def command(self) -> list[str]:
        """The flags in the end."""
        self.child.expect(r"the command: photochrom train ([^\r\n]*)\r\n")
        return shlex.split(self.child.match[1])


@pytest.fixture(scope="module")
def process() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.child.close(force=True)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def model(models: Path, name: str, epochs: int, of: int, **stage: Any) -> Config:
    """A model's folder, as far as the questions look at it."""
    config = build({"stages": [{"epochs": of, **stage}]})
    folder = ModelFolder(models / name)
    folder.path.mkdir(parents=True)
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    label = config.stages[0].label
    losses = [epoch(n, 0.6 / n, stage=label, train_loss=0.5 / n) for n in range(1, epochs + 1)]
    files.write_json(folder / model_folder.HISTORY, losses)
    return config


def test_enter_everywhere_takes_the_defaults(process: Terminal, models: Path) -> None:
    process.begin(models)
    assert process.answer("Name") == "my_model"
    defaults = [process.answer(question) for question in (*NETWORK, *STAGE)]
    assert defaults[:5] == ["64,128,256,512", "none", "256", "1000", "16"]
    assert float(defaults[5]) == 1e-4
    assert defaults[6:] == ["50", "1.0", "0.1", "n"]
    assert process.command() == ["--name", "my_model", "--data", "demo"]
    assert not models.exists()


def test_answers_become_flags(process: Terminal, models: Path) -> None:
    process.begin(models, "demo")
    answers = ("[32, 64]", "vgg16", "128", "500", "8", "5e-4", "3", "0.9", "0.2", "yes")
    process.answer("Name", "mine")
    for question, answer in zip((*NETWORK, *STAGE), answers, strict=True):
        process.answer(question, answer)
    assert process.answer("Adversarial weight", "0.02") == "0.01"
    assert process.command() == [
        *("--name", "mine", "--data", "demo"),
        *("--features", "32,64", "--encoder", "vgg16", "--time-embedding", "128", "--timesteps", "500"),
        *("--batch-size", "8", "--learning-rate", "5e-4"),
        *("--epochs", "3", "--noise", "0.9", "--perceptual", "0.2", "--gan", "--adversarial", "0.02"),
    ]


def test_each_question_comes_with_advice(process: Terminal, models: Path) -> None:
    process.begin(models)
    for question, advice in (
        ("Name", "of the model and its folder"),
        ("Features", "channels of each level"),
        ("Encoder", "better colours"),
        ("Time embedding", "256 suits nearly everybody"),
        ("Timesteps", "steps from photo to noise"),
        ("Batch size", "photos per step"),
        ("Learning rate", "a small one (32,64,128,256) learns well with 8e-4"),
        ("Epochs", "passes over all photos"),
        ("Noise weight", "leave it at 1"),
        ("Perceptual weight", "corrects false colours"),
        ("GAN", "a discriminator that judges"),
    ):
        process.expect(advice)
        process.answer(question)


def test_a_wrong_answer_is_asked_again_with_the_reason(process: Terminal, models: Path) -> None:
    model(models, "model_v1", 1, 1)
    process.begin(models, "birds", "demo")
    for question, wrong, reason in (
        ("Resume", "2", "'2' is not a number from 0 to 1"),
        ("Resume", "model_v1", "'model_v1' is not a number"),
        ("Resume", "0", ""),
        ("Name", "a/b", "model name 'a/b': use letters"),
        ("Name", "[/red]", "model name '[/red]': use letters"),
        ("Name", "model_v1", "model_v1 exists: take another name"),
        ("Name", "", ""),
        ("Data set", "0", "'0' is not a number from 1 to 2"),
        ("Data set", "demo", "'demo' is not a number"),
        ("Data set", "2", ""),
        ("Features", "64,abc", "'abc': Input should be a valid integer"),
        ("Features", "64,100", "100 is not a positive multiple of 8"),
        ("Features", "64", ""),
        ("Encoder", "resnet", "'resnet': Input should be 'none', 'vgg16', "),
        ("Encoder", "", ""),
        ("Time embedding", "33", "33 is odd"),
        ("Time embedding", "", ""),
        ("Timesteps", "1", "greater than or equal to 2"),
        ("Timesteps", "", ""),
        ("Batch size", "0", "training.batch_size = '0': Input should be greater than or equal to 1"),
        ("Batch size", "many", "training.batch_size = 'many': Input should be a valid integer"),
        ("Batch size", "", ""),
        ("Learning rate", "-1", "greater than 0"),
        ("Learning rate", "", ""),
        ("Epochs", "0.5", "stages.0.epochs = '0.5'"),
        ("Epochs", "", ""),
        ("Noise weight", "nan", "should be a finite number"),
        ("Noise weight", "", ""),
        ("Perceptual weight", "-0.1", "greater than or equal to 0"),
        ("Perceptual weight", "0", ""),
        ("GAN", "perhaps", "'perhaps' is neither y nor n"),
        ("GAN", "Y", ""),
        ("Adversarial weight", "much", "'much': Input should be a valid number"),
        ("Adversarial weight", "", ""),
    ):
        process.answer(question, wrong)
        process.expect(reason)
    assert process.command() == [
        *("--name", "my_model", "--data", "demo", "--features", "64"),
        *("--perceptual", "0", "--gan"),
    ]


def test_models_are_listed_with_epoch_and_losses(process: Terminal, models: Path) -> None:
    model(models, "my_model", 5, 5, perceptual=0.0)
    model(models, "other", 2, 3)
    model(models, "young", 0, 3)
    process.begin(models)
    process.expect("0  a new model")
    process.expect("1  my_model: v1, epoch 5, loss 0.1000, validation 0.1200")
    process.expect("2  other: v2, epoch 2, loss 0.2500, validation 0.3000")
    process.expect("3  young: no epoch finished yet")
    assert process.answer("Resume") == "0"
    assert process.answer("Name") == "my_model2"  # the next one that is free


def test_a_finished_model_is_gone_on_from(process: Terminal, models: Path) -> None:
    model(models, "model_v1", 5, 5, perceptual=0.0)
    model(models, "model_v1_v2", 1, 1)
    process.begin(models, "demo")
    process.answer("Resume", "1")
    assert process.answer("Name") == "model_v1_v3"  # the next one that is free
    assert process.answer("Epochs", "7") == "50"  # its network and data are given, and not asked for
    for question in STAGE[1:3]:
        process.answer(question)
    process.answer("GAN", "y")
    process.answer("Adversarial weight")
    assert process.command() == ["--from", "model_v1", "--name", "model_v1_v3", "--epochs", "7", "--gan"]


def test_from_a_model_that_comes_along_photos_are_asked_for(process: Terminal, models: Path) -> None:
    model(models.parent / "shipped", "photochrom-v2", 2, 2)
    process.begin(models, "birds", "mine")
    process.answer("Resume", "1")
    assert process.answer("Name") == "photochrom-v2_v2"
    process.answer("Data set", "2")
    for question in STAGE:
        process.answer(question)
    assert process.command() == ["--from", "photochrom-v2", "--name", "photochrom-v2_v2", "--data", "mine"]


def test_an_unfinished_model_is_finished_or_gone_on_from(process: Terminal, models: Path) -> None:
    model(models, "model_v1", 2, 5)
    process.begin(models)
    process.answer("Resume", "1")
    assert process.answer("Finish it") == "y"
    assert process.command() == ["--name", "model_v1"]
    process.begin(models)
    process.answer("Resume", "1")
    process.answer("Finish it", "n")
    process.answer("Name", "mine")
    for question in STAGE:
        process.answer(question)
    assert process.command() == ["--from", "model_v1", "--name", "mine"]


def test_ctrl_c_leaves_nothing_behind(process: Terminal, models: Path) -> None:
    model(models, "model_v1", 1, 1)
    before = sorted(models.parent.rglob("*"))
    process.begin(models)
    process.answer("Resume")
    process.answer("Name", "mine")
    process.child.expect("Features")
    process.interrupt()
    assert sorted(models.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("losses", "patience", "finished"),
    [
        ([0.5, 0.4, 0.3], 0, False),
        ([0.5, 0.4, 0.3], 2, False),
        ([0.5, 0.3, 0.4], 2, False),
        ([0.3, 0.4, 0.5], 2, True),
        ([0.3, 0.4, 0.5], 0, False),
        ([0.5] * 6, 0, True),
    ],
)
def test_a_training_is_finished_by_its_epochs_or_by_its_patience(
    losses: list[float], patience: int, finished: bool, models: Path
) -> None:
    folder = ModelFolder(models / "a")
    folder.path.mkdir(parents=True)
    config = build({"stages": [{"epochs": 6}], "training": {"patience": patience}})
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    records = [epoch(n, loss) for n, loss in enumerate(losses, 1)]
    files.write_json(folder / model_folder.HISTORY, records)
    assert is_finished(folder) == finished


def test_patience_counts_in_the_last_stage_only(models: Path) -> None:
    folder = ModelFolder(models / "a")
    folder.path.mkdir(parents=True)
    config = build({"stages": [{"epochs": 3}, {"epochs": 5}], "training": {"patience": 2}})
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    records = [epoch(n, 0.1 * n, stage_began=1 if n < 4 else 4) for n in range(1, 6)]
    for count, finished in ((3, False), (5, False)):
        files.write_json(folder / model_folder.HISTORY, records[:count])
        assert is_finished(folder) == finished
    files.write_json(folder / model_folder.HISTORY, [*records, epoch(6, 0.9, stage_began=4)])
    assert is_finished(folder)


def test_a_model_that_cannot_be_read_is_named_and_the_others_are_offered(
    models: Path, process: Terminal
) -> None:
    model(models, "good", epochs=2, of=2)
    model(models, "torn", epochs=2, of=2)
    (models / "torn" / model_folder.HISTORY).write_text("[{}]")
    process.begin(models)
    process.expect("cannot offer a model: ")
    process.expect("training_history.json cannot be read: 0.epoch: Field required")
    process.expect("1  good: v2, epoch 2")
