"""The command line: what goes where, with which exit code, and that nothing a person owns gets lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pytest
import typer
from PIL import Image

import photochrom
from photochrom import __version__, files, flags, model_folder
from photochrom.commands import cli, demo_run
from photochrom.commands.terminal import duration
from photochrom.config import SECTIONS, build
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder
from photochrom.training import estimate

TINY = (
    *(
        "--features",
        "8,16",
        "--time-embedding",
        "16",
        "--blocks",
        "1",
        "--attention",
        "0",
        "--timesteps",
        "50",
    ),
    *("--batch-size", "8", "--perceptual", "0", "--epochs", "2"),
)
COMMANDS = (
    "",
    "demo",
    "train",
    "colorize",
    "evaluate",
    "export",
    "models",
    "models show",
    "data",
    "data import",
    "data info",
    "data clean",
    "data list",
)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line on stderr, which must be an error."""
        assert re.fullmatch(r"photochrom: error: [^\n]+\n", self.err), self.err
        assert self.out == ""
        return self.err


Run = Callable[..., Result]


def call(*arguments: object) -> int:
    """Run the command in this process; returns its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(end.value.code or 0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = call(*arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def models(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that holds one, called tiny."""
    folder = tmp_path_factory.mktemp("models")
    assert call("train", *TINY, "--name", "tiny", "--data", pack.folder, "--models", folder) == 0
    return folder


def photo(path: Path, width: int = 24, height: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncated(path: Path) -> Path:
    whole = photo(path, 200, 200).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


# --- help, version, errors -------------------------------------------------------------------------------------------


def test_help_of_every_command_shows_examples_without_importing_anything_heavy() -> None:
    code = f"""
import sys
from photochrom.commands.cli import main
for command in {COMMANDS!r}:
    try:
        main([*command.split(), "--help"])
    except SystemExit as end:
        assert not end.code
print("HEAVY", sorted(sys.modules.keys() & {{"torch", "numpy", "PIL", "matplotlib", "diffusers", "accelerate"}}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in out
    assert out.count("Usage: photochrom") == len(COMMANDS)
    assert out.count("Examples") == len(COMMANDS) - 1  # the group `data` has those of its commands
    assert max(map(len, out.splitlines())) <= 80


def test_version_is_data_and_goes_to_stdout(run: Run) -> None:
    assert run("--version") == Result(0, f"photochrom {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --learning-rate 5", "training.learning_rate = 5.0"),
        ("train --features 8,x", "'x'"),
        ("train --features 8,12", "12 is not a positive multiple of 8"),
        ("train --preset huge", "there are default, small"),
        ("train --recipe none.toml", "no recipe none.toml"),
        ("train --recipe unknown.toml", "unknown.toml: unknown key 'model.depth'; known here: attention"),
        ("train --recipe stages.toml --epochs 3", "--epochs is not clear: stages.toml has 2 stages"),
        ("train --minutes 1 --epochs 3", "leave out --epochs"),
        ("train --minutes -1", "above 0"),
        ("train --name ../x", "'../x'"),
        ("data import . --name a/b", "'a/b'"),
        ("colorize a.png b.png -o unknown.toml --model some", "unknown.toml is one file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, tmp_path: Path, arguments: str, said: str) -> None:
    (tmp_path / "unknown.toml").write_text("[model]\ndepth = 3\n")
    (tmp_path / "stages.toml").write_text("[[stages]]\nepochs = 1\n[[stages]]\nepochs = 2\n")
    (tmp_path / "models/some").mkdir(parents=True)
    files.write_json(tmp_path / "models/some" / model_folder.CONFIG, build({}).model_dump(mode="json"))
    (tmp_path / "models/some" / model_folder.WEIGHTS).touch()
    result = run(*arguments.split())
    assert result.code == 2
    assert said in result.error


def test_unknown_option_is_wrong_usage(run: Run) -> None:
    result = run("train", "--depth", "3")
    assert result.code == 2
    assert "--depth" in result.err
    assert result.out == ""


def test_environment_errors_are_one_line_and_exit_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/demo")

    monkeypatch.setattr("photochrom.data.dataset.find", full)
    result = run("data", "info", "demo")
    assert result.code == 1
    assert result.error == "photochrom: error: data/demo: No space left on device\n"


def test_no_color_takes_the_colors_away() -> None:
    command = f"{sys.executable} -m photochrom models --help"
    colored = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|9[0-7])[0-9;]*m")

    def shown(**extra: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
        environment |= {"TERM": "xterm-256color", **extra}
        out, status = pexpect.run(command, env=environment, withexitstatus=True, encoding="utf-8")
        assert status == 0
        return str(out)

    assert colored.search(shown())
    assert not colored.search(shown(NO_COLOR="1"))


@pytest.mark.parametrize(
    ("command", "policy"), [("colorize", "PASSIVE"), ("models", "PASSIVE"), ("train", None)]
)
def test_threads_sleep_while_they_wait_but_in_trainings(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, policy: str | None
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(command, "--help").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"  # somebody has chosen
    monkeypatch.delenv("OMP_WAIT_POLICY")
    run(command, "--help")
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_durations_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (3.2, 89, 600, 9000)] == ["3 s", "89 s", "10 min", "2.5 h"]


# --- train -----------------------------------------------------------------------------------------------------------


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
    assert [line for line in card.splitlines() if line.startswith("| v1 |")] == [
        "| v1 | 2 | 32 | 1 | 0 | 0 |",
        "| v1 | 1 | 16 | 1 | 0 | 0 |",
    ]
    (command,) = [line.strip() for line in card.splitlines() if line.startswith("    photochrom train")]
    assert run(*shlex.split(command.replace("three", "four"))[1:]).code == 0
    third, fourth = (ModelFolder(Path("models", name)) for name in ("three", "four"))
    assert fourth.config == third.config
    assert fourth.history[-1]["val_loss"] == third.history[-1]["val_loss"]
    monkeypatch.setattr("typer.confirm", lambda *question, **how: True)
    finishing = run("train", "--name", "two", "--ask")  # as the questions do it: with its own settings
    assert (finishing.code, "All epochs are done" in finishing.err) == (0, True)


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "[model]\nfeatures = [8, 16]\ndropout = 0.1\n[data]\nflip = true\n[training]\nseed = 5\n"
        "[[stages]]\nepochs = 7\nnoise = 2.0\n"
    )
    given = {"model__dropout": 0.3, "data__flip": False, "stages__epochs": 9, "training__seed": None}
    config = flags.resolve(recipe, None, given)
    assert (config.model.features, config.model.dropout) == ((8, 16), 0.3)
    assert config.data.flip is False
    assert (config.training.seed, config.training.batch_size) == (5, build({}).training.batch_size)
    assert (config.stages[0].epochs, config.stages[0].noise) == (9, 2.0)
    recipe.write_text("[model]\nfeatures = [8, 16]\n[training]\nseed = 5\nbatch_size = 7\n")
    small = flags.resolve(recipe, "small", {})
    assert small.model.features == (32, 64, 128, 256)
    assert (small.training.batch_size, small.training.learning_rate, small.training.seed) == (32, 8e-4, 5)
    other = flags.resolve(recipe, "small", {"model__features": "8,24", "training__batch_size": 9})
    assert (other.model.features, other.training.batch_size) == ((8, 24), 9)
    assert build({}) == flags.resolve(None, "default", {})  # which is what there is without one


def test_stages_are_v2_unless_the_perceptual_weight_is_zero() -> None:
    stage = flags.resolve(None, None, {}).stages[0]
    assert (stage.noise, stage.perceptual, stage.gan, stage.adversarial) == (1.0, 0.1, False, 0.01)
    assert stage.label == "v2"
    assert flags.resolve(None, None, {"stages__perceptual": 0.0}).stages[0].label == "v1"


@pytest.mark.parametrize(
    "recipe", sorted(Path(__file__).parents[2].glob("recipes/*.toml")), ids=lambda p: p.stem
)
def test_the_recipes_that_come_along_are_valid(recipe: Path) -> None:
    flags.resolve(recipe, None, {})


def test_train_says_where_the_model_is_and_goes_on_when_run_again(run: Run, pack: Pack) -> None:
    command = ("train", *TINY, "--name", "mine", "--data", pack.folder)
    first = run(*command)
    assert first.code == 0
    assert first.out == "models/mine\n"
    assert "epoch 1/2" in first.err
    assert "photochrom colorize PHOTO.jpg -o coloured --model mine" in first.err
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


@pytest.mark.parametrize(("minutes", "epochs", "photos"), [(2, 35, None), (0.5, 10, 20)])
def test_minutes_choose_as_many_epochs_as_fit(
    pack: Pack,
    values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    epochs: int,
    photos: int | None,
) -> None:
    """A step of one photo takes 0.1 s here and files 1 s: 24 photos 3.4 s. Few epochs are made more, and shorter."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(estimate, "train_step", lambda training: clock.append(clock.pop() + 0.1))
    monkeypatch.setattr(estimate, "validate", lambda training: None)
    values["training"]["batch_size"] = 1
    config = estimate.fit_minutes(build(values), pack, minutes, lambda progress: None)
    assert (config.stages[0].epochs, config.data.photos_per_epoch) == (epochs, photos)


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
    _, err = training.communicate(timeout=30)
    assert training.returncode == code
    assert "all saved; the same command goes on from here" in err
    assert "Traceback" not in err
    done = model_folder.read_checkpoint(Path("models/mine/last_model.pth"))["epoch"]
    again = run("train", *TINY[:-1], done + 1, "--name", "mine", "--data", pack.folder)
    assert again.code == 0
    assert f"epoch {done + 1}/{done + 1}" in again.err
    assert f"epoch {done}/{done + 1}" not in again.err


def test_the_second_signal_quits_at_once() -> None:
    code = """
import os, signal
from photochrom.commands.terminal import asked_to_stop
with asked_to_stop(print) as stop:
    assert stop() == 0
    os.kill(os.getpid(), signal.SIGINT)
    assert stop() == signal.SIGINT
    print("first", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("second", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout.endswith("first\n")


def test_a_signal_ends_other_commands_cleanly() -> None:
    code = """
import os, signal
from photochrom.commands import cli
cli.app = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGTERM)
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "stopped\n")


# --- colorize and models ---------------------------------------------------------------------------------------------


def test_folders_keep_their_structure_and_a_bad_photo_stops_nothing(
    run: Run, models: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "album/a.jpg")
    photo(tmp_path / "album/deep/er/b.png", 40, 40)
    photo(tmp_path / "album/c.bmp")
    photo(tmp_path / "album/.hidden/d.png")
    (tmp_path / "album/notes.txt").write_text("not a photo")
    truncated(tmp_path / "album/bad.jpg")
    photo(tmp_path / "old.webp", 16, 16)
    result = run(
        "colorize", "album", "old.webp", "-o", "out", "--models", models, "--model", "tiny", "--steps", 2
    )
    assert result.code == 3
    assert sorted(result.out.splitlines()) == ["out/a.jpg", "out/c.png", "out/deep/er/b.png", "out/old.webp"]
    assert sorted(str(path) for path in Path("out").rglob("[!.]*.*")) == sorted(result.out.splitlines())
    assert "album/bad.jpg" in result.err
    assert "4 coloured, 1 failed" in result.err
    for path, format in (("a.jpg", "JPEG"), ("c.png", "PNG"), ("deep/er/b.png", "PNG"), ("old.webp", "WEBP")):
        with Image.open(Path("out") / path) as image:
            assert (image.format, image.mode) == (format, "RGB")
    with Image.open("album/deep/er/b.png") as before, Image.open("out/deep/er/b.png") as after:
        difference = np.asarray(before.convert("L")).astype(int) - np.asarray(after.convert("L"))
        assert np.abs(difference).max() <= 1


def test_existing_files_and_the_input_itself_are_kept(run: Run, models: Path, tmp_path: Path) -> None:
    before = photo(tmp_path / "a.png").read_bytes()
    Path("out").mkdir()
    Path("out/a.png").write_text("precious")
    common = ("--models", models, "--model", "tiny", "--steps", 1)
    kept = run("colorize", "a.png", "-o", "out", *common)
    assert kept.code == 1
    assert "out/a.png exists" in kept.err
    assert Path("out/a.png").read_text() == "precious"
    itself = run("colorize", "a.png", "-o", ".", "--overwrite", *common)
    assert itself.code == 1
    assert "over itself" in itself.err
    assert Path("a.png").read_bytes() == before
    assert run("colorize", "a.png", "-o", "out", "--overwrite", *common).code == 0
    with Image.open("out/a.png") as image:
        assert image.size == (24, 16)


def test_two_photos_never_become_one_file(run: Run, models: Path, tmp_path: Path) -> None:
    photo(tmp_path / "one/a.png")
    photo(tmp_path / "two/a.png")
    result = run(
        "colorize",
        "one",
        "two",
        "one/a.png",
        "-o",
        "out",
        "--models",
        models,
        "--model",
        "tiny",
        "--steps",
        1,
    )
    assert result.code == 3
    assert result.out == "out/a.png\n"
    assert "two/a.png would be written to out/a.png, as one/a.png is" in result.err


def test_results_of_an_earlier_run_are_not_coloured_again(run: Run, models: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for overwrite in ((), ("--overwrite",)):
        result = run(
            "colorize", ".", "-o", "coloured", "--models", models, "--model", "tiny", "--steps", 1, *overwrite
        )
        assert (result.code, result.out) == (0, "coloured/a.png\n")


def test_a_single_photo_may_become_a_named_file(run: Run, models: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.bmp")
    result = run("colorize", "a.bmp", "-o", "deep/b.jpg", "--models", models, "--model", "tiny", "--steps", 1)
    assert (result.code, result.out) == (0, "deep/b.jpg\n")
    with Image.open("deep/b.jpg") as image:
        assert image.format == "JPEG"


def test_colorize_reports_as_json(run: Run, models: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    result = run(
        "colorize",
        "a.png",
        "none.png",
        "-o",
        "out",
        "--models",
        models,
        "--model",
        "tiny",
        "--steps",
        1,
        "--json",
    )
    assert result.code == 3
    report = json.loads(result.out)
    assert report["model"] == "tiny"
    assert report["written"] == [{"input": "a.png", "output": "out/a.png"}]
    assert [failure["input"] for failure in report["failed"]] == ["none.png"]


def test_sampler_and_steps_are_checked(run: Run, models: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for option, value, said in (("--sampler", "euler", "'ddim', 'unipc'"), ("--steps", 51, "1 to 50")):
        result = run("colorize", "a.png", "-o", "out", "--models", models, "--model", "tiny", option, value)
        assert result.code == 2
        assert said in result.error


def test_an_unknown_model_lists_those_there(run: Run, models: Path) -> None:
    unknown = run("colorize", "a.png", "-o", "out", "--models", models, "--model", "nope")
    assert unknown.code == 1
    assert "tiny" in unknown.error


def test_models_are_listed(run: Run, models: Path) -> None:
    table = run("models", "--models", models)
    assert table.code == 0
    assert re.search(r"tiny +v1 +2/2", table.out)
    assert table.err == ""
    (facts,) = json.loads(run("models", "--models", models, "--json").out)
    assert (facts["name"], facts["stage"], facts["epoch"], facts["epochs"]) == ("tiny", "v1", 2, 2)
    assert facts["best_val_loss"] == min(
        record["val_loss"] for record in ModelFolder(models / "tiny").history
    )


# --- data and demo ---------------------------------------------------------------------------------------------------


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


def test_demo_colours_photographs_trains_models_and_begins_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", Path(photochrom.__file__).parent / "weights")
    monkeypatch.setattr(demo_run, "AGREEING", 1)
    for name in ("V1", "V2"):
        values = getattr(demo_run, name).model_dump()
        values["model"] |= {"features": (8, 16), "blocks": 1, "attention": 0}
        values["data"] |= {"photos_per_epoch": 16}
        values["stages"][0]["epochs"] = 1
        monkeypatch.setattr(demo_run, name, build(values))
    for extra, trains in ((), True), ((), True), (("--keep",), False):
        result = run("demo", "--out", "here", *extra)
        assert result.code == 0
        made = ("coloured.png", "models/demo_v1", "models/demo_v2", "small_models.png")
        assert result.out == "".join(f"here/{name}\n" for name in made)
        assert ("epoch 1/1  v1" in result.err) == trains
        assert ("epoch 2/2  v2" in result.err) == trains
        assert "photochrom colorize PHOTO.jpg -o coloured/" in result.err
    with Image.open("here/small_models.png") as picture:
        assert picture.width > 2 * 4 * 128
    with Image.open("here/coloured.png") as picture:  # gray, coloured, true, and so once more
        gray, coloured, true = (np.asarray(picture.crop((x, 30, x + 200, 220)), float) for x in (4, 208, 412))
        colourful = [np.ptp(part, axis=2).mean() for part in (gray, coloured, true)]
        assert colourful[0] < 1
        assert min(colourful[1:]) > 5
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "coloured.png",
        "data",
        "models",
        "small_models.png",
    ]
