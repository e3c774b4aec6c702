"""Each option is said once: command line, API and Python know the same ones, with the same limits."""

from __future__ import annotations

import subprocess
import sys

import pytest

import photochrom
from photochrom.coloring.options import Hint, Options
from photochrom.config import build
from photochrom.errors import UsageError
from tests.coloring.making import NUMBERS


@pytest.mark.parametrize("name", NUMBERS)
def test_limits_hold(name: str) -> None:
    low, high = NUMBERS[name]
    for limit, beyond in ((low, -1), (high, 1)):
        if limit is not None:
            assert getattr(Options().but(**{name: limit}), name) == limit
            with pytest.raises(UsageError, match=f"^{name} = ") as caught:
                Options().but(**{name: limit + beyond})
            assert "\n" not in str(caught.value)


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'stpes'; known here: .*steps"):
        Options().but(stpes=3)


def test_what_does_not_go_together_is_told() -> None:
    with pytest.raises(UsageError, match=r"^temperature scales .* use ddim or dpm"):
        Options().but(temperature=0.5, sampler="ddpm")
    with pytest.raises(UsageError, match=r"^samples and average exclude each other"):
        Options().but(samples=2, average=2)


def test_changes_are_laid_over_what_was_there() -> None:
    options = Options(strength=1.5, hints=[Hint(1, 2, (3, 4, 5))]).but(steps=4)
    assert options == Options(strength=1.5, hints=[Hint(1, 2, (3, 4, 5))], steps=4)
    assert options.model_fields_set == {"strength", "hints", "steps"}
    assert options.without("strength", "seed") == Options(hints=[Hint(1, 2, (3, 4, 5))], steps=4)


def test_hints_may_be_typed() -> None:
    assert Options(hints=["120,80,#c03020"]).hints == (Hint(120, 80, (192, 48, 32)),)
    with pytest.raises(UsageError, match=r"write x,y,#rrggbb"):
        Options().but(hints=["red"])


def test_a_map_of_uncertainty_needs_several_colourings() -> None:
    draws = [Options(**each).draws for each in ({}, {"samples": 3}, {"average": 4}, {"uncertainty": True})]
    assert draws == [1, 3, 4, 8]
    assert Options(uncertainty=True, samples=3).draws == 3


def test_a_model_says_what_nobody_else_does() -> None:
    plain = build({"diffusion": {"timesteps": 10}})
    led = build({"model": {"encoder": "vgg16"}, "training": {"guidance": 3}})
    assert (Options().steps_for(plain), Options(steps=7).steps_for(plain)) == (10, 7)
    assert (Options().guidance_for(led), Options(guidance=2).guidance_for(led)) == (3, 2)
    assert Options().guidance_for(plain) == 1
    with pytest.raises(UsageError, match="trained without an encoder"):
        Options(guidance=2).guidance_for(plain)
    taught = led.model_copy(update={"stages": (led.stages[0].model_copy(update={"distill": 4}),)})
    with pytest.raises(UsageError, match="distilled"):
        Options(guidance=2).guidance_for(taught)


def test_the_public_names_are_there_and_options_import_nothing_heavy() -> None:
    code = (
        "import sys; from photochrom import Hint, Options; Options(hints=['1,2,#000000'])\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'scipy'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert all(getattr(photochrom, name) for name in photochrom.__all__)
