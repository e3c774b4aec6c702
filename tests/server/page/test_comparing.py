"""Several photos, several models, guesses and dark regions."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom.evaluation.metrics import DARK, lab
from tests.server.page.browsing import PIXELS, choose, file, results
from tests.server.talking import Address, photo


def test_many_photos_stand_in_order_each_with_its_state(page: Any) -> None:
    choose(page, file(photo(), "one.png"), file(b"text", "notes.jpg"), file(photo(seed=1), "two.png"))
    page.get_by_text("2 of 3 coloured").wait_for()
    tiles = page.locator("#photos li")
    assert tiles.locator(".name").all_inner_texts() == ["one.png", "notes.jpg", "two.png"]
    assert [tile.get_attribute("data-state") for tile in tiles.all()] == ["done", "failed", "done"]
    page.get_by_role("button", name="1 failed").click()
    assert "notes.jpg" in page.evaluate("document.activeElement.innerText")
    assert "not a photo that can be read" in tiles.nth(1).inner_text()
    page.get_by_role("button", name="Remove notes.jpg").click()
    page.get_by_text("2 of 2 coloured").wait_for()
    tiles.first.locator("a").click()
    page.locator("#place:text-is('1 of 2')").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="two.png").wait_for()
    assert page.get_by_role("button", name="Next photo").is_disabled()
    page.go_back()
    page.get_by_role("heading", name="one.png").wait_for()


def test_what_is_done_can_be_opened_while_others_wait(
    page: Any, held: threading.Event, server: Address
) -> None:
    choose(page, *(file(photo((16 + 8 * n, 16), seed=n), f"{n}.png") for n in range(6)), kind="1")
    page.get_by_text("waiting", exact=True).first.wait_for()
    page.locator("#photos li").nth(5).locator("a").click()
    page.locator("#stage .progress").wait_for()
    page.get_by_role("link", name="All photos").click()
    page.get_by_role("button", name="Cancel all").click()
    page.get_by_text("0 of 6 coloured").wait_for()
    assert [t.get_attribute("data-state") for t in page.locator("#photos li").all()] == ["cancelled"] * 6
    held.set()
    page.get_by_role("button", name="Colour all again").click()
    page.get_by_text("6 of 6 coloured").wait_for()


def test_two_models_are_compared_by_the_line_each_with_its_own_time(page: Any) -> None:
    page.wait_for_selector("#second option[value=new]", state="attached")
    page.get_by_text("More", exact=True).click()
    page.select_option("#second", "new")
    choose(page, file(photo()))
    small = results(page, 2)
    tags = page.locator("#stage > .tag").all_inner_texts()
    assert [tag.split(" · ")[0] for tag in tags] == ["new", "old"]
    assert all(tag.endswith(" s") for tag in tags)
    left = page.locator(".before img").evaluate(PIXELS)
    assert left != page.locator(".after img").evaluate(PIXELS)
    small.nth(1).click()
    assert page.locator(".after img").evaluate(PIXELS) == left
    page.get_by_label("Left of the line").select_option(label="the photo before")
    assert page.locator("#stage > .tag").all_inner_texts() == ["Before", "Coloured"]


def test_guesses_are_an_overlay_without_asking_before(page: Any, asked: list[Any]) -> None:
    choose(page, file(photo((32, 24))))
    results(page)
    assert "what 4 colourings agree on" in page.locator("#facts").inner_text()
    page.locator("#views").get_by_text("Guesses").click()
    veil = page.get_by_role("img", name="Where colours are guesses")
    veil.wait_for()
    alpha = np.array(veil.evaluate(PIXELS))[3::4]
    assert 0 < alpha.mean() < 215
    assert np.ptp(alpha) > 20
    assert "grayscale" in page.locator(".after img").evaluate("image => getComputedStyle(image).filter")
    assert len(asked) == 1


def test_one_colouring_alone_says_how_to_learn_where_it_guesses(page: Any) -> None:
    choose(page, file(photo()), kind="1")
    results(page)
    page.locator("#views").get_by_text("Guesses").click()
    page.get_by_role("button", name="Draw four").click()
    results(page, 2)
    page.get_by_role("img", name="Where colours are guesses").wait_for()


def test_the_dark_view_counts_as_the_evaluation_does(page: Any, server: Address) -> None:
    """The page's own arithmetic against scikit-image's, on a photo with every kind of dark."""
    pixels = np.random.default_rng(3).integers(0, 70, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L").save(buffer, "PNG")
    gray = buffer.getvalue()
    choose(page, file(gray))
    results(page)
    page.locator("#views").get_by_text("Dark regions").click()
    canvas = page.locator("canvas[data-dark]")
    canvas.wait_for()
    picture = page.request.post(
        f"{server.url}api/colorize",
        multipart={"photo": file(gray), "model": "old", "steps": "20", "average": "4"},
    )
    found = lab(np.asarray(Image.open(io.BytesIO(picture.body())))[None].astype(np.float32) / 255)[0]
    true = lab(np.asarray(Image.open(io.BytesIO(gray)).convert("RGB"))[None].astype(np.float32) / 255)[0]
    dark = true[..., 0] < DARK[1]
    wrong = dark & (np.hypot(found[..., 1], found[..., 2]) > 15)
    assert 0 < wrong.sum() < dark.sum() < dark.size
    assert int(canvas.get_attribute("data-dark")) == pytest.approx(dark.sum(), abs=2)
    assert int(canvas.get_attribute("data-false")) == pytest.approx(wrong.sum(), abs=2)
    assert "has a false colour" in page.locator(".note").inner_text()
