"""Everybody reaches everything: names, contrast, order and keyboard."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.page.browsing import choose, file, opened_page, results
from tests.server.talking import Address, photo


def test_axe_finds_nothing(browser: Any, server: Address) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

    def look_at(page: Any) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = axe.Axe().run(page).response["violations"]
            assert [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]] == []

    with opened_page(browser, server.url) as page:
        page.wait_for_selector("#model option", state="attached")
        page.get_by_text("More", exact=True).click()
        look_at(page)
        choose(page, file(photo(), "one.png"), file(b"text", "two.png"))
        page.get_by_text("1 of 2 coloured").wait_for()
        look_at(page)
        page.locator("#photos a").first.click()
        page.get_by_role("button", name="Colour hints").click()
        page.locator("#hint-middle").click()
        page.locator(".keys summary").click()
        look_at(page)
        page.goto(f"{server.url}#models/old")
        page.locator("svg[role=img]").first.wait_for()
        look_at(page)


def test_sliders_have_names_and_tabs_differ_in_forced_colours(browser: Any, server: Address) -> None:
    with opened_page(browser, server.url, forced_colors="active") as page:
        page.get_by_text("More", exact=True).click()
        assert page.get_by_role("slider", name="Steps").is_visible()
        choose(page, file(photo()))
        results(page)
        assert page.get_by_role("slider", name="Strength").is_visible()
        colours = page.locator("#views span").evaluate_all(
            "all => all.map(one => getComputedStyle(one).backgroundColor)"
        )
        assert colours[0] != colours[1] == colours[2]


def test_everything_is_reached_with_the_keyboard_in_the_order_of_reading(page: Any) -> None:
    choose(page, file(photo()))
    results(page)
    names: list[str] = []
    page.locator("body").focus()
    while names.count("Skip to the content") < 2:
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "() => { const e = document.activeElement; "
                "return (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.id)"
                ".split('\\n')[0].trim(); }"
            )
        )
    places = []
    for wanted in ("Skip to the content", "Models", "Colours", "Fit", "Copy", "Download", "Line between",
                   "Strength",
                   "old, calm", "Four other", "Colour hints", "Keep gray", "Model", "Colour again",
                   "Remove photo", "Keys"):  # fmt: skip
        found = [place for place, name in enumerate(names) if name.startswith(wanted)]
        assert found, f"{wanted}: {json.dumps(names)}"
        places.append(found[0] if wanted != "Model" else names.index("Model"))
    assert places == sorted(places), json.dumps(names)
