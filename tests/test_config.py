"""A configuration may be a stranger's: whatever is wrong in it is said in one line that names the key."""

from __future__ import annotations

from typing import Any

import pytest

from photochrom.config import build
from photochrom.errors import UsageError


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modl": 1}, "unknown key 'modl'; known here: ancestors, data"),
        ({"model": {"depth": 1}}, "unknown key 'model.depth'; known here: attention"),
        ({"stages": [{"epoch": 1}]}, "unknown key 'stages.0.epoch'; known here: adversarial"),
        ({"ancestors": [{"name": "a", "checksum": "b", "place": "c"}]}, "unknown key 'ancestors.0.place'"),
        ({"ancestors": [None]}, "ancestors.0 = None: "),
        ({"ancestors": [{"place": 1}]}, "ancestors.0.name = "),
        ({"source": {"model": 1}}, "source = {'model': 1}: "),
        ({"model": None}, "model = None: "),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(values)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"source": "\x1b[31mred"}, "source"),
        ({"mean_of": ["a", "b\n# Heading"]}, "mean_of"),
        ({"data": {"name": "bell\a"}}, "data.name"),
        ({"ancestors": [{"name": "a\x9b31m"}]}, "ancestors.0.name"),
        ({"stages": [{"name": "v1\r"}]}, "stages.0.name"),
    ],
)
def test_what_a_terminal_would_obey_is_refused(values: dict[str, Any], key: str) -> None:
    """A stranger's words are printed by `models show`."""
    with pytest.raises(UsageError) as refused:
        build(values)
    assert str(refused.value).startswith(f"{key} = ")
    assert "cannot be printed" in str(refused.value)
    assert str(refused.value).isprintable()


def test_other_scripts_and_spaces_are_fine() -> None:
    config = build({"source": "mein Möbel 写真", "mean_of": ["a b", "ж"]})
    assert (config.source, config.mean_of) == ("mein Möbel 写真", ("a b", "ж"))
