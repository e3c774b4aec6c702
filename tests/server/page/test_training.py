"""The models: a training that is followed live, and models at a glance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from photochrom import files, model_folder
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings
from tests.server.page.browsing import opened_page
from tests.server.talking import listening, make_trained


def test_a_training_is_followed_live_and_nothing_closes(
    browser: Any, settings: Settings, tmp_path: Path, new_values: Callable[[], Any]
) -> None:
    folder = ModelFolder(tmp_path / "growing")
    make_trained(folder, new_values())
    trainer = ExitStack()
    trainer.enter_context(folder.locked())
    with (
        trainer,
        listening(replace(settings, models=tmp_path)) as server,
        opened_page(browser, f"{server.url}#models") as page,
    ):
        page.get_by_role("heading", name="growing training").wait_for()
        page.locator("svg[role=img]").first.wait_for()
        label = page.locator("svg[role=img]").first.get_attribute("aria-label")
        assert "training 0.3 at epoch 1, 0.2 at epoch 2" in label
        for mark in page.locator(".mark").all():  # where a stage began, inside the plot
            assert 52 < float(mark.get_attribute("x1")) < 468
        assert page.locator(".mark").count() == 2
        assert page.get_by_text("gradient ratio").count() == 0
        page.get_by_text("The numbers").click()
        page.locator("#sheet-1").focus()
        records = folder.history
        files.write_json(
            folder / model_folder.HISTORY, [*records, records[-1] | {"epoch": 3, "train_loss": 0.15}]
        )
        page.evaluate(
            back := "window.dispatchEvent(new Event('focus'))"
        )  # sooner than it would look by itself
        page.locator('svg[aria-label*="0.15 at epoch 3"]').wait_for()
        assert page.locator("#numbers").evaluate("details => details.open")
        assert page.evaluate("document.activeElement.id") == "sheet-1"
        shutil.rmtree(folder / "samples")
        trainer.close()
        page.evaluate(back)
        page.get_by_role("heading", name="growing", exact=True).wait_for()
        assert page.get_by_text("Samples by epoch").count() == 0  # no "none yet" where none will come


def test_models_are_compared_at_a_glance(browser: Any, settings: Settings) -> None:
    shipped = Path(model_folder.__file__).parent / "weights"
    with (
        listening(replace(settings, models=shipped)) as server,
        opened_page(browser, f"{server.url}#models") as page,
    ):
        label = page.locator("#glance svg").first.get_attribute("aria-label")
        wanted = json.loads((shipped / "photochrom-v2" / "evaluation.json").read_text())["rows"]["model"]
        row = wanted["ciede2000"]
        assert f"photochrom-v2 {row['value']:.4g}, from {row['low']:.4g} to {row['high']:.4g}" in label
        assert "all gray" in label
        assert page.get_by_text("For research and private use only").count() >= 2
        page.evaluate("location.hash = '#models/photochrom-fast'")
        history = json.loads((shipped / "photochrom-fast" / "training_history.json").read_text())
        epochs = [record["epoch"] for record in history if "perceptual" in record]
        breaks = sum(later != epoch + 1 for epoch, later in pairwise(epochs))
        assert breaks
        perceptual = page.locator('svg[aria-label^="Perceptual"]')
        perceptual.wait_for()
        assert perceptual.locator("polyline.series-0").count() == breaks + 1  # no line through other stages
        assert perceptual.locator(".stage").count() > 1
        for picture in page.locator("svg:has(.stage)").all():
            boxes = sorted(
                (name.bounding_box() for name in picture.locator(".stage").all()), key=lambda box: box["x"]
            )
            assert all(one["x"] + one["width"] <= other["x"] for one, other in pairwise(boxes))


def test_who_has_only_shipped_models_is_told_how_to_train(
    browser: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", settings.models)
    with (
        listening(replace(settings, models=tmp_path)) as server,
        opened_page(browser, f"{server.url}#models") as page,
    ):
        page.get_by_text("Train your own").wait_for()
