"""What strangers may ask for at most."""

from __future__ import annotations

from photochrom.coloring.options import PlainOptions
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
