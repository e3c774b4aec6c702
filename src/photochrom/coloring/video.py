"""Colouring a film, frame by frame as it streams: one noise for all frames, chroma smoothed along time, the sound kept.

Each frame coloured on its own flickers: other noise, other tints. The same noise makes neighbouring frames alike, and where
luma stands still, chroma may only change slowly: an exponential mean whose rate goes up to 1 where luma moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Options, chosen
from photochrom.coloring.upsampling import View, lay_over
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import write_atomically

SUFFIXES = (".mp4", ".mov", ".mkv", ".m4v", ".avi", ".webm")
WRITTEN_SUFFIX = ".mp4"
ONLY_PHOTOS = ("hints", "keep_gray", "like", "samples", "average", "uncertainty", "truncated")
BATCH = 16  # frames coloured together
RATE = 0.1  # how much of a frame's own chroma is taken where luma stands still
MOVED = 0.3  # of luma in [-1,1]: where it changes as much between frames, chroma is the frame's own


def is_video(path: Path) -> bool:
    """Whether a file's name is a video's."""
    return path.suffix.lower() in SUFFIXES


def refuse_unused(options: Options) -> None:
    """Raise UsageError for an option that a video cannot follow."""
    unused = [name for name in ONLY_PHOTOS if name in options.model_fields_set]
    if unused:
        raise UsageError(f"videos are coloured without {', '.join(unused)}: that is for photos")


def color_video(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    options: Options | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> None:
    """Write `target` (H.264 in MP4, the sound as it is), atomically. Options: see `Options`; not ONLY_PHOTOS.

    progress(frames done, frames in all as the file says, 0 if it does not). Raises UsageError without the package av and for
    an option out of range, PhotochromError for a file that is no video.
    """
    options = chosen(options, changes)
    refuse_unused(options)
    try:
        import av
    except ImportError:
        raise UsageError("videos need another package: pip install 'photochrom[video]'") from None
    try:
        with av.open(str(source)) as given:
            if not given.streams.video:
                raise PhotochromError(f"{source} has no pictures in it")
            total = given.streams.video[0].frames

            def write(file: IO[bytes]) -> None:
                with av.open(file, "w", format="mp4") as made:
                    _copy(given, made, colored)

            def colored(lumas: Iterator[Image.Image]) -> Iterator[Image.Image]:
                steady, done = Steady(), 0
                while group := list(islice(lumas, BATCH)):
                    seen = [colorizer.view(luma, options.detail) for luma in group]
                    y = torch.cat([each.y for each in seen])
                    c = colorizer.chroma(y, [options.seed] * len(group), options)
                    for luma, each, own in zip(group, seen, c.split(1), strict=True):
                        yield lay_over(luma, each, options.strength * steady(each, own))
                        done += 1
                        if progress:
                            progress(done, total)

            write_atomically(target, write)
    except av.FFmpegError as error:
        raise PhotochromError(f"{source} cannot be coloured as a video ({error.strerror})") from error


class Steady:
    """Smooths chroma from frame to frame where luma stands still."""

    def __init__(self) -> None:
        self._before: tuple[Tensor, Tensor] | None = None

    def __call__(self, seen: View, c: Tensor) -> Tensor:
        """The chroma (1,2,h,w) to show, for that of the frame itself."""
        y = F.avg_pool2d(seen.y, seen.scale)
        if self._before is not None:
            before_y, before_c = self._before
            rate = (RATE + (y - before_y).abs() / MOVED).clamp(max=1)
            c = torch.lerp(before_c, c, rate)
        self._before = y, c
        return c


def _copy(given: Any, made: Any, colored: Callable[[Iterator[Image.Image]], Iterator[Image.Image]]) -> None:
    """Put coloured frames, with their times, and the sound, packet by packet, into the new file."""
    import av

    pictures, sounds = given.streams.video[0], given.streams.audio[:1]
    pictures.thread_type = "AUTO"
    width, height = pictures.width // 2 * 2, pictures.height // 2 * 2  # H.264 counts in pairs
    film = made.add_stream("libx264", rate=pictures.average_rate, options={"crf": "18", "preset": "veryfast"})
    film.width, film.height, film.pix_fmt, film.time_base = width, height, "yuv420p", pictures.time_base
    film.codec_context.time_base = pictures.time_base
    sound = made.add_stream_from_template(sounds[0]) if sounds else None
    times: list[int] = []

    def lumas() -> Iterator[Image.Image]:
        for packet in given.demux(pictures, *sounds):
            if packet.stream is pictures:
                for frame in packet.decode():
                    times.append(frame.pts)
                    yield frame.to_image().convert("L").crop((0, 0, width, height))
            elif sound and packet.dts is not None:
                packet.stream = sound
                made.mux(packet)

    for picture in colored(lumas()):
        frame = av.VideoFrame.from_image(picture)
        frame.pts, frame.time_base = times.pop(0), pictures.time_base
        made.mux(film.encode(frame))
    made.mux(film.encode())
