"""The page in a real browser: Debian's chromium, driven by playwright. Skipped, and said so, where there is none."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom import files, model_folder
from photochrom.evaluation.metrics import DARK, lab
from photochrom.model_folder import ModelFolder
from photochrom.server import Settings
from photochrom.server.photos import PreviewColorizer
from tests.server.talking import Address, listening, make_model, photo

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Address]:
    with listening(settings) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: Address) -> Iterator[Any]:
    """The page, freshly opened; whatever it complains of in the console fails the test."""
    with opened_page(browser, server.url) as page:
        yield page


class opened_page:
    """A page whose console stays silent, and that asks nobody but its own server."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context, self.url = browser.new_context(accept_downloads=True, **options), url
        self.complaints: list[str] = []

    def __enter__(self) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.hear)
        page.on("request", lambda request: self.asked(request.url))
        page.goto(self.url)
        return page

    def hear(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)  # that a request failed is what the page itself tells

    def asked(self, url: str) -> None:
        if not url.startswith((self.url.split("#")[0], "blob:", "data:")):
            self.complaints.append(f"asked for {url}")

    def __exit__(self, *error: object) -> None:
        complaints = list(
            self.complaints
        )  # closing cuts off what is still loading, which Chromium complains of
        self.context.close()
        assert not complaints


def file(content: bytes, name: str = "photo.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Any, *files: dict[str, Any], model: str = "old") -> Any:
    """Choose photos, and answer the first one's entry in the list."""
    page.wait_for_selector("#model option", state="attached")
    page.select_option("#model", model)
    page.set_input_files("#choose", list(files))
    return page.locator("li.photo").first


def finished(entry: Any) -> None:
    entry.locator(".tools").wait_for()
    entry.page.wait_for_selector("li.photo[aria-busy]", state="detached")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Makes every step wait until it is let go."""
    gate = threading.Event()
    chroma = PreviewColorizer.chroma

    def slow(self: Any, y: Any, seeds: Any, options: Any, *, callback: Any, held: Any) -> Any:
        def step(*done: Any) -> None:
            callback(*done)
            gate.wait(20)

        return chroma(self, y, seeds, options, callback=step, held=held)

    monkeypatch.setattr(PreviewColorizer, "chroma", slow)
    yield gate
    gate.set()


def test_a_photo_is_coloured_beside_the_original_with_a_slider(page: Any) -> None:
    entry = choose(page, file(photo((64, 48))))
    finished(entry)
    assert "colourfulness" in entry.locator("figcaption").inner_text()
    assert entry.locator("img.after").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        64,
        48,
    ]
    slider = entry.get_by_role("slider")
    line = entry.locator(".line")
    stage = entry.locator(".stage").bounding_box()
    for key, share in (("Home", 0.0), ("End", 1.0), ("ArrowLeft", 0.99)):
        slider.press(key)
        assert (line.bounding_box()["x"] + 1 - stage["x"]) / stage["width"] == pytest.approx(share, abs=0.01)
    assert slider.get_attribute("aria-valuetext") == "99 % original, 1 % coloured"
    page.mouse.click(stage["x"] + stage["width"] / 4, stage["y"] + 20)
    assert int(slider.input_value()) == pytest.approx(25, abs=1)


def test_the_example_shows_how_it_works(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.get_by_role("button", name="Try an example").click()
    finished(page.locator("li.photo"))
    assert page.locator("li.photo h2").inner_text() == "example.jpg"


def test_two_models_stand_beside_each_other_and_slide_together(page: Any) -> None:
    page.wait_for_selector("#second option[value=new]", state="attached")
    page.select_option("#second", "new")
    entry = choose(page, file(photo()))
    finished(entry)
    assert entry.locator("figcaption b").all_inner_texts() == ["old", "new"]
    first, second = entry.locator("figure").all()
    assert first.bounding_box()["y"] == second.bounding_box()["y"]
    first.get_by_role("slider").press("Home")
    assert second.get_by_role("slider").input_value() == "0"
    pictures = entry.locator("img.after").evaluate_all(
        """images => images.map(image => {
             const canvas = new OffscreenCanvas(16, 16).getContext("2d");
             canvas.drawImage(image, 0, 0);
             return [...canvas.getImageData(0, 0, 16, 16).data].join();
           })"""
    )
    assert pictures[0] != pictures[1]


def test_a_hint_is_drawn_removed_and_coloured_with(
    page: Any, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = choose(page, file(photo((32, 32))))
    finished(entry)
    entry.get_by_role("button", name="Colour hint").click()
    entry.locator("input[type=color]").fill("#20d040")
    box = entry.locator(".stage").bounding_box()
    entry.locator(".stage").click(position={"x": box["width"] * 8.5 / 32, "y": box["height"] * 24.5 / 32})
    assert entry.locator(".hint-list li").inner_text().startswith("8, 24")
    mark = entry.locator(".hint").bounding_box()
    assert (mark["x"] + mark["width"] / 2 - box["x"]) / box["width"] == pytest.approx(8.5 / 32, abs=0.02)
    entry.locator(".cross").press("ArrowRight")  # without a mouse
    entry.locator(".cross").press("Enter")
    assert entry.locator(".hint").count() == 2
    entry.get_by_role("button", name="Remove the hint at 16, 16").click()
    worker = server.app.state.photochrom_service.worker
    asked: list[Any] = []
    submit = worker.submit

    def record(tasks: Any) -> None:
        asked.extend(tasks)
        submit(tasks)

    monkeypatch.setattr(worker, "submit", record)
    entry.get_by_role("button", name="Colour again").click()
    finished(entry)
    assert [task.choices.hint for task in asked] == [("8,24,#20d040",)]
    assert entry.locator(".hint").count() == 1


def test_nothing_said_colours_are_calm_and_tell_where_they_guess(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.get_by_label("Show where it is guessing").check()
    assert page.locator("#samples").input_value() == "1"
    entry = choose(page, file(photo()))
    finished(entry)
    assert "what 4 colourings agree on" in entry.locator(".facts").inner_text()
    entry.get_by_text("Guesses").click()
    assert entry.get_by_alt_text("White where the samples disagree").is_visible()
    page.locator("#calm").uncheck()
    assert not page.get_by_label("Show where it is guessing").is_checked()
    entry.get_by_role("button", name="Colour again").click()
    finished(entry)
    assert "seed 0" in entry.locator(".facts").inner_text()


def test_samples_and_where_they_disagree(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.locator("#calm").uncheck()
    page.get_by_label("Show where it is guessing").check()
    assert page.locator("#samples").input_value() == "4"
    assert page.locator("#calm").is_disabled()
    page.locator("#samples").fill("3")
    page.locator("#seed").fill("7")
    entry = choose(page, file(photo()))
    finished(entry)
    assert entry.locator(".samples img").count() == 3
    assert "seed 7" in entry.locator(".facts").inner_text()
    entry.get_by_role("radio", name="Sample 3, seed 9").check(force=True)
    assert "seed 9" in entry.locator(".facts").inner_text()
    entry.get_by_text("Guesses").click()
    assert entry.get_by_alt_text("White where the samples disagree").is_visible()


def test_the_dark_view_counts_as_the_evaluation_does(page: Any, server: Address) -> None:
    """The page's own arithmetic against scikit-image's, on a photo with every kind of dark."""
    pixels = np.random.default_rng(3).integers(0, 70, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L").save(buffer, "PNG")
    gray = buffer.getvalue()
    entry = choose(page, file(gray))
    finished(entry)
    entry.get_by_text("Dark regions").click()
    page.wait_for_selector("canvas[data-dark]")
    canvas = entry.locator("canvas")
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
    assert "has a false colour" in entry.locator(".dark-figure").inner_text()


def test_progress_is_seen_and_can_be_cancelled(page: Any, server: Address, held: threading.Event) -> None:
    entry = choose(page, file(photo()))
    entry.locator(".previewing").wait_for()
    entry.get_by_text("step 1 of 20").wait_for()
    entry.get_by_role("button", name="Cancel").click()
    entry.get_by_text("Cancelled.").wait_for()
    held.set()
    worker = server.app.state.photochrom_service.worker
    while worker._running:
        pass
    entry.get_by_role("button", name="Try again").click()
    finished(entry)


def test_what_goes_wrong_is_said_in_words(page: Any) -> None:
    page.select_option("#second", "new") if page.locator("#second option").count() > 1 else None
    entry = choose(page, file(b"this is text", "notes.jpg"), file(photo()))
    page.get_by_text("This is not a photo that can be read").wait_for()
    assert page.locator("li.photo").count() == 2
    page.locator(".tools").first.wait_for()
    page.get_by_text("1 of 2 coloured, 1 failed").wait_for()
    page.get_by_role("button", name="Remove notes.jpg").click()
    assert entry.locator("h2").inner_text() == "photo.png"


def test_a_busy_server_is_waited_for(browser: Any, settings: Settings, held: threading.Event) -> None:
    with listening(replace(settings, queue_photos=1)) as server, opened_page(browser, server.url) as page:
        choose(page, *(file(photo(seed=n), f"{n}.png") for n in range(3)))
        page.get_by_text("the server is busy, trying again in").first.wait_for()
        held.set()
        page.get_by_text("3 of 3 coloured").wait_for()


def test_one_photo_or_all_are_downloaded(page: Any) -> None:
    entry = choose(page, file(photo(), "one.jpg"), file(photo(seed=1), "one.png"))
    page.get_by_text("2 of 2 coloured").wait_for()
    with page.expect_download() as single:
        entry.get_by_role("link", name="Download").click()
    assert single.value.suggested_filename == "one-old.png"
    assert Image.open(single.value.path()).size == (16, 16)
    with page.expect_download() as everything:
        page.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(everything.value.path()) as archive:
        assert sorted(archive.namelist()) == ["one-old (2).png", "one-old.png"]
        assert archive.testzip() is None


def test_photos_are_dropped_and_pasted(page: Any) -> None:
    page.wait_for_selector("#model option", state="attached")
    page.evaluate(
        """async bytes => {
             for (const kind of ["drop", "paste"]) {
               const data = new DataTransfer();
               data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, {type: "image/png"}));
               document.body.dispatchEvent(kind === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true})
                 : new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
             }
           }""",
        list(photo()),
    )
    page.get_by_text("2 of 2 coloured").wait_for()
    assert page.locator("li.photo h2").all_inner_texts() == ["paste.png", "drop.png"]


def test_a_training_is_followed_live(
    browser: Any, settings: Settings, tmp_path: Path, new_values: Callable[[], Any]
) -> None:
    folder = ModelFolder(tmp_path / "growing")
    make_model(folder, new_values())
    (folder / ".trainer").write_text(str(os.getpid()))
    with (
        listening(replace(settings, models=tmp_path)) as server,
        opened_page(browser, f"{server.url}#models") as page,
    ):
        page.get_by_role("heading", name="growing training").wait_for()
        page.locator("svg[role=img]").first.wait_for()
        label = page.locator("svg[role=img]").first.get_attribute("aria-label")
        assert "training 0.3 at epoch 1, 0.2 at epoch 2" in label
        assert page.locator(".mark").count() == 3  # in each chart, where the stage began
        assert page.locator(".strip img").count() == 2
        records = folder.history
        files.write_json(
            folder / model_folder.HISTORY, [*records, records[-1] | {"epoch": 3, "train_loss": 0.15}]
        )
        page.locator('svg[aria-label*="0.15 at epoch 3"]').wait_for()
        (folder / ".trainer").unlink()
        page.get_by_role("heading", name="growing", exact=True).wait_for()


def test_the_key_is_asked_for(browser: Any, settings: Settings) -> None:
    with (
        listening(replace(settings, api_key="sésame; ouvre")) as server,
        opened_page(browser, server.url) as page,
    ):
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        page.get_by_role("textbox", name="Key").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        dialog.wait_for()
        page.get_by_role("textbox", name="Key").fill("sésame; ouvre")
        page.get_by_role("button", name="Go on").click()
        finished(choose(page, file(photo())))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Any, server: Address, scheme: str) -> None:
    options = {
        "viewport": {"width": 360, "height": 740},
        "color_scheme": scheme,
        "has_touch": True,
        "is_mobile": True,
    }
    with opened_page(browser, server.url, **options) as page:
        page.select_option("#second", "new") if page.locator("#second option[value=new]").count() else None
        finished(choose(page, file(photo((200, 60)), f"{'a-long-name-' * 9}.png")))
        assert page.get_by_text("Take a photo").is_visible()
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) == 360
        page.goto(f"{server.url}#models/old")
        page.locator("svg[role=img]").first.wait_for()
        assert page.evaluate(width) == 360


def test_everything_can_be_reached_with_the_keyboard(page: Any) -> None:
    finished(choose(page, file(photo())))
    names = []
    page.locator("body").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "() => { const e = document.activeElement; "
                "return (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.id).split('\\n')[0].trim(); }"
            )
        )
    for wanted in ("To the content", "Models", "Choose photos", "Model", "Compare with", "Another seed", "Colour again",
                   "How much of the original is seen", "Download", "Colour hint", "Remove photo.png"):  # fmt: skip
        assert any(name.startswith(wanted) for name in names), f"{wanted}: {json.dumps(names)}"
