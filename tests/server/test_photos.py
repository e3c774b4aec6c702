"""Uploaded photos: which are read, and what is measured on them."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from photochrom.server.photos import read_upright
from photochrom.server.problems import Problem
from tests.make_odd_files import Odd, header_only, odd_files
from tests.server.talking import (
    opened,
    photo,
    problem,
    send,
    until,
)
from tests.test_fuzz import broken, fuzz, photos

BAD_PHOTOS = {
    "text": (b"this is no photo", 415, "not a photo"),
    "nothing": (b"", 415, "not a photo"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", 415, "not a photo"),
    "svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>", 415, "not a photo"
    ),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a photo"),
    "only a header's beginning": (photo()[:20], 415, "not a photo"),
    "cut short": (photo((64, 64), format="JPEG")[:-900], 422, "broken inside, or cut short"),
    "empty inside": (header_only(16, 16), 422, "broken inside, or cut short"),
    "too many pixels": (header_only(700, 600), 413, "more than 0.4 megapixels"),
    "a bomb": (header_only(60_000, 60_000), 413, "more than 0.4 megapixels"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/api/colorize", "/api/jobs"])
@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_a_bad_photo_is_refused(client: TestClient, name: str, path: str) -> None:
    content, status, words = BAD_PHOTOS[name]
    response = client.post(
        path, files=[("photo", ("photo.png", content))], data={"model": "old", "steps": "3"}
    )
    if path == "/api/jobs" and status == 422:  # found when it is decoded, which a job does later
        assert response.status_code == 202
        place = response.headers["location"]
        until(lambda: client.get(place).json()["state"] == "failed")
        assert words in client.get(place).json()["tasks"][0]["problem"]["detail"]
    else:
        assert words in problem(response, status)


def test_every_odd_photo_is_coloured_or_refused(client: TestClient) -> None:
    """Whether what is coloured is right, tests/test_odd_files.py says."""

    def fate(odd: Odd) -> int:
        answer = send(client, odd.content, steps="1", format="jpeg" if odd.name < "m" else "png")
        wanted = (413, 415, 422) if odd.refused else (200,)
        assert answer.status_code in wanted, f"{odd.name}: {answer.text[:300]}"
        if answer.status_code == 200:
            opened(answer.content).load()
        elif answer.status_code == 422:
            with pytest.raises(Problem, match="broken inside"):  # as a reference or a mask
                read_upright(odd.content, 400_000)
        return int(answer.status_code)

    with ThreadPoolExecutor(8) as clients:
        fates = Counter(clients.map(fate, odd_files()))
    assert fates[200] > 200


@pytest.mark.fault("broken photo, sent to the server", "")
def test_every_broken_photo_is_coloured_or_refused(
    client: TestClient, record_property: Callable[[str, object], None]
) -> None:
    def check(content: bytes) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = send(client, content, steps="1")
        assert answer.status_code in (200, 413, 415, 422), answer.text
        return "coloured" if answer.status_code == 200 else f"refused with {answer.status_code}"

    fuzz(broken(photos()), check, record_property)


def test_measures_are_those_of_the_picture(client: TestClient) -> None:
    """Half of the photo is black: there no colour is legal. The rest is light."""
    pixels = np.full((16, 16), 180, dtype=np.uint8)
    pixels[:8] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (measures,) = send(client, buffer.getvalue(), format="json").json()["measures"]
    assert (measures["dark_share"], measures["dark_chroma"], measures["false_color"]) == (0.5, 0.0, 0.0)
    assert measures["colorfulness"] > 0
