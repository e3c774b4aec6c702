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
