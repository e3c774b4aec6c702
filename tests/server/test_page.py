"""The page in a real browser: Debian's chromium, driven by playwright. Skipped, and said so, where there is none."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom import files, model_folder
from photochrom.diffusion import color
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
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PIXELS = """image => {
  const canvas = new OffscreenCanvas(image.naturalWidth ?? image.width, image.naturalHeight ?? image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(0, 0, canvas.canvas.width, canvas.canvas.height).data];
}"""


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
        options = {"viewport": {"width": 1200, "height": 800}, "reduced_motion": "reduce"} | options
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


def choose(page: Any, *photos: dict[str, Any], model: str = "old", kind: str = "calm") -> None:
    """Choose photos on the start page."""
    page.wait_for_selector("#model option", state="attached")
    page.select_option("#model", model)
    if kind != page.locator("#kind").input_value():
        page.locator("#options summary").click()
        page.select_option("#kind", kind)
    page.locator("#drop .choose").first.set_input_files(list(photos))


def results(page: Any, count: int = 1) -> Any:
    """The small pictures of the results, once there are so many and nothing runs."""
    found = page.locator("#results button")
    found.nth(count - 1).wait_for()
    page.locator("#stage .progress").wait_for(state="hidden")
    return found


def gradient(width: int = 48, height: int = 32) -> bytes:
    """A gray photo from black to white."""
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.linspace(0, 255, width, dtype=np.uint8), (height, 1))).save(buffer, "PNG")
    return buffer.getvalue()


def shown(page: Any) -> np.ndarray:
    """The pixels (H,W,3) of the coloured picture as it is seen, at its own size."""
    size = page.locator(".after img").evaluate("image => [image.naturalHeight, image.naturalWidth, 4]")
    seen = page.locator(".after .sheet > :last-child:not([hidden]), .after .sheet:has(canvas[hidden]) > img")
    return np.array(seen.evaluate(PIXELS)).reshape(size)[..., :3]


def line(page: Any) -> float:
    """Where the line is, as a share of the photo's width."""
    box = page.locator(".after .sheet").bounding_box()
    place = page.locator("#stage > .line").bounding_box()
    return float((place["x"] + 1 - box["x"]) / box["width"])


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


@pytest.fixture
def asked(server: Address, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tasks that the page has the server do."""
    worker, tasks = server.app.state.photochrom_service.worker, []
    submit = worker.submit

    def record(new: Any) -> None:
        tasks.extend([(task.choices, task.guides) for task in new])
        submit(new)

    monkeypatch.setattr(worker, "submit", record)
    return tasks


# 1. The start


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


# 2. The viewer


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


# 3. Strength and history


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


# 4. Many photos


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
    assert page.locator("#place").inner_text() == "1 of 2"
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
    assert page.locator("#stage .progress").is_visible()
    page.get_by_role("link", name="All photos").click()
    page.get_by_role("button", name="Cancel all").click()
    page.get_by_text("0 of 6 coloured").wait_for()
    assert [t.get_attribute("data-state") for t in page.locator("#photos li").all()] == ["cancelled"] * 6
    held.set()
    page.get_by_role("button", name="Colour all again").click()
    page.get_by_text("6 of 6 coloured").wait_for()


# 5. Comparison


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


# 6. Guesses and dark regions


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


# 7. What a person knows


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


# 8. Out of the page


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
                 const bitmap = await createImageBitmap(await item.getType("image/png")); return [bitmap.width, bitmap.height]; }"""
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
               document.body.dispatchEvent(kind === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true})
                 : new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
             }
           }""",
        list(photo()),
    )
    page.get_by_role("link", name="All photos").click()
    page.get_by_text("2 of 2 coloured").wait_for()
    assert page.locator("#photos .name").all_inner_texts() == ["drop.png", "paste.png"]


# 9. Progress and trouble


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


# 10. The models


def test_a_training_is_followed_live_and_nothing_closes(
    browser: Any, settings: Settings, tmp_path: Path, new_values: Callable[[], Any]
) -> None:
    folder = ModelFolder(tmp_path / "growing")
    make_model(folder, new_values())
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


def test_who_has_only_shipped_models_is_told_how_to_train(
    browser: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", settings.models)
    with (
        listening(replace(settings, models=tmp_path)) as server,
        opened_page(browser, f"{server.url}#models") as page,
    ):
        page.get_by_text("Train your own").wait_for()


# 11. Names, order, contrast


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
                "return (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.id).split('\\n')[0].trim(); }"
            )
        )
    places = []
    for wanted in ("Skip to the content", "Models", "Colours", "Fit", "Copy", "Download", "Line between", "Strength", "old, calm",
                   "Four other", "Colour hints", "Keep gray", "Model", "Colour again", "Remove photo", "Keys"):  # fmt: skip
        found = [place for place, name in enumerate(names) if name.startswith(wanted)]
        assert found, f"{wanted}: {json.dumps(names)}"
        places.append(found[0] if wanted != "Model" else names.index("Model"))
    assert places == sorted(places), json.dumps(names)
