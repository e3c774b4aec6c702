"""A folder of photos of any size, as the photos of an evaluation.

The folder is searched once before colouring. That leaves out gray and broken photos, and photos that lack a
file of one of the other tools, so that all candidates are measured on the same photos.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from photochrom.config import LearntFrom
from photochrom.data.pack import Pack
from photochrom.data.reading import Pixels, is_gray, open_photo
from photochrom.diffusion import color
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.at_full_size import full_size_references, shrunk
from photochrom.evaluation.candidates import APART, Batch, Candidate
from photochrom.evaluation.seen import learnt, still_here
from photochrom.evaluation.tools import Fit, Tool, digest, match, no_doubles, photos_below

SIZE = 256  # pixels; the field measures in squares of this side
EXAMPLES = 3  # names that a message lists
LEARNT_AT = 64  # side in pixels for the comparison with training photos
LONG = 1.1  # longer side over shorter side; up to this, the crop does not matter for look-alikes
TOGETHER = 512  # photos that are compared with training photos at a time
Progress = Callable[[int, int, str], None]  # (done, total, text), counting files


class LeftOut(NamedTuple):
    """A photo that no candidate is measured on, and why."""

    photo: str
    reason: str


class Looked(NamedTuple):
    """A photo that can be measured on, unless a model was trained on it."""

    file: Path
    size: tuple[int, int]
    mean_chroma: npt.NDArray[np.float64]  # (2,)
    squares: Pixels  # (N,64,64,3), see `squares`
    fits: list[Fit]  # one per tool


class Folder:
    """Photos of any size, measured as squares, and other tools' colourings. See `evaluate.Photos`."""

    at_once = 8

    def __init__(
        self,
        folder: Path,
        tools: Mapping[str, Path] | None = None,
        count: int | None = None,
        seed: int = 0,
        at_full: bool = False,
        progress: Progress = lambda done, total, text: None,
        learnt_from: Iterable[LearntFrom] = (),
        data_dir: Path = Path("data"),
    ) -> None:
        """Select photos, and match the files of other tools with them.

        tools: {name of the tool: folder of its files}. count: the first so many photos of a fixed random
        order (None: all). seed: of the colourings. at_full: measure at the photos' own size too. learnt_from:
        data sets of training; photos that look like their training photos are left out, if the data set is in
        `data_dir`.

        Raises UsageError for a count below 1. Raises PhotochromError for a folder without colour photos, and
        for a tool's folder without a matching file.
        """
        if count is not None and count < 1:
            raise UsageError(f"photos {count}: give 1 or more")
        names = photos_below(folder)
        if tools:
            no_doubles(names)
        self.folder, self.seed, self.at_full = folder, seed, at_full
        self.tools = [Tool(name, place, match(names, name, place)) for name, place in (tools or {}).items()]
        self.left_out: list[LeftOut] = []
        training_sets = still_here(learnt_from, data_dir)
        self.compared = frozenset(each.checksum for each in training_sets)
        self.files: list[Path] = []
        self._shapes: list[float] = []
        checksum, chroma = hashlib.blake2b(digest_size=8), np.zeros(2)
        for photo in self._selected(list(names), count, training_sets, progress):
            for tool, fit in zip(self.tools, photo.fits, strict=True):
                tool.add(fit)
            checksum.update(repr((self._name(photo.file), digest(photo.file))).encode())
            chroma += photo.mean_chroma
            self.files.append(photo.file)
            self._shapes.append(round(photo.size[0] / photo.size[1], 4))
        if not self.files:
            first, reason = self.left_out[0]
            raise PhotochromError(
                f"none of the {len(names)} files in {folder} can be measured on. {first}: {reason}"
            )
        self.mean_chroma = (chroma / len(self.files)).tolist()
        self.facts: dict[str, Any] = {
            "name": folder.resolve().name,
            "checksum": checksum.hexdigest(),
            "size": SIZE,
            "photos": len(self.files),
            "left_out": [list(each) for each in self.left_out],
            "at_full": at_full,
        }

    def __len__(self) -> int:
        return len(self.files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _selected(
        self, files: Sequence[Path], count: int | None, training_sets: Sequence[Pack], progress: Progress
    ) -> Iterator[Looked]:
        """The first `count` photos (None: all) that no model was trained on. Others go to `left_out`."""
        looked = self._looked(files, progress)
        missing = len(files) if count is None else count
        while part := list(islice(looked, min(missing, TOGETHER))):
            for photo, shown_in in zip(part, sets_that_show(part, training_sets, progress), strict=True):
                if shown_in:
                    reason = (
                        f"it looks like a training photo of {shown_in}: take photos that no model has seen"
                    )
                    self.left_out.append(LeftOut(self._name(photo.file), reason))
                else:
                    missing -= 1
                    yield photo

    def _looked(self, files: Sequence[Path], progress: Progress) -> Iterator[Looked]:
        """The colour photos with a file of each tool, in a fixed random order. Others go to `left_out`."""
        for done, place in enumerate(np.random.default_rng(0).permutation(len(files))):
            progress(done, len(files), f"looking at {done + 1:,} of {len(files):,} photos")
            file = files[place]
            try:
                picture = open_photo(file)
                small = shrunk(picture, SIZE)
                if is_gray((small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()):
                    raise PhotochromError("it is gray itself")
                fits = [tool.compare(file, small, picture.size) for tool in self.tools]
            except PhotochromError as error:
                self.left_out.append(LeftOut(self._name(file), str(error)))
                continue
            mean = color.from_rgb(small)[1].mean(dim=(0, 2, 3)).double().numpy()
            yield Looked(file, picture.size, mean, squares(picture), fits)

    def batch(self, places: Sequence[int]) -> Batch:
        """See `evaluate.Photos`. As in `photochrom colorize`, noise depends on the photo and the seed."""
        files = [self.files[place] for place in places]
        rgb = torch.cat([shrunk(open_photo(file), SIZE) for file in files])
        return Batch(rgb, [self.seed] * len(files), files, APART, self.at_full)

    def shapes(self) -> list[float]:
        """See `evaluate.Photos`."""
        return self._shapes

    def origins(self) -> list[str]:
        """See `evaluate.Photos`."""
        return [self._name(file) for file in self.files]

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """See `evaluate.Photos`. The mean colour is that of these photos."""
        return full_size_references(self.mean_chroma, candidates)

    def tool_candidates(self) -> list[Candidate]:
        """The candidates of all other tools. See `Tool.candidates`."""
        return [candidate for tool in self.tools for candidate in tool.candidates(self.files)]

    def notes(self) -> list[str]:
        """Notes for the user about photos and the tools' files, one line each."""
        notes = []
        for reason, count in Counter(each.reason for each in self.left_out).items():
            names = [each.photo for each in self.left_out if each.reason == reason]
            more = f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            notes.append(f"left out: {', '.join(names[:EXAMPLES])}{more}: {reason}")
        return [*notes, *(note for tool in self.tools for note in tool.notes())]


def sets_that_show(
    photos: Sequence[Looked], training_sets: Sequence[Pack], progress: Progress
) -> list[str | None]:
    """For each photo, the name of the first data set with a look-alike among its training photos, or None."""
    found: list[str | None] = [None] * len(photos)
    if not training_sets:
        return found
    photo_of_square = np.repeat(np.arange(len(photos)), [len(each.squares) for each in photos])
    all_squares = np.concatenate([each.squares for each in photos])
    for pack in training_sets:

        def looking(done: int, total: int, name: str = pack.name) -> None:
            progress(done, total, f"looking at the photos of {name}")

        for place in photo_of_square[learnt(all_squares, pack, looking)]:
            found[place] = found[place] or pack.name
    return found


def squares(picture: Image.Image) -> Pixels:
    """The squares that a data set may have cut from a photo: the middle and, if it is long, both ends.

    Returns (N,64,64,3).
    """
    size = (LEARNT_AT, LEARNT_AT)
    places = (0.5,) if max(picture.size) <= LONG * min(picture.size) else (0.5, 0.0, 1.0)
    fitted = [ImageOps.fit(picture, size, Image.Resampling.LANCZOS, centering=(at, at)) for at in places]
    return np.stack([np.asarray(each.convert("RGB")) for each in fitted])
