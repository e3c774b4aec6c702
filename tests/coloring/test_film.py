"""Films of all kinds: upright, with their shape, times, sound, subtitles and titles; losses are reported.

What a film shows is known from how it was made; ffprobe, where it is installed, is asked as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from photochrom import files
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.film import SUFFIXES, look
from photochrom.coloring.video import color_video
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from tests.coloring.filming import av, decoded, unlearned
from tests.make_odd_files import UPRIGHT
from tests.making import make_model

SIZE, FRAMES = (64, 48), 6


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    """Colours nothing, so that only the way through the file counts."""
    return unlearned(16)


def level(number: int) -> npt.NDArray[np.uint8]:
    """A frame with corners 40, 90, 140, 190 from upper left to lower right, and a bit more each time."""
    corners = np.array([[40, 90], [140, 190]]) + 4 * number
    return corners.repeat(SIZE[1] // 2, 0).repeat(SIZE[0] // 2, 1).astype(np.uint8)


def film(
    path: Path,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sounds: tuple[tuple[str, str], ...] = (),
    rate: int = 10,
    times: tuple[int, ...] = (),
    size: tuple[int, int] = SIZE,
    tags: dict[str, str] | None = None,
    format: str | None = None,
    **context: Any,
) -> Path:
    """A film of FRAMES frames; sounds: (codec, language) of each track."""
    with av.open(str(path), "w", format=format) as made:
        made.metadata.update(tags or {})
        pictures = made.add_stream(codec, rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = *size, pixels
        if times:
            pictures.time_base = pictures.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(pictures.codec_context, name, value)
        tracks = []
        for name, language in sounds:
            track = made.add_stream(
                name, rate=8000 if "alaw" in name or "mulaw" in name else 48000, layout="mono"
            )
            track.metadata["language"] = language
            track.codec_context.bit_rate = 64_000
            tracks.append(track)
        for number in range(FRAMES):
            picture = Image.fromarray(level(number)).resize(size, Image.Resampling.NEAREST).convert("RGB")
            frame = av.VideoFrame.from_image(picture).reformat(format=pixels)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            made.mux(pictures.encode(frame))
        made.mux(pictures.encode())
        for track in tracks:
            rate_ = track.codec_context.sample_rate
            tone = (8000 * np.sin(np.arange(rate_ * FRAMES // rate) * 2000 / rate_)).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            sound.sample_rate = rate_
            made.mux(track.encode(sound))
            made.mux(track.encode())
    return path


def seen(path: Path) -> tuple[list[npt.NDArray[np.int64]], list[float]]:
    """Luma of the frames as they are stored, and their times."""
    frames, times = decoded(path)
    return [np.asarray(frame.convert("L")).astype(int) for frame in frames], times


def probed(path: Path) -> dict[str, Any]:
    """What ffprobe says of a film, or what PyAV says in its words."""
    with av.open(str(path)) as opened:
        picture = opened.streams.video[0]
        context = picture.codec_context
        told: dict[str, Any] = {
            "format": dict(opened.metadata),
            "aspect": picture.sample_aspect_ratio or Fraction(1),
            "colours": tuple(
                int(v) for v in (context.color_primaries, context.color_trc, context.colorspace)
            ),
            "sounds": [(s.codec_context.name, s.metadata.get("language")) for s in opened.streams.audio],
            "subtitles": [
                (s.codec_context.name, s.metadata.get("language")) for s in opened.streams.subtitles
            ],
        }
    if ffprobe := shutil.which("ffprobe"):
        command = [ffprobe, "-v", "error", "-show_streams", "-of", "json", str(path)]
        streams = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
        first = next(stream for stream in streams if stream["codec_type"] == "video")
        names = {1: "bt709", 6: "smpte170m"}
        assert [first[key] for key in ("color_primaries", "color_transfer", "color_space")] == [
            names[number] for number in told["colours"]
        ]
        assert Fraction(first.get("sample_aspect_ratio", "1:1").replace(":", "/")) == told["aspect"]
        assert first["color_range"] == "tv"
    return told


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The film with a, b, c, d of its first track's matrix set. Source: ISO/IEC 14496-12:2015, 8.3.2."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4
    place += 4 + (20 if content[place] == 0 else 32) + 16
    a, b, c, d = (value * 65536 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        *[((1, 0, 0, 1), 1), ((-1, 0, 0, 1), 2), ((-1, 0, 0, -1), 3), ((1, 0, 0, -1), 4)],
        *[((0, 1, 1, 0), 5), ((0, 1, -1, 0), 6), ((0, -1, -1, 0), 7), ((0, -1, 1, 0), 8)],
    ],
)
def test_films_stand_upright(
    colorizer: Colorizer, tmp_path: Path, matrix: tuple[int, int, int, int], orientation: int
) -> None:
    given = turned(film(tmp_path / "a.mp4", sample_aspect_ratio=Fraction(4, 3)), matrix)
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    frames, _ = seen(tmp_path / "b.mp4")
    for number, frame in enumerate(frames):
        expected = UPRIGHT[orientation](level(number).astype(int))
        assert frame.shape == expected.shape
        assert np.abs(frame - expected).mean() < 4
    assert probed(tmp_path / "b.mp4")["aspect"] == (Fraction(3, 4) if orientation > 4 else Fraction(4, 3))
    with av.open(str(tmp_path / "b.mp4")) as made:
        assert next(made.decode(video=0)).rotation == 0


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), 6), ((1280, 32), 1), ((32, 720), 1), ((720, 32), 6)])
def test_colours_are_stored_as_players_expect_and_say_so(
    colorizer: Colorizer, tmp_path: Path, size: tuple[int, int], matrix: int
) -> None:
    given = film(tmp_path / "a.mp4", size=size)
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1, detail=16)
    assert probed(tmp_path / "b.mp4")["colours"] == (1, 1, matrix)


def test_colours_of_hd_come_back_as_they_were_drawn(
    colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = Image.new("RGB", (1280, 32), (200, 40, 30))
    monkeypatch.setattr("photochrom.coloring.video.lay_over", lambda *_: red)
    color_video(colorizer, film(tmp_path / "a.mp4", size=(1280, 32)), tmp_path / "b.mp4", steps=1, detail=16)
    with av.open(str(tmp_path / "b.mp4")) as made:
        y, u, v = (np.asarray(plane).mean() for plane in _planes(next(made.decode(video=0))))
    # ITU-R BT.709-6, item 3: of R'G'B' to Y'CbCr of 8 bits.
    r, g, b = (part / 255 for part in (200, 40, 30))
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    assert (y, u, v) == pytest.approx(
        (16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748), abs=2
    )


def _planes(frame: Any) -> list[npt.NDArray[np.uint8]]:
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        planes.append(rows[:, : plane.width])
    return planes


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels", "sound", "kept"),
    [
        ("avi", "mpeg4", "yuv420p", "pcm_s16le", False), ("avi", "mjpeg", "yuvj420p", "pcm_mulaw", False),
        ("mov", "mjpeg", "yuvj420p", "pcm_s16be", False), ("mov", "libx264", "yuv420p", "pcm_alaw", False),
        ("wmv", "wmv2", "yuv420p", "wmav2", False), ("asf", "msmpeg4", "yuv420p", "wmav1", False),
        ("mpg", "mpeg1video", "yuv420p", "mp2", False), ("vob", "mpeg2video", "yuv420p", "ac3", True),
        ("mts", "libx264", "yuv420p", "ac3", True), ("m2ts", "libx264", "yuv420p", "aac", True),
        ("webm", "libvpx-vp9", "yuv420p", "libopus", True), ("flv", "flv", "yuv420p", "aac", True),
        ("3gp", "mpeg4", "yuv420p", "aac", True), ("mkv", "ffv1", "gray", "libopus", True),
        ("mkv", "ffv1", "yuv420p10le", "libopus", True), ("mkv", "ffv1", "yuva420p", "aac", True),
        ("mp4", "libx264", "yuv444p", "aac", True),
    ],
)  # fmt: skip
def test_every_kind_becomes_a_film(
    colorizer: Colorizer, tmp_path: Path, suffix: str, codec: str, pixels: str, sound: str, kept: bool
) -> None:
    rate = 25 if suffix in ("mpg", "vob") else 10  # MPEG knows few
    try:
        given = film(
            tmp_path / f"a.{suffix}", codec=codec, pixels=pixels, sounds=((sound, "und"),), rate=rate
        )
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot make it: {error}")
    notes = color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    frames, times = seen(tmp_path / "b.mp4")
    assert len(frames) == FRAMES
    for number, frame in enumerate(frames):
        assert frame.shape == SIZE[::-1]
        assert np.abs(frame - level(number)).mean() < 9
    assert np.diff(times) == pytest.approx(1 / rate, abs=0.002)
    ((name, _),) = probed(tmp_path / "b.mp4")["sounds"]
    if not kept:
        assert name == "aac"
        assert any("is stored as AAC" in note for note in notes)
    elif not any("damaged" in note for note in notes):
        assert not notes
    with av.open(str(tmp_path / "b.mp4")) as made:
        heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in made.decode(audio=0)])
    assert np.abs(heard.astype(float)).max() > 0


def test_matroska_keeps_sound_as_it_is(colorizer: Colorizer, tmp_path: Path) -> None:
    given = film(tmp_path / "a.avi", codec="mpeg4", sounds=(("pcm_s16le", "und"),))
    assert color_video(colorizer, given, tmp_path / "b.mkv", steps=1) == ()
    assert probed(tmp_path / "b.mkv")["sounds"][0][0] == "pcm_s16le"


def test_all_sound_tracks_titles_and_dates_are_kept(colorizer: Colorizer, tmp_path: Path) -> None:
    tags = {"title": "Hochzeit", "creation_time": "1999-05-04T12:00:00.000000Z", "comment": "auf Schmalfilm"}
    given = film(tmp_path / "a.mov", sounds=(("aac", "ger"), ("pcm_s16le", "eng")), tags=tags)
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    told = probed(tmp_path / "b.mp4")
    assert {key: told["format"][key] for key in tags} == tags
    assert told["sounds"] == [("aac", "ger"), ("aac", "eng")]


def test_a_day_before_1970_is_kept(colorizer: Colorizer, tmp_path: Path) -> None:
    tags = {"creation_time": "1961-05-04T12:00:00.000000Z"}
    given = film(tmp_path / "a.mkv", tags=tags)
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    assert probed(tmp_path / "b.mp4")["format"]["date"] == tags["creation_time"]


def test_subtitles_are_kept(colorizer: Colorizer, tmp_path: Path) -> None:
    film(tmp_path / "plain.mkv")
    with av.open(str(tmp_path / "plain.mkv")) as plain, av.open(str(tmp_path / "a.mkv"), "w") as made:
        pictures = made.add_stream_from_template(plain.streams.video[0])
        lines = made.add_mux_stream("subrip")
        lines.time_base, lines.metadata["language"] = Fraction(1, 1000), "ger"
        line = av.Packet("Grüß <i>Gott</i>".encode())
        line.stream, line.pts, line.dts, line.duration = lines, 100, 100, 300
        line.time_base = Fraction(1, 1000)
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = pictures
                made.mux(packet)
        made.mux(line)
    for suffix, name in (("mp4", "mov_text"), ("mkv", "srt")):
        target = tmp_path / f"b.{suffix}"
        assert color_video(colorizer, tmp_path / "a.mkv", target, steps=1) == ()
        assert probed(target)["subtitles"] == [(name, "ger")]
        if ffmpeg := shutil.which("ffmpeg"):
            command = [ffmpeg, "-v", "error", "-i", str(target), "-map", "0:s", "-f", "srt", "-"]
            text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
            assert "00:00:00,100 --> 00:00:00,400" in text
            assert "Grüß" in text


def test_times_that_are_not_even_are_kept(colorizer: Colorizer, tmp_path: Path) -> None:
    given = film(tmp_path / "a.mkv", times=(0, 40, 400, 410, 1500, 1700))
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    assert seen(tmp_path / "b.mp4")[1] == pytest.approx([0, 0.04, 0.4, 0.41, 1.5, 1.7], abs=0.002)


def test_odd_sizes_lose_one_row_and_column(colorizer: Colorizer, tmp_path: Path) -> None:
    given = film(tmp_path / "a.mkv", codec="ffv1", pixels="yuv444p", size=(63, 47))
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1)
    assert seen(tmp_path / "b.mp4")[0][0].shape == (46, 62)


def test_the_cover_of_a_film_is_not_the_film(colorizer: Colorizer, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        pytest.skip("ffmpeg is not installed")
    Image.new("L", (32, 32), 200).save(tmp_path / "cover.jpg")
    film(tmp_path / "plain.mp4")
    command = [
        ffmpeg,
        "-v",
        "error",
        "-i",
        "cover.jpg",
        "-i",
        "plain.mp4",
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
    ]
    subprocess.run([*command, "-disposition:v:0", "attached_pic", "a.mp4"], check=True, cwd=tmp_path)
    color_video(colorizer, tmp_path / "a.mp4", tmp_path / "b.mp4", steps=1)
    assert len(seen(tmp_path / "b.mp4")[0]) == FRAMES


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mpg"])
def test_a_film_that_ends_early_is_refused_unless_told_otherwise(
    colorizer: Colorizer, tmp_path: Path, suffix: str
) -> None:
    codec, rate = {"mkv": ("ffv1", 1), "avi": ("mpeg4", 1), "mpg": ("mpeg1video", 25)}[suffix]
    given = film(tmp_path / f"a.{suffix}", codec=codec, rate=rate, size=(640, 480))
    content = given.read_bytes()
    given.write_bytes(content[: len(content) // 2])
    if suffix != "mpg":  # which does not say how long it is
        with pytest.raises(PhotochromError, match=r"ends early, after \d frames: .* --truncated"):
            color_video(colorizer, given, tmp_path / "b.mp4", steps=1, detail=16)
        assert not (tmp_path / "b.mp4").exists()
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1, detail=16, truncated=True)
    frames, _ = seen(tmp_path / "b.mp4")
    assert 1 <= len(frames) < FRAMES


def test_an_mp4_whose_index_comes_first_and_that_ends_early(colorizer: Colorizer, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as made:
        pictures = made.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = *SIZE, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(30):
            frame = Image.fromarray(noise.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))
            made.mux(pictures.encode(av.VideoFrame.from_image(frame)))
        made.mux(pictures.encode())
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(PhotochromError, match=r"ends early, after \d+ frames"):
        color_video(colorizer, tmp_path / "a.mp4", tmp_path / "b.mp4", steps=1)
    color_video(colorizer, tmp_path / "a.mp4", tmp_path / "b.mp4", steps=1, truncated=True)
    assert 5 < len(seen(tmp_path / "b.mp4")[0]) < 30


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no film", bytes(5000), b"#EXTM3U\n#EXTINF:9,\nsecret.mp4\n",
        b"ffconcat version 1.0\nfile secret.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\xff\xff\x7fAVI LIST",
    ],
)  # fmt: skip
def test_what_is_no_film_is_refused_and_opens_nothing_else(
    colorizer: Colorizer, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    film(Path("secret.mp4"))
    for name in ("a.mp4", "a.mkv", "a.m2ts"):
        Path(name).write_bytes(content)
        with pytest.raises(PhotochromError, match=rf"^{name} ") as caught:
            color_video(colorizer, Path(name), Path("b.mp4"), steps=1)
        assert "\n" not in str(caught.value)
        assert not list(Path().glob("*b.mp4*"))  # nor a part of it


def test_names_are_never_addresses(
    colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    film(Path("plain.mp4"))
    for name in (
        "data:a.mp4",
        "http:a.mp4",
        "concat:plain.mp4|plain.mp4",
        "pipe:0.mp4",
        "subfile,,start,0,end,9,,:a.mp4",
    ):
        shutil.copy("plain.mp4", name)
        color_video(colorizer, Path(name), Path("b.mp4"), steps=1)
        assert len(seen(Path("b.mp4"))[0]) == FRAMES


def test_limits_are_those_of_photos(colorizer: Colorizer, tmp_path: Path) -> None:
    given = film(tmp_path / "a.mp4")
    with pytest.raises(
        PhotochromError, match=r"64x48, more than 3,000 pixels: allow them with --max-megapixels"
    ):
        color_video(colorizer, given, tmp_path / "b.mp4", steps=1, max_megapixels=0.003)
    with pytest.raises(UsageError, match=r"videos are written as \.mp4, \.m4v, \.mov, \.mkv, not as b\.avi"):
        color_video(colorizer, given, tmp_path / "b.avi", steps=1)


def test_frames_are_counted_before_they_are_coloured(colorizer: Colorizer, tmp_path: Path) -> None:
    given = film(tmp_path / "a.mkv")  # which does not say how many it has
    told: list[tuple[int, int]] = []
    color_video(colorizer, given, tmp_path / "b.mp4", steps=1, progress=lambda *done: told.append(done))
    assert told == [(number, FRAMES) for number in range(FRAMES + 1)]
    assert look(given, 10_000).frames == FRAMES


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_is_killed_leaves_no_half_film(
    tmp_path: Path,
    new_values: Callable[[], dict[str, Any]],
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = new_values() | {"diffusion": {"timesteps": 1000}}
    make_model(ModelFolder(tmp_path / "models" / "tiny"), slow, 0)
    film(tmp_path / "a.mp4")
    arguments = ["colorize", "a.mp4", "-o", "out", "--models", "models", "--model", "tiny", "--steps", "1000"]
    code = f"from photochrom.commands.cli import main; main({arguments!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/.*.part")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    left = [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".json"]
    assert left == [] or (number == signal.SIGKILL and all(name.endswith(".part") for name in left)), said
    monkeypatch.setattr(files, "LEFT_SECONDS", 0)
    files.remove_leftovers(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))


def test_all_suffixes_are_films() -> None:
    wanted = ".mp4 .mov .mkv .m4v .avi .wmv .3gp .mpg .mts .m2ts .webm .ogv .flv .vob"
    assert set(wanted.split()) <= set(SUFFIXES)
