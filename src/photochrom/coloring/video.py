"""Colours a film frame by frame, as a stream, without flicker.

Frames coloured independently flicker, because other noise gives other tints. So all frames share one noise,
and chroma is smoothed over time by an exponential mean. Its rate is low where luma stands still and rises to
1 where luma moves.
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
RATE = 0.1  # share of a frame's own chroma where luma stands still
MOVED = 0.3  # change of luma in [-1,1] between frames that adds 1 to this share


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video."""
    return path.suffix.lower() in film.SUFFIXES


def refuse_unused(options: Options) -> None:
    """Raise UsageError for an option that only photos have."""
    unused = [name for name in ONLY_PHOTOS if name in options.model_fields_set]
    if unused:
        raise UsageError(f"videos cannot use {', '.join(unused)}: leave it out; it is for photos")


def color_video(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    options: Options | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> tuple[str, ...]:
    """Colour the film `source` and write `target` atomically, in H.264. Returns notes for the user.

    The suffix of target selects one of `film.FORMATS`. Sound that this format cannot hold becomes AAC; other
    streams are kept if it can hold them. options: all but ONLY_PHOTOS. progress(frames done, all frames).

    Raises UsageError if the package av is missing or an option does not fit, and PhotochromError for a file
    that is no video, or that ends early unless `truncated` is set.
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
                f"{source} ends early, after {seen.frames:,} frames: colour what is left with --truncated"
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
    except Exception as error:  # a broken film makes FFmpeg raise a dozen types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise PhotochromError(f"{source} cannot be coloured as a video ({reason})") from error
    return notes


class Steady:
    """Smooths chroma from frame to frame where luma stands still."""

    def __init__(self) -> None:
        self._before: tuple[Tensor, Tensor] | None = None

    def __call__(self, seen: View, c: Tensor) -> Tensor:
        """Smooth the chroma c (1,2,h,w) of the next frame."""
        y = F.avg_pool2d(seen.y, seen.scale)
        if self._before is not None:
            before_y, before_c = self._before
            rate = (RATE + (y - before_y).abs() / MOVED).clamp(max=1)
            c = torch.lerp(before_c, c, rate)
        self._before = y, c
        return c
