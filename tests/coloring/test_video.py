"""A film keeps its size, length, times and sound, and flickers less than frames coloured one by one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.video import color_video
from photochrom.errors import UsageError
from tests.coloring.filming import av, decoded, unlearned

SIZE, FRAMES = (64, 48), 20


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    """Not trained, but its colours depend on luma and noise."""
    return unlearned(32, last=0.1)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A square that moves over a still ground with the grain of film, and a tone."""
    with av.open(str(tmp_path / "clip.mp4"), "w") as made:
        film = made.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = *SIZE, "yuv420p"
        sound = made.add_stream("aac", rate=8000)
        random = np.random.default_rng(0)
        ground = np.asarray(
            Image.fromarray(random.integers(60, 200, (6, 8), dtype=np.uint8)).resize(SIZE)
        ).astype(int)
        for number in range(FRAMES):
            picture = ground + random.integers(-4, 5, ground.shape)
            picture[20:30, number * 2 : number * 2 + 10] = 230
            rgb = np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            made.mux(film.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        tone = np.sin(np.arange(6400) / 8)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        made.mux(sound.encode(frame))
        made.mux(sound.encode())
        made.mux(film.encode())
    return tmp_path / "clip.mp4"


def frames(path: Path) -> tuple[np.ndarray, list[float]]:
    pictures, times = decoded(path)
    return np.stack([np.asarray(picture.convert("YCbCr")).astype(float) for picture in pictures]), times


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(audio=0) if packet.size]


def test_size_times_luma_and_sound_are_kept(colorizer: Colorizer, clip: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    color_video(colorizer, clip, tmp_path / "out.mp4", steps=2, progress=lambda *done: seen.append(done))
    (before, times), (after, new_times) = frames(clip), frames(tmp_path / "out.mp4")
    assert after.shape == before.shape
    assert new_times == pytest.approx(times)
    assert np.abs(after[..., 0] - before[..., 0]).mean() < 4  # H.264 twice
    assert np.abs(after[..., 1:] - 128).mean() > 2
    assert sound_of(tmp_path / "out.mp4") == sound_of(clip)
    assert seen == [(number, FRAMES) for number in range(FRAMES + 1)]


def test_it_flickers_less_than_frames_on_their_own(colorizer: Colorizer, clip: Path, tmp_path: Path) -> None:
    color_video(colorizer, clip, tmp_path / "out.mp4", steps=4)
    alone = colorizer([frame.convert("L") for frame in decoded(clip)[0]], steps=4)
    singly = np.stack([np.asarray(picture.convert("YCbCr")).astype(float) for picture in alone])

    def flicker(film: np.ndarray) -> float:
        return float(np.abs(np.diff(film[:, :16, :, 1:], axis=0)).mean())  # where nothing moves

    assert flicker(frames(tmp_path / "out.mp4")[0]) < 0.3 * flicker(singly)


@pytest.mark.parametrize(
    "wrong", [{"strength": -1.0}, {"strength": float("nan")}, {"detail": -8}, {"steps": 0}]
)
def test_options_out_of_range_are_refused_as_for_photos(
    colorizer: Colorizer, clip: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=name):
        color_video(colorizer, clip, tmp_path / "out.mp4", **wrong)
    assert not (tmp_path / "out.mp4").exists()
