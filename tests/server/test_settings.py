"""What strangers may ask for at most."""

from __future__ import annotations

import re
from importlib.resources import files

from photochrom.coloring.options import CALM, PlainOptions
from photochrom.server import Settings, create_app
from photochrom.server.settings import MOST
from tests.coloring.making import OPTIONS, bounds


def test_the_api_takes_the_same_options_within_its_own_limits() -> None:
    schemas = create_app(Settings()).openapi()["components"]["schemas"]
    for form in ("ColorizeForm", "JobForm"):
        properties = schemas[form]["properties"]
        for name in PlainOptions.model_fields:
            low, high = bounds(OPTIONS[name])
            assert bounds(properties[name]) == (low, MOST.get(name, high)), name
            assert properties[name].get("default") == OPTIONS[name].get("default"), name
            assert properties[name]["description"] == OPTIONS[name]["description"], name
    for name, limit in MOST.items():
        high = bounds(OPTIONS[name])[1]
        assert high is None or limit < high


def test_calm_colours_on_the_page_merge_as_many_colourings_as_the_command() -> None:
    script = (files("photochrom.server") / "page" / "settings.js").read_text(encoding="utf-8")
    assert re.findall(r"AGREEING = (\d+);", script) == [str(CALM)]
