"""Uploaded photos: which are read, and what is measured on them."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.server.talking import (
    header_only,
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
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>", 415, "not a photo"),
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


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A gray TIFF of 16x16 with further tags: (tag, type, count, value or offset); behind them lie 16 zero bytes."""
    entries = [
        *((256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((277, 3, 1, 1), (278, 3, 1, 16), (279, 4, 1, 256)),
    ]
    zeros = 8 + 2 + 12 * (len(entries) + 1 + len(tags)) + 4
    entries += [(273, 4, 1, zeros + 16), *((tag, kind, count, zeros) for tag, kind, count, _ in tags)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4 + 16) + bytes(range(256))


def jpeg2000(numerator: int, denominator: int) -> bytes:
    """A photo that says how fine it is, in dots per metre."""
    content = photo((16, 16), mode="RGB", format="JPEG2000")
    place = content.index(b"colr") - 4
    fraction = struct.pack(">HHHHbb", numerator, denominator, numerator, denominator, 127, 127)
    resolution = struct.pack(">I4s", 26, b"res ") + struct.pack(">I4s", 18, b"resc") + fraction
    header = content.index(b"jp2h") - 4
    length = struct.unpack(">I", content[header : header + 4])[0] + len(resolution)
    return (
        content[:header]
        + struct.pack(">I", length)
        + content[header + 4 : place]
        + resolution
        + content[place:]
    )


def odd_photos() -> dict[str, bytes]:
    """Every kind of sample in every format that takes it, and metadata that lie."""
    found = {}
    for mode, format in itertools.product(MODES, FORMATS):
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
            Image.new(mode, (16, 16)).save(buffer, format)
            found[f"{mode} {format}"] = buffer.getvalue()
    for name, options in (
        ("density 0", {"dpi": (0, 0)}),
        ("no exif", {"exif": b"Exif\0\0no exif"}),
        ("no profile", {"icc_profile": b"no profile"}),
        ("no profile of RGB", {"icc_profile": bytes(16) + b"RGB " + bytes(200)}),
        ("frames", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
    ):
        for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"):
            buffer = io.BytesIO()
            with contextlib.suppress(OSError, ValueError, SyntaxError, KeyError, RuntimeError, ZeroDivisionError):
                Image.new("RGB", (16, 16)).save(buffer, format, **options)
                found[f"{format} with {name}"] = buffer.getvalue()
    return found | {
        "TIFF with resolution 0/0": tiff((282, 5, 1, 0), (283, 5, 1, 0), (296, 3, 1, 2)),
        "TIFF with a huge tag": tiff((270, 2, 2**31, 0)),
        "TIFF with an EXIF table that is none": tiff((34665, 4, 1, 0)),
        "JPEG 2000 of enormous resolution": jpeg2000(65535, 1),
        "JPEG 2000 of resolution 1/0": jpeg2000(1, 0),
        "one pixel": photo((1, 1)),
        "a line": photo((2000, 1)),
        "a column": photo((1, 2000)),
    }


@pytest.mark.filterwarnings("ignore")  # Pillow's, of files that it writes and reads
def test_every_odd_photo_is_coloured_or_refused(client: TestClient) -> None:
    photos = odd_photos()
    assert len(photos) > 80
    fates = Counter[str]()
    for name, content in photos.items():
        for format in ("png", "jpeg"):
            answer = send(client, content, steps="1", format=format)
            assert answer.status_code in (200, 415, 422), f"{name}: {answer.text}"
            if answer.status_code == 200:
                opened(answer.content).load()
            fates[str(answer.status_code)] += 1
        files = [("photo", ("p.png", photo())), ("like", ("l", content)), ("keep_gray", ("k", content))]
        answer = client.post("/api/colorize", files=files, data={"model": "old", "steps": "1"})
        assert answer.status_code in (200, 415, 422), f"{name}: {answer.text}"
    assert fates["200"] > 150


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
