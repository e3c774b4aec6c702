"""The page in a real browser, Debian's chromium driven by playwright: opening it, choosing, and looking."""

from __future__ import annotations

import io
import os
import shutil
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PIXELS = """image => {
  const size = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
  const canvas = new OffscreenCanvas(...size).getContext("2d");
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(0, 0, canvas.canvas.width, canvas.canvas.height).data];
}"""


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
        # Closing cuts off what is still loading, which Chromium complains of.
        complaints = list(self.complaints)
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
    size = page.locator(".after img").evaluate(
        "async image => (await image.decode(), [image.naturalHeight, image.naturalWidth, 4])"
    )
    seen = page.locator(".after .sheet > :last-child:not([hidden]), .after .sheet:has(canvas[hidden]) > img")
    return np.array(seen.evaluate(PIXELS)).reshape(size)[..., :3]


def line(page: Any) -> float:
    """Where the line is, as a share of the photo's width."""
    box = page.locator(".after .sheet").bounding_box()
    place = page.locator("#stage > .line").bounding_box()
    return float((place["x"] + 1 - box["x"]) / box["width"])
