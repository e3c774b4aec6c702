"""The start of the page, the viewer, and strength that is live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom.diffusion import color
from tests.server.page.browsing import PHONE, choose, file, line, opened_page, results, shown
from tests.server.talking import Address, photo


def test_the_start_shows_what_it_does_and_offers_photos_to_try(browser: Any, server: Address) -> None:
    with opened_page(browser, server.url, reduced_motion="no-preference") as page:
        assert page.locator("h1:visible").inner_text() == "Give black-and-white photos their colours"
        at = "getComputedStyle(document.querySelector('.pair .over')).clipPath"
        before = page.evaluate(at)
        page.locator(".pair .over").evaluate("image => image.decode()")
        while page.evaluate(at) == before:  # it moves
            pass
        page.get_by_role("button", name="Pause").click()
        page.locator(".pair input").fill("20")
        assert page.evaluate(at) == "inset(0px 0px 0px 20%)"
        assert page.locator("#examples img").evaluate_all("all => all.every(one => one.loading)")
        page.get_by_role("button", name="A cup of coffee").click()
        results(page)
        assert page.locator("#photo-name").inner_text() == "coffee.jpg"


def test_what_a_model_is_for_stands_where_it_is_chosen(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.get_by_text("Thorough: 20 steps").wait_for()
    assert "licence of its training photos" in page.locator("#about").inner_text()
    assert not page.locator("#steps").is_visible()
    page.get_by_text("More", exact=True).click()
    assert page.locator("#steps").is_visible()


def test_a_photo_is_coloured_beside_the_one_before_with_a_line_between(page: Any) -> None:
    choose(page, file(photo((64, 48))))
    results(page)
    assert page.locator(".after img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        64,
        48,
    ]
    assert page.locator("#stage > .tag").all_inner_texts() == ["Before", "Coloured"]
    slider = page.get_by_role("slider", name="Line between before and coloured")
    for key, share in (("Home", 0.0), ("End", 1.0), ("ArrowLeft", 0.99)):
        slider.press(key)
        assert line(page) == pytest.approx(share, abs=0.01)
        handle = page.evaluate(
            """() => { const style = getComputedStyle(document.querySelector("#stage > .line"), "::after");
                       return parseFloat(style.left) + parseFloat(style.width) / 2 * 0; }"""
        )
        middle = page.locator("#stage > .line").bounding_box()["x"] + handle
        stage = page.locator("#stage").bounding_box()
        assert stage["x"] + 20 < middle < stage["x"] + stage["width"] - 20  # whole at both ends
    assert slider.get_attribute("aria-valuetext") == "99 % Before, 1 % Coloured"
    box = page.locator(".after .sheet").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 20)
    assert line(page) == pytest.approx(0.25, abs=0.01)


def test_zoom_pan_fit_and_keys(page: Any) -> None:
    choose(page, file(photo((60, 40))))
    results(page)
    stage, sheet = page.locator("#stage").bounding_box(), page.locator(".after .sheet")
    fitted = sheet.bounding_box()
    assert fitted["width"] == pytest.approx(min(stage["width"], 1.5 * stage["height"]), abs=1)
    x, y = stage["x"] + stage["width"] * 0.7, stage["y"] + stage["height"] * 0.4
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    larger = sheet.bounding_box()
    assert larger["width"] > 1.5 * fitted["width"]
    under = [(x - box["x"]) / box["width"] for box in (fitted, larger)]
    assert under[0] == pytest.approx(under[1], abs=0.002)  # the place under the pointer stays there
    page.mouse.down()
    page.mouse.move(x - 50, y + 20)
    page.mouse.up()
    moved = sheet.bounding_box()
    assert (moved["x"] - larger["x"], moved["y"] - larger["y"]) == pytest.approx((-50, 20), abs=0.5)
    page.keyboard.press("1")
    assert sheet.bounding_box()["width"] == pytest.approx(60, abs=0.1)
    page.keyboard.press("0")
    assert sheet.bounding_box() == fitted
    page.keyboard.press("f")
    page.wait_for_selector("#theatre:fullscreen")
    page.keyboard.press("f")
    page.wait_for_selector("#theatre:fullscreen", state="detached")
    page.keyboard.down("b")
    assert page.locator(".after").evaluate("layer => getComputedStyle(layer).visibility") == "hidden"
    page.keyboard.up("b")
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Your photos").wait_for()


@pytest.mark.parametrize("size", [(900, 60), (20, 300)], ids=["panorama", "strip"])
def test_long_photos_are_shown_whole(page: Any, size: tuple[int, int]) -> None:
    choose(page, file(photo(size)), kind="1")
    results(page)
    stage, sheet = page.locator("#stage").bounding_box(), page.locator(".after .sheet").bounding_box()
    assert sheet["width"] / sheet["height"] == pytest.approx(size[0] / size[1], rel=0.01)
    assert sheet["x"] >= stage["x"] - 0.5
    assert sheet["y"] >= stage["y"] - 0.5
    assert sheet["x"] + sheet["width"] <= stage["x"] + stage["width"] + 0.5
    assert sheet["y"] + sheet["height"] <= stage["y"] + stage["height"] + 0.5


def fingers(page: Any) -> Callable[..., None]:
    """Real touches, as the browser gets them from a screen."""
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    return touch


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_pinches_and_wipes(browser: Any, server: Address, scheme: str) -> None:
    with opened_page(browser, server.url, color_scheme=scheme, **PHONE) as page:
        assert page.get_by_text("Take a photo").is_visible()
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) == 390
        choose(page, file(photo((60, 80)), f"{'a-long-name-' * 9}.png"))
        results(page)
        assert page.evaluate(width) == 390
        touch = fingers(page)
        box = page.locator("#stage").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8
        touch("Start", (x, y))
        for step in range(1, 9):
            touch("Move", (x + step, y - 30 * step))
        touch("End")
        page.wait_for_selector("#panel")
        while page.evaluate("scrollY") < 100:
            pass
        assert line(page) == 0.5  # the page scrolled, and the line stayed
        assert page.locator("#toolbar").bounding_box()["y"] == pytest.approx(0, abs=1)  # still in sight
        page.evaluate("scrollTo(0, 0)")
        touch("Start", (x, y))
        for step in range(1, 9):
            touch("Move", (x + 10 * step, y))
        touch("End")
        assert line(page) == pytest.approx(0.5 + 80 / 390, abs=0.08)
        before = page.locator(".after .sheet").bounding_box()["width"]
        touch("Start", (x - 20, y - 90), (x + 20, y - 90))
        for step in range(1, 6):
            touch("Move", (x - 20 - 10 * step, y - 90), (x + 20 + 10 * step, y - 90))
        touch("End")
        assert page.locator(".after .sheet").bounding_box()["width"] > 1.8 * before
        page.goto(f"{server.url}#models/old")
        page.locator("svg[role=img]").first.wait_for()
        assert page.evaluate(width) == 390


def test_strength_is_live_at_fixed_luma_and_downloads_as_seen(
    page: Any, server: Address, asked: list[Any]
) -> None:
    choose(page, file(photo((40, 30), seed=4)))
    results(page)
    made = shown(page)
    y, c = color.from_rgb(torch.from_numpy(made).permute(2, 0, 1)[None].float() / 255)
    for strength in ("0", "0.5", "2"):
        page.locator("#strength").fill(strength)
        blended = shown(page)
        wanted = color.into_gamut(color.to_rgb(y, float(strength) * c), y)[0]
        assert np.abs(blended - 255 * wanted.permute(1, 2, 0).numpy()).max() < 1.5  # as colourings are made
    assert len(asked) == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "photo-coloured.png"
    assert (np.asarray(Image.open(download.value.path()))[..., :3] == blended).all()


def test_earlier_results_stay_to_go_back_to(page: Any, asked: list[Any]) -> None:
    choose(page, file(photo()))
    results(page)
    first = shown(page)
    page.get_by_role("button", name="Four other colourings").click()
    small = results(page, 5)
    assert small.all_inner_texts() == ["old, calm", *(f"old, seed {seed}" for seed in range(4))]
    assert asked[1][0].samples == 4
    small.nth(3).click()
    assert small.nth(3).get_attribute("aria-pressed") == "true"
    assert (shown(page) != first).any()
    small.first.click()
    assert (shown(page) == first).all()
    page.get_by_role("button", name="Four other colourings").click()
    assert results(page, 9).last.inner_text() == "old, seed 7"
