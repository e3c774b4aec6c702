"""What is known about the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

import photochrom
from photochrom.config import build
from photochrom.files import write_json
from photochrom.model_folder import CONFIG
from photochrom.server.catalogue import Catalogue


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


def test_a_model_may_be_used_for_what_its_ancestors_photos_allow(tmp_path: Path) -> None:
    """An earlier version wrote no ancestors: the folders of the models before say what they learnt from."""
    mine: dict[str, Any] = {"data": {"name": "/home/me/mine"}}
    values = {
        "mine": mine,
        "further": mine | {"ancestors": [{"name": "tiny-imagenet-200-part"}]},
        "tiny": {"data": {"name": "/data/tiny-imagenet-200"}},
        "on-tiny": mine | {"source": "tiny"},
        "three": mine | {"ancestors": [{"name": "theirs"}, {"name": "tiny-imagenet-200"}]},
        "many": mine | {"ancestors": [{"name": name} for name in ("a", "b", "tiny-imagenet-200")]},
        "both": mine | {"ancestors": [{"name": "mine"}, {"name": "theirs"}]},
    }
    for name, each in values.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / CONFIG, build(each).model_dump(mode="json"))
    uses = {model["name"]: model["use"] for model in Catalogue(tmp_path, tmp_path).all()}
    assert uses.pop("mine") == "For any use that the licence of its training photos (mine) allows."
    assert uses.pop("both") == "For any use that the licence of its training photos (mine, theirs) allows."
    assert uses.pop("tiny") == "For research and private use only: it learnt from Tiny ImageNet."
    assert uses.pop("three").endswith("it learnt from Tiny ImageNet, mine and theirs.")
    assert uses.pop("many").endswith("it learnt from Tiny ImageNet and 3 other data sets.")
    further = "For research and private use only: it learnt from Tiny ImageNet and mine."
    assert set(uses.values()) == {further}
