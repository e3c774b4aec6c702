"""How commands speak: data on stdout, all else on stderr, and of several processes the first alone."""

from __future__ import annotations

import gc
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

from photochrom.commands import shared
from photochrom.commands.shared import complain, print_json, print_table, say, unless_default


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of two that a launcher has started."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)


def test_people_are_spoken_to_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold] is no markup here")
    complain("no model 'x'")
    said = capsys.readouterr()
    assert said.err == "[bold] is no markup here\nphotochrom: error: no model 'x'\n"
    assert said.out == ""


@pytest.mark.usefixtures("second_of_two")
def test_the_second_process_keeps_quiet_but_for_its_own_failure(capsys: pytest.CaptureFixture[str]) -> None:
    say("epoch 1")
    assert capsys.readouterr().err == ""
    complain("no memory")
    assert capsys.readouterr().err == "photochrom: error (process 1): no memory\n"


def test_json_is_data_that_any_reader_takes(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "ä", "loss": 0.1, "none": None}
    print_json(value)
    said = capsys.readouterr()
    assert json.loads(said.out) == value
    assert said.err == ""
    with pytest.raises(ValueError, match="JSON"):
        print_json({"loss": float("nan")})  # which JSON does not have


def test_a_table_lines_up_and_loses_nothing_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a-very-long-name-" * 6
    print_table(["name", ">loss"], [["[red]a[/red]", "0.1"], ["b", "10.25"], [long, "3"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    first, second = (next(line for line in lines if line.startswith(name)) for name in ("[red]a[/red]", "b"))
    assert (first.split()[-1], second.split()[-1]) == ("0.1", "10.25")
    assert len(first) == len(second)  # numbers end in one column
    folded = lines[lines.index(second) + 1 :]
    assert "".join(line.split()[0] for line in folded if line) == long


def test_a_flag_is_shown_where_it_differs_from_the_default() -> None:
    assert unless_default("--models", Path("other"), Path("models")) == " --models other"
    assert unless_default("--models", Path("models"), Path("models")) == ""


def test_the_end_is_quick_unless_a_library_would_report_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton and onnx print a page of leaks if Python does not look through everything at its end."""
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    for name in shared.LEAK_REPORTERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    shared.keep_for_good()
    assert frozen
    frozen.clear()
    monkeypatch.setitem(sys.modules, "triton", sys)
    shared.keep_for_good()
    assert not frozen


def test_a_failing_import_leaves_the_search_for_unused_objects_on() -> None:
    with pytest.raises(ModuleNotFoundError), shared.importing_torch():
        import_module("no_such_module")
    assert gc.isenabled()
