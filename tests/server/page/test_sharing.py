"""Into the page and out of it: downloads, copies, links, dropped and pasted photos."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from PIL import Image

from tests.server.page.browsing import choose, file, opened_page, results
from tests.server.talking import Address, photo


def test_one_photo_or_all_are_downloaded_under_their_names(page: Any) -> None:
    exif = Image.Exif()
    exif[270] = "Grandmother"
    buffer = io.BytesIO()
    Image.new("L", (20, 30), 90).save(buffer, "JPEG", exif=exif)
    choose(page, file(buffer.getvalue(), "one.jpg"), file(photo(seed=1), "one.png"))
    page.get_by_text("2 of 2 coloured").wait_for()
    page.locator("#photos a").first.click()
    page.locator("#strength").fill("1.5")
    for kind, ending in (("jpeg", "jpg"), ("png", "png")):
        page.select_option("#format", kind)
        with page.expect_download() as single:
            page.get_by_role("button", name="Download", exact=True).click()
        assert single.value.suggested_filename == f"one-coloured.{ending}"
        with Image.open(single.value.path()) as image:
            assert image.format == kind.upper()
            assert image.size == (20, 30)
            assert image.getexif()[270] == "Grandmother"
    page.get_by_role("link", name="All photos").click()
    with page.expect_download() as everything:
        page.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(everything.value.path()) as archive:
        assert archive.namelist() == ["one.png", "one (2).png"]
        assert archive.testzip() is None


def test_a_picture_is_copied(browser: Any, server: Address) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with opened_page(browser, server.url, permissions=rights) as page:
        choose(page, file(photo((24, 16))))
        results(page)
        page.get_by_role("button", name="Copy", exact=True).click()
        page.get_by_text("The picture is on the clipboard.").wait_for()
        size = page.evaluate(
            """async () => { const [item] = await navigator.clipboard.read();
                 const bitmap = await createImageBitmap(await item.getType("image/png"));
                 return [bitmap.width, bitmap.height]; }"""
        )
        assert size == [24, 16]


def test_settings_are_remembered_and_fit_into_a_link(browser: Any, server: Address, asked: list[Any]) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with opened_page(browser, server.url, permissions=rights) as page:
        page.wait_for_selector("#model option[value=old]", state="attached")
        page.select_option("#model", "old")
        page.get_by_text("More", exact=True).click()
        page.locator("#steps").fill("7")
        page.locator("#seed").fill("11")
        page.select_option("#kind", "1")
        page.reload()
        page.wait_for_selector("#model option[value=old]", state="attached")
        assert page.locator("#model").input_value() == "old"
        page.get_by_text("More", exact=True).click()
        assert page.locator("#steps").input_value() == "7"
        page.get_by_role("button", name="Copy a link").click()
        page.get_by_text("The link is on the clipboard.").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
    with opened_page(browser, link) as page:
        page.wait_for_selector("#model option[value=old]", state="attached")
        page.locator("#drop .choose").first.set_input_files(file(photo()))
        assert results(page).inner_text() == "old, seed 11"
        choices = asked[0][0]
        assert (choices.steps, choices.seed, choices.average) == (7, 11, 1)


def test_photos_are_dropped_and_pasted(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.evaluate(
        """async bytes => {
             for (const kind of ["drop", "paste"]) {
               const data = new DataTransfer();
               data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, {type: "image/png"}));
               document.body.dispatchEvent(kind === "drop"
                   ? new DragEvent("drop", {dataTransfer: data, bubbles: true})
                 : new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
             }
           }""",
        list(photo()),
    )
    page.get_by_role("link", name="All photos").click()
    page.get_by_text("2 of 2 coloured").wait_for()
    assert page.locator("#photos .name").all_inner_texts() == ["drop.png", "paste.png"]
