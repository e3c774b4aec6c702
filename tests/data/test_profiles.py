"""Colour profiles mean what their formulas say."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from photochrom.data.profiles import Broken, to_srgb
from tests.make_odd_files import RGB, adobe_rgb, encoded, gray_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_profile_of_srgb_changes_nothing_and_is_kept() -> None:
    image = Image.fromarray(RGB)
    assert to_srgb(image, SRGB) == (image, SRGB, None)


@pytest.mark.parametrize("value", [1.0, 1.8, 2.2, 2.6])
def test_gray_becomes_what_its_curve_says(value: float) -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    image, profile, note = to_srgb(Image.fromarray(levels), gray_profile(value))
    assert np.abs(np.asarray(image) - encoded((levels / 255) ** value)).max() <= 1
    assert note == f"its colour profile (Gray gamma {value}) was applied: the result is sRGB"
    assert profile
    assert profile[128:] == SRGB[128:]  # before, there is the day that it was made


def test_a_wide_gamut_becomes_what_its_primaries_say() -> None:
    """Adobe RGB (1998), 4.3.6 and annex C; IEC 61966-2-1 for sRGB. In-gamut colours only."""
    inner = (RGB.astype(int) // 4 + 90).astype(np.uint8)
    image, _, _ = to_srgb(Image.fromarray(inner), adobe_rgb())
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    from_xyz = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    light = (inner / 255.0) ** (563 / 256) @ (from_xyz @ to_xyz).T
    assert np.abs(np.asarray(image) - encoded(light.clip(0, 1))).max() <= 1.5


def test_cmyk_without_a_profile_is_left_to_pillow_and_others_are_refused() -> None:
    image = Image.new("CMYK", (2, 2), (10, 20, 30, 40))
    assert to_srgb(image, None) == (image, None, None)
    assert to_srgb(image, gray_profile(1.0)) == (image, None, None)  # of another kind
    with pytest.raises(Broken):
        to_srgb(Image.fromarray(RGB), adobe_rgb()[:150])


def test_threads_share_a_transform() -> None:
    icc, expected = adobe_rgb(), to_srgb(Image.fromarray(RGB), adobe_rgb())[0]
    wrong: list[int] = []

    def convert(seed: int) -> None:
        for _ in range(30):
            if to_srgb(Image.fromarray(RGB), icc)[0] != expected:
                wrong.append(seed)

    threads = [threading.Thread(target=convert, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_profile_that_comes_back_says_srgb() -> None:
    _, profile, _ = to_srgb(Image.fromarray(RGB), adobe_rgb())
    assert profile
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
