"""What is known about the models."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

import photochrom
from photochrom.config import build
from photochrom.server.catalogue import Catalogue, use


def test_the_models_are_listed_the_newest_first(client: TestClient) -> None:
    facts = {fact["name"]: fact for fact in client.get("/api/models").json()}
    assert list(facts) == ["begun", "new", "old", "broken"]
    assert [fact["usable"] for fact in facts.values()] == [False, True, True, False]
    assert [fact["training"] for fact in facts.values()] == [True, False, False, False]
    assert (facts["new"]["stage"], facts["new"]["epoch"], facts["new"]["best_epoch"]) == ("v2", 2, 2)
    assert "cannot be read" in facts["broken"]["error"]


def test_models_say_what_they_are_what_for_and_how_good() -> None:
    shipped = Path(photochrom.__file__).parent / "weights"
    catalogue = Catalogue(shipped, shipped)
    facts = {model["name"]: model for model in catalogue.all()}["photochrom-v2"]
    assert "20 steps" in facts["about"]
    assert "research" in facts["use"]
    table = (catalogue.find("photochrom-v2") / "README.md").read_text()
    found = facts["quality"]["ciede2000"]
    value, low, high = (f"{found[key]:.2f}" for key in ("value", "low", "high"))
    assert f"| {value} | {low} to {high} | {facts['quality']['gray']:.2f} |" in table


def test_a_model_may_be_used_for_what_its_ancestors_photos_allow() -> None:
    mine = {"data": {"name": "/home/me/mine"}}
    assert use(build(mine)) == "For any use that the licence of its training photos (mine) allows."
    further = mine | {"ancestors": [{"name": "tiny-imagenet-200-part"}]}
    for values in ({"data": {"name": "tiny-imagenet-200"}}, further):
        assert use(build(values)).startswith("For research and private use only")
