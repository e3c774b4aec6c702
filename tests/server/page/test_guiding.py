"""What a person knows: hints, what stays gray, and a reference."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.server.page.browsing import PIXELS, choose, file, gradient, results, shown
from tests.server.talking import photo


def test_hints_are_placed_named_moved_removed_and_used(page: Any, asked: list[Any]) -> None:
    choose(page, file(gradient()))
    results(page)
    page.get_by_role("button", name="Colour hints").click()
    box = page.locator(".after .sheet").bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + box["width"] * x / 48, box["y"] + box["height"] * y / 32

    page.mouse.click(*at(40.5, 5.5))
    dialog = page.get_by_role("dialog", name="Colour of this place")
    names = dialog.locator(".swatches button").all_inner_texts()
    assert names.index("sky") < names.index("brown hair")  # it is a bright place
    for patch in dialog.locator(".patch").all():
        r, g, b = (int(n) for n in patch.evaluate("e => e.style.backgroundColor").strip("rgb()").split(","))
        assert 0.299 * r + 0.587 * g + 0.114 * b == pytest.approx(255 * 40 / 47, abs=3)  # of that brightness
    dialog.get_by_role("button", name="sky").click()
    assert page.locator("#hints li").inner_text().startswith("sky, upper right")
    page.mouse.move(*at(40.5, 5.5))
    page.mouse.down()
    page.mouse.move(*at(20.5, 20.5), steps=3)
    page.mouse.up()
    mark = page.get_by_role("button", name="Hint: sky, middle")
    mark.press("ArrowRight")  # without a mouse
    mark.press("ArrowRight")
    page.get_by_role("button", name="Place a hint in the middle").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove the hint as it is, middle").click()
    page.get_by_role("button", name="Colour with this").click()
    results(page, 2)
    (hint,) = asked[1][0].hint
    x, y, sky = hint.split(",")
    assert (int(x), int(y)) == (22, 20)
    assert int(sky[5:7], 16) > int(sky[1:3], 16) + 20  # it is blue
    assert page.locator(".hint").count() == 1


def test_what_is_painted_stays_gray_and_a_reference_is_followed(page: Any, asked: list[Any]) -> None:
    choose(page, file(photo((40, 40))))
    results(page)
    page.get_by_role("button", name="Keep gray").click()
    box = page.locator(".after .sheet").bounding_box()
    page.locator("#brush").fill("30")
    page.mouse.move(box["x"], box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 4, steps=4)
    page.mouse.up()
    page.locator("#like").set_input_files(file(photo((20, 20), 3, "RGB"), "flag.png"))
    assert page.locator("#like-shown span").inner_text() == "like flag.png"
    page.get_by_role("button", name="Colour with this").click()
    results(page, 2)
    guides = asked[1][1]
    mask = np.asarray(Image.open(io.BytesIO(guides.keep_gray)).convert("L"))
    assert mask[8:12].min() > 250
    assert mask[20:].max() == 0
    assert guides.like == photo((20, 20), 3, "RGB")
    saturation = np.ptp(shown(page), axis=2)
    assert saturation[8:12].max() <= 1
    assert saturation[25:].max() > 20
    page.get_by_role("link", name="All photos").click()
    page.locator("#photos a").click()
    page.get_by_role("button", name="Keep gray").click()
    painted = page.locator(".mask")
    while np.array(painted.evaluate(PIXELS))[3::4].mean() < 25:  # it is still there
        pass
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Do not match this photo").click()
    assert page.locator("#with-this").is_hidden()


def test_so_many_hints_as_the_server_takes(page: Any) -> None:
    choose(page, file(photo((32, 32))))
    results(page)
    page.get_by_role("button", name="Colour hints").click()
    for _ in range(65):
        page.locator("#hint-middle").dispatch_event("click")
    page.get_by_text("64 hints are the most that the server accepts").wait_for()
    assert page.locator(".hint").count() == 64
