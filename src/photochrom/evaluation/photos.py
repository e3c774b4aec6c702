"""The photos of an evaluation: held-out photos of a data set, or a folder of photos of any size.

A folder is searched once before colouring. It leaves out gray and broken photos, and photos that do not match
the files of every other tool, so that all candidates are measured on the same photos.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from photochrom.config import LearntFrom
from photochrom.data.dataset import DataSet
from photochrom.data.pack import Pack
from photochrom.data.reading import HEIC_SUFFIXES, SUFFIXES, Pixels, is_gray, open_photo
from photochrom.diffusion import color
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.candidates import (
    APART,
    LUMA_BACK,
    Batch,
    Candidate,
    full_size_references,
    references,
    shrunk,
    tool,
)
from photochrom.evaluation.seen import learnt, still_here

SIZE = 256  # pixels; the field measures in squares of this side
SMALLEST = 16  # pixels, of which VGG16's four halvings leave one
SAME_LUMA = 2.0  # largest mean change, in levels of 255, that JPEG and rounding explain
LOOKED_AT = 32  # photos that show whether a tool changed luma
ALIKE = 0.7  # correlation of fine luma below which a file shows something else than its photo
SHAPE = 0.02  # relative difference of aspect ratios that needs no note
EXAMPLES = 3  # names that a message lists
LEARNT_AT = 64  # side in pixels for the comparison with training photos
LONG = 1.1  # longer side over shorter side; up to this, the crop does not matter for look-alikes
TOGETHER = 512  # photos that are compared with training photos at a time


class Photos(Protocol):
    """The photos of an evaluation, in random order, so that the first N are a fair sample."""

    seed: int
    facts: dict[str, Any]  # plain values: name, checksum, size, number of photos
    at_once: int  # photos in a batch; an evaluation can stop between batches

    def __len__(self) -> int: ...

    def batch(self, places: Sequence[int]) -> Batch:
        """The photos at these places of the order."""

    def origins(self) -> list[str]:
        """The name of each photo."""

    def shapes(self) -> list[float]:
        """Width over height of each photo, for display."""

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The rows to compare with: the truth, ..., gray."""


# --- A data set
# ----------------------------------------------------------------------------------------------------------


def photo_seeds(indices: npt.NDArray[np.int64], seed: int) -> list[int]:
    """One seed per photo, so that no single lucky noise favours all of them."""
    return [int(np.random.SeedSequence((seed, int(i))).generate_state(1)[0]) for i in indices]


class Packed:
    """Photos of one split of a data set, at its size."""

    at_once = 32

    def __init__(
        self,
        pack: DataSet,
        split: str = "validation",
        count: int | None = None,
        seed: int = 0,
        learnt_from: Iterable[LearntFrom] = (),
        data_dir: Path = Path("data"),
    ) -> None:
        """Select photos.

        count: the first so many of a fixed random order (None: all). learnt_from: data sets of training;
        photos that look like their training photos are left out, if the data set is in `data_dir`.

        Raises PhotochromError if the split has no photos, if none is left, or if they are too small for
        VGG16.
        """
        _check(count, seed)
        if pack.size < SMALLEST:
            raise PhotochromError(
                f"photos of {pack.size} pixels are too small for VGG16: import them with --size {SMALLEST}"
            )
        if not pack.count(split):
            raise PhotochromError(
                f"data set {pack.name!r} has no {split} photos: import it again with more photos or a larger "
                f"--{split}"
            )
        self.pack, self.seed = pack, seed
        self.indices = pack.drawn(split, None if learnt_from else count, 0)
        others: list[Pack] = []
        seen = np.zeros(len(self.indices), bool)
        if isinstance(pack, Pack):
            others = still_here(learnt_from, data_dir, {pack.checksum})  # its own splits share no photo
            for each in others:
                seen |= learnt(pack.photos[self.indices], each)
        self.compared = frozenset({pack.checksum, *(each.checksum for each in others)})
        self.indices = self.indices[~seen][:count]
        if not len(self.indices):
            raise PhotochromError(
                f"a model or its ancestor was trained on all {split} photos of {pack.name!r}: take another "
                "--data"
            )
        self.facts: dict[str, Any] = {"name": pack.name, "checksum": pack.checksum, "split": split}
        self.facts |= {"size": pack.size, "photos": len(self.indices)}
        if seen.any():
            self.facts["seen"] = int(seen.sum())

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, places: Sequence[int]) -> Batch:
        """See `Photos`."""
        indices = self.indices[list(places)]
        return Batch(self.pack.rgb(indices), photo_seeds(indices, self.seed))

    def origins(self) -> list[str]:
        """See `Photos`."""
        return self.pack.origins(self.indices)

    def shapes(self) -> list[float]:
        """See `Photos`."""
        return [1.0] * len(self)

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """See `Photos`. True chroma at the candidates' scales shows the best that they can reach."""
        return references(self.pack, sorted({each.facts.get("chroma_scale", 1) for each in candidates}))


def _check(count: int | None, seed: int) -> None:
    if count is not None and count < 1:
        raise UsageError(f"photos {count}: give 1 or more")
    if seed < 0:
        raise UsageError(f"seed = {seed}: give 0 or more")


# --- A folder
# ------------------------------------------------------------------------------------------------------------


class LeftOut(NamedTuple):
    """A photo that no candidate is measured on, and why."""

    photo: str
    reason: str


@dataclass
class Tool:
    """Another tool's coloured files, and the facts about them."""

    name: str
    folder: Path
    found: dict[Path, Path]  # {photo: file}
    sizes: Counter[str] = field(default_factory=Counter)  # equal | other size | other shape
    luma_changes: list[float] = field(default_factory=list)  # of the first photos, in levels of 255
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    @property
    def luma_change(self) -> float:
        """Mean absolute difference between its luma and the photos', in levels of 255."""
        return round(float(np.mean(self.luma_changes)), 2)

    def candidates(self, used: Mapping[Path, Path]) -> list[Candidate]:
        """The tool as a candidate; if it changed luma, also a candidate with the photos' luma put back."""
        facts = {
            "folder": self.folder.name,
            "checksum": self.digest.hexdigest(),
            "sizes": dict(sorted(self.sizes.items())),
            "luma_change": self.luma_change,
        }
        found = [tool(self.name, used, facts, luma_back=False)]
        if self.luma_change > SAME_LUMA:
            found.append(tool(self.name, used, facts, luma_back=True))
        return found


class Looked(NamedTuple):
    """A photo that can be measured on, unless a model was trained on it.

    mean_chroma: (2,). squares: (N,64,64,3), see `squares`. beside: how each tool's file fits it, see
    `Folder._look_at_tool`.
    """

    file: Path
    size: tuple[int, int]
    mean_chroma: npt.NDArray[np.float64]
    squares: Pixels
    beside: list[tuple[str, float, bytes]]


class Folder:
    """Photos of any size in a folder, with other tools' colourings; all are measured as squares."""

    at_once = 8

    def __init__(
        self,
        folder: Path,
        tools: Mapping[str, Path] | None = None,
        count: int | None = None,
        seed: int = 0,
        at_full: bool = False,
        progress: Callable[[int, int, str], None] = lambda done, total, text: None,
        learnt_from: Iterable[LearntFrom] = (),
        data_dir: Path = Path("data"),
    ) -> None:
        """Select photos, and match the files of other tools with them.

        tools: {name of the tool: folder of its files}. count: the first so many photos of a fixed random
        order (None: all). at_full: measure at the photos' own size too. progress(done, total, text) counts
        files. learnt_from: data sets of training; photos that look like their training photos are left out,
        if the data set is in `data_dir`.

        Raises PhotochromError for a folder without colour photos, and for a tool's folder without a matching
        file.
        """
        _check(count, seed)
        files = photos_below(folder)
        keys = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
        if tools:
            no_doubles(keys)
        self.folder, self.seed, self.at_full = folder, seed, at_full
        self.tools = [Tool(name, place, match(keys, name, place)) for name, place in (tools or {}).items()]
        self.files: list[Path] = []
        self.left_out: list[LeftOut] = []
        self._shapes: list[float] = []
        training_sets = still_here(learnt_from, data_dir)
        self.compared = frozenset(each.checksum for each in training_sets)
        digest, chroma = hashlib.blake2b(digest_size=8), np.zeros(2)
        looked = self._looked(files, progress)
        missing = len(files) if count is None else count
        while part := list(islice(looked, min(missing, TOGETHER))):
            for photo, name in zip(part, self._sets_that_show(part, training_sets, progress), strict=True):
                if name:
                    reason = f"it looks like a training photo of {name}: take photos that no model has seen"
                    self.left_out.append(LeftOut(self._name(photo.file), reason))
                    continue
                for each, (kind, change, content) in zip(self.tools, photo.beside, strict=True):
                    each.sizes[kind] += 1
                    each.digest.update(content)
                    if len(each.luma_changes) < LOOKED_AT:
                        each.luma_changes.append(change)
                digest.update(repr((self._name(photo.file), _digest(photo.file))).encode())
                chroma += photo.mean_chroma
                self.files.append(photo.file)
                self._shapes.append(round(photo.size[0] / photo.size[1], 4))
                missing -= 1
        if not self.files:
            raise PhotochromError(
                f"none of the {len(files)} files in {folder} can be measured on. {self.left_out[0].photo}: "
                f"{self.left_out[0].reason}"
            )
        self.mean_chroma = (chroma / len(self.files)).tolist()
        self.facts: dict[str, Any] = {
            "name": folder.resolve().name,
            "checksum": digest.hexdigest(),
            "size": SIZE,
            "photos": len(self.files),
            "left_out": [list(each) for each in self.left_out],
            "at_full": at_full,
        }

    def __len__(self) -> int:
        return len(self.files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _looked(self, files: Sequence[Path], progress: Callable[[int, int, str], None]) -> Iterator[Looked]:
        """The colour photos with a file of each tool, in a fixed random order. Others go to `left_out`."""
        for done, place in enumerate(np.random.default_rng(0).permutation(len(files))):
            progress(done, len(files), f"looking at {done + 1:,} of {len(files):,} photos")
            file = files[place]
            try:
                picture, small = _look(file)
                beside = [self._look_at_tool(each, file, small, picture.size) for each in self.tools]
            except PhotochromError as error:
                self.left_out.append(LeftOut(self._name(file), str(error)))
                continue
            mean = color.from_rgb(small)[1].mean(dim=(0, 2, 3)).double().numpy()
            yield Looked(file, picture.size, mean, squares(picture), beside)

    def _sets_that_show(
        self, photos: Sequence[Looked], sets: Sequence[Pack], progress: Callable[[int, int, str], None]
    ) -> list[str | None]:
        """The name of the first data set that has a look-alike of each photo for training, or None."""
        found: list[str | None] = [None] * len(photos)
        if not sets:
            return found
        whose = np.repeat(np.arange(len(photos)), [len(each.squares) for each in photos])
        parts = np.concatenate([each.squares for each in photos])
        for pack in sets:

            def looking(done: int, total: int, name: str = pack.name) -> None:
                progress(done, total, f"looking at the photos of {name}")

            for place in whose[learnt(parts, pack, looking)]:
                found[place] = found[place] or pack.name
        return found

    def _look_at_tool(
        self, other: Tool, file: Path, small: torch.Tensor, size: tuple[int, int]
    ) -> tuple[str, float, bytes]:
        """Compare a tool's file with its photo: kind of size, change of luma, digest of the file.

        Raises PhotochromError if there is no file, or if it does not show the photo.
        """
        if file not in other.found:
            raise PhotochromError(f"{other.name} has no file of this name")
        found = other.found[file]
        picture, made = _look(found, gray=True)
        made_size = picture.size
        luma, made_luma = (255 * color.luma(rgb)[0, 0].numpy() for rgb in (small, made))
        change = float(np.abs(made_luma - luma).mean())
        if change > SAME_LUMA and alike(luma, made_luma) < ALIKE:
            raise PhotochromError(
                f"the file of {other.name} ({made_size[0]}x{made_size[1]}, the photo has "
                f"{size[0]}x{size[1]}) does not show this photo: it is cropped, turned, has borders, or "
                "belongs to another photo"
            )
        shape = made_size[0] / made_size[1] / (size[0] / size[1])
        kind = "equal" if made_size == size else "other size" if abs(shape - 1) <= SHAPE else "other shape"
        return kind, change, _digest(found)

    def batch(self, places: Sequence[int]) -> Batch:
        """See `Photos`. As in `photochrom colorize`, a photo's noise depends on the photo and the seed."""
        files = [self.files[place] for place in places]
        rgb = torch.cat([shrunk(open_photo(file), SIZE) for file in files])
        return Batch(rgb, [self.seed] * len(files), files, APART, self.at_full)

    def shapes(self) -> list[float]:
        """See `Photos`."""
        return self._shapes

    def origins(self) -> list[str]:
        """See `Photos`."""
        return [self._name(file) for file in self.files]

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """See `Photos`. The mean colour is that of these photos; a ceiling is the truth at a chroma scale."""
        return full_size_references(self.mean_chroma, candidates)

    def tool_candidates(self) -> list[Candidate]:
        """The candidates of all other tools. See `Tool.candidates`."""
        return [
            candidate
            for each in self.tools
            for candidate in each.candidates({file: each.found[file] for file in self.files})
        ]

    def notes(self) -> list[str]:
        """Notes for the user about photos and the tools' files, one line each."""
        notes = []
        for reason, count in Counter(each.reason for each in self.left_out).items():
            names = [each.photo for each in self.left_out if each.reason == reason]
            more = f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            notes.append(f"left out: {', '.join(names[:EXAMPLES])}{more}: {reason}")
        for each in self.tools:
            for kind, how in (("size", "resized"), ("shape", "squeezed back")):
                if count := each.sizes[f"other {kind}"]:
                    notes.append(
                        f"{each.name}: {count} of {len(self)} files have another {kind} than the photo: {how}"
                    )
            if each.luma_change > SAME_LUMA:
                notes.append(
                    f"{each.name} changed luma by {each.luma_change:g} of 255 levels on average: it is "
                    f"measured as it is and as {each.name + LUMA_BACK!r}"
                )
        return notes


def photos_below(folder: Path) -> list[Path]:
    """Every photo below a folder, sorted, without hidden ones. Raises PhotochromError if there is none."""
    if not folder.is_dir():
        raise PhotochromError(f"there is no folder {folder}: name a folder of photos")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (*SUFFIXES, *HEIC_SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not files:
        raise PhotochromError(f"{folder} has no photo in it (such as .jpg, .png, .webp)")
    return files


def no_doubles(keys: Mapping[Path, str]) -> None:
    """Raise PhotochromError if two files have the same name without suffix."""
    seen: dict[str, Path] = {}
    for file, key in keys.items():
        if key in seen:
            raise PhotochromError(f"{seen[key]} and {file} differ only in their suffix: rename or remove one")
        seen[key] = file


def match(photos: Mapping[Path, str], name: str, folder: Path) -> dict[Path, Path]:
    """Match the files of a tool with photos by path without suffix, or else by name, if that is unique.

    photos: {photo: its path below its folder, without suffix}. Returns {photo: file}. Raises PhotochromError
    if nothing matches.
    """
    files = photos_below(folder)
    keys = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
    no_doubles(keys)
    by_path = {key: file for file, key in keys.items()}
    stems = Counter(Path(key).name for key in photos.values())
    by_stem: dict[str, list[Path]] = {}
    for file, key in keys.items():
        by_stem.setdefault(Path(key).name, []).append(file)
    found = {}
    for photo, key in photos.items():
        stem = Path(key).name
        if key in by_path:
            found[photo] = by_path[key]
        elif stems[stem] == 1 and len(by_stem.get(stem, [])) == 1:
            found[photo] = by_stem[stem][0]
    if not found:
        example = next(iter(photos)).name
        raise PhotochromError(
            f"no file of {name} ({folder}, such as {files[0].name}) has the name of a photo (such as "
            f"{example}): give each file the name of its photo; the suffix does not matter"
        )
    return found


def _look(file: Path, gray: bool = False) -> tuple[Image.Image, torch.Tensor]:
    """Read a file. Returns it, and the same at the size of measuring (1,3,S,S) in [0,1].

    Raises PhotochromError if it is gray, unless `gray` allows that.
    """
    picture = open_photo(file)
    small = shrunk(picture, SIZE)
    if not gray and is_gray((small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()):
        raise PhotochromError("it is gray itself")
    return picture, small


def squares(picture: Image.Image) -> Pixels:
    """The squares that a data set may have cut from a photo: the middle and, if it is long, both ends.

    Returns (N,64,64,3).
    """
    size = (LEARNT_AT, LEARNT_AT)
    places = (0.5,) if max(picture.size) <= LONG * min(picture.size) else (0.5, 0.0, 1.0)
    fitted = [ImageOps.fit(picture, size, Image.Resampling.LANCZOS, centering=(at, at)) for at in places]
    return np.stack([np.asarray(each.convert("RGB")) for each in fitted])


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=8)).digest()


def alike(luma: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Correlation (-1 to 1) of the fine structure of two luma pictures (S,S), from 0 to 255.

    Fine structure is the picture minus a blur of it. Every shift or border changes it; another tone curve
    hardly does.
    """
    fine = []
    for picture in (luma, other):
        levels = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).resize(
            (128, 128), Image.Resampling.BOX
        )
        values = np.asarray(levels, dtype=np.float64)
        blurred = np.asarray(
            levels.resize((32, 32), Image.Resampling.BOX).resize((128, 128), Image.Resampling.BICUBIC)
        )
        fine.append((values - blurred).ravel())
    norms = [float(np.linalg.norm(each - each.mean())) for each in fine]
    if min(norms) == 0:
        return 1.0 if norms[0] == norms[1] else 0.0
    return float(np.dot(fine[0] - fine[0].mean(), fine[1] - fine[1].mean()) / (norms[0] * norms[1]))
