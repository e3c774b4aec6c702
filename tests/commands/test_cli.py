"""The command line: what goes where, with which exit code, and that nothing a person owns gets lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from photochrom import __version__, files, model_folder
from photochrom.config import build
from tests.running import Result, Run

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


def test_help_of_every_command_shows_examples_without_importing_anything_heavy() -> None:
    code = f"""
import sys
from photochrom.commands.cli import main
for command in {COMMANDS!r}:
    try:
        main([*command.split(), "--help"])
    except SystemExit as end:
        assert not end.code
heavy = {{"torch", "numpy", "PIL", "matplotlib", "diffusers", "accelerate"}}
print("HEAVY", sorted(sys.modules.keys() & heavy))
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
        ("train --preset huge", "choose one of default, small"),
        ("train --recipe none.toml", "no recipe none.toml"),
        ("train --recipe unknown.toml", "unknown.toml: unknown key 'model.depth'; known here: attention"),
        ("train --recipe stages.toml --epochs 3", "--epochs is ambiguous: stages.toml has 2 stages"),
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


def test_a_signal_ends_other_commands_cleanly() -> None:
    code = """
import os, signal
from photochrom.commands import cli
cli.app = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGTERM)
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "stopped\n")
