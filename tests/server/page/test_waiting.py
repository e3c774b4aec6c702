"""Progress and trouble: a busy server, one that goes, and one that asks for a key."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from photochrom.server import Settings
from tests.server.page.browsing import choose, file, opened_page, results
from tests.server.talking import Address, listening, photo


def test_progress_is_true_and_can_be_cancelled(page: Any, server: Address, held: threading.Event) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.get_by_text("More", exact=True).click()
    page.locator("#steps").fill("4")
    choose(page, file(photo((16, 90))))
    page.locator(".previewing").wait_for()
    said = page.locator("#stage .progress span")
    page.locator("#stage").get_by_text(
        "old: step 1 of 4, 1 s"
    ).wait_for()  # the seconds go on while a step takes long
    assert page.locator("#stage progress").evaluate("bar => bar.value") == pytest.approx(0.25)
    page.locator("#stage").get_by_text("old: step 1 of 4, 2 s").wait_for()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_text("Cancelled. Colour again when you like.").wait_for()
    assert not said.is_visible()
    held.set()
    page.get_by_role("button", name="Try again").click()
    results(page)


def test_a_busy_server_is_waited_for(browser: Any, settings: Settings, held: threading.Event) -> None:
    with listening(replace(settings, queue_photos=1)) as server, opened_page(browser, server.url) as page:
        choose(page, *(file(photo(seed=n), f"{n}.png") for n in range(3)))
        page.get_by_text("the server is busy: trying again in").first.wait_for()
        held.set()
        page.get_by_text("3 of 3 coloured").wait_for()


def test_a_server_that_goes_is_told_of_and_waited_for(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.route("**/api/**", lambda route: route.abort("connectionrefused"))
    choose(page, file(photo()))
    page.locator("#problem").get_by_text("Start it again with photochrom serve").wait_for()
    page.unroute("**/api/**")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    results(page)  # without a hand


def test_the_key_is_asked_for_and_a_wrong_one_is_told(browser: Any, settings: Settings) -> None:
    with (
        listening(replace(settings, api_key="sésame; ouvre")) as server,
        opened_page(browser, server.url) as page,
    ):
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        dialog.wait_for()
        page.get_by_role("button", name="Later").click()
        page.get_by_role("button", name="Give the key").click()
        page.get_by_role("textbox", name="Key").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        dialog.get_by_text("That key is wrong").wait_for()
        page.get_by_role("textbox", name="Key").fill("sésame; ouvre")
        page.get_by_role("button", name="Go on").click()
        choose(page, file(photo()))
        results(page)
