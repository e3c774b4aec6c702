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

from photochrom.coloring import film
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Options, chosen
from photochrom.coloring.upsampling import View, lay_over
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import remove_leftovers, write_atomically

ONLY_PHOTOS = ("hints", "keep_gray", "like", "samples", "average", "uncertainty")
BATCH = 16  # frames coloured together
RATE = 0.1  # how much of a frame's own chroma is taken where luma stands still
MOVED = 0.3  # of luma in [-1,1]: where it changes as much between frames, chroma is the frame's own


def is_video(path: Path) -> bool:
    """Whether a file's name is a video's."""
    return path.suffix.lower() in film.SUFFIXES


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
) -> tuple[str, ...]:
    """Write `target`, atomically, in H.264; returns what a person should know. Options: see `Options`; not ONLY_PHOTOS.

    The suffix of target says which of `film.FORMATS` it is. Sound that the format cannot hold becomes AAC; all else that it can hold
    is kept. progress(frames done, frames in all). Raises UsageError without the package av and for an option out
    of range, PhotochromError for a file that is no video, and for one that ends early, unless options say truncated.
    """
    options = chosen(options, changes)
    refuse_unused(options)
    format = film.FORMATS.get(target.suffix.lower())
    if format is None:
        raise UsageError(f"videos are written as {', '.join(film.FORMATS)}, not as {target.name}")
    notes: tuple[str, ...] = ()
    try:
        seen = film.look(source, int(options.max_megapixels * 1e6))
        if seen.early and not options.truncated:
            raise PhotochromError(
                f"{source} ends early, after {seen.frames:,} frames: colour what there is with --truncated"
            )

        if progress:
            progress(0, seen.frames)

        def colored(lumas: Iterator[Image.Image]) -> Iterator[Image.Image]:
            steady, done = Steady(), 0
            while group := list(islice(lumas, BATCH)):
                views = [colorizer.view(luma, options.detail) for luma in group]
                y = torch.cat([each.y for each in views])
                c = colorizer.chroma(y, [options.seed] * len(group), options)
                for luma, each, own in zip(group, views, c.split(1), strict=True):
                    yield lay_over(luma, each, options.strength * steady(each, own))
                    done += 1
                    if progress:
                        progress(done, max(done, seen.frames))

        def write(file: IO[bytes]) -> None:
            nonlocal notes
            notes = film.rewrite(source, seen, file, format, colored)

        remove_leftovers(target.parent)
        write_atomically(target, write)
    except (PhotochromError, MemoryError):
        raise
    except Exception as error:  # broken bytes make FFmpeg raise a dozen types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise PhotochromError(f"{source} cannot be coloured as a video ({reason})") from error
    return notes


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
