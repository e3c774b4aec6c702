"""The photos that are measured on: the held-out ones of a data set, or a folder of photos of any size.

A folder is looked through once before anything is coloured: gray and broken photos are left out, and other tools' files are found
and held beside their photos, so that all candidates are measured on the same photos.
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

SIZE = 256  # pixels, the square in which the field measures
SMALLEST = 16  # pixels that are left one after the four halvings of VGG16
SAME_LUMA = 2.0  # levels of 255, mean over pixels: what JPEG and rounding change at most
LOOKED_AT = 32  # photos from which it is known whether a tool changed luma
ALIKE = 0.7  # correlation of fine luma below which a file does not show the photo as it is
SHAPE = 0.02  # by which the ratio of the sides may differ without a word
EXAMPLES = 3  # names that a message lists
LEARNT_AT = 64  # pixels at which look-alikes of training photos are sought
LONG = 1.1  # times the shorter side: less than look-alikes differ in anyway
TOGETHER = 512  # photos that are compared with training photos at a time


class Photos(Protocol):
    """What an evaluation asks of its photos, which have an order: any first part of them is a fair one."""

    seed: int
    facts: dict[str, Any]  # plain values: name, checksum, size, how many photos
    at_once: int  # how many make a batch, after which an evaluation can be stopped

    def __len__(self) -> int: ...

    def batch(self, places: Sequence[int]) -> Batch:
        """The photos at these places of the order."""

    def origins(self) -> list[str]:
        """What each photo is called."""

    def shapes(self) -> list[float]:
        """Width over height of each photo, as it is to be looked at."""

    def references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The rows to compare with: the truth, ..., gray."""


# --- A data set ----------------------------------------------------------------------------------------------------------


def photo_seeds(indices: npt.NDArray[np.int64], seed: int) -> list[int]:
    """A seed of its own for each photo, so that one lucky noise cannot favour them all."""
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
        """count: how many, in a fixed order (None: all). learnt_from: data sets whose training photos, and what looks like
        them, are left out, as far as they are in `data_dir`.

        Raises PhotochromError for a split without photos, or of which none is left, and for tiny photos.
        """
        _check(count, seed)
        if pack.size < SMALLEST:
            raise PhotochromError(
                f"photos of {pack.size} pixels are too small for VGG16: import them with --size {SMALLEST}"
            )
        if not pack.count(split):
            raise PhotochromError(
                f"data set {pack.name!r} has no {split} photos: import it again with more photos, or a larger --{split}"
            )
        self.pack, self.seed = pack, seed
        self.indices = pack.drawn(split, None if learnt_from else count, 0)
        others: list[Pack] = []
        seen = np.zeros(len(self.indices), bool)
        if isinstance(pack, Pack):
            others = still_here(learnt_from, data_dir, {pack.checksum})  # its own parts share no photo
            for each in others:
                seen |= learnt(pack.photos[self.indices], each)
        self.compared = frozenset({pack.checksum, *(each.checksum for each in others)})
        self.indices = self.indices[~seen][:count]
        if not len(self.indices):
            raise PhotochromError(
                f"a model, or one before it, has learnt from all {split} photos of {pack.name!r}: take another --data"
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
        """See `Photos`; true chroma at the candidates' scales is the best that they can do."""
        return references(self.pack, sorted({each.facts.get("chroma_scale", 1) for each in candidates}))


def _check(count: int | None, seed: int) -> None:
    if count is not None and count < 1:
        raise UsageError(f"photos {count}: give 1 or more")
    if seed < 0:
        raise UsageError(f"seed = {seed}: give 0 or more")


# --- A folder ------------------------------------------------------------------------------------------------------------


class LeftOut(NamedTuple):
    """A photo that is measured for nobody, and why."""

    photo: str
    reason: str


@dataclass
class Tool:
    """What is known of another tool's files."""

    name: str
    folder: Path
    found: dict[Path, Path]  # photo -> file
    sizes: Counter[str] = field(default_factory=Counter)  # equal | other size | other shape
    luma_changes: list[float] = field(default_factory=list)  # levels of 255, of the first photos
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    @property
    def luma_change(self) -> float:
        """Mean distance between its luma and the photos' own, levels of 255."""
        return round(float(np.mean(self.luma_changes)), 2)

    def candidates(self, used: Mapping[Path, Path]) -> list[Candidate]:
        """Its files as they are and, where they changed luma, with the photos' own luma put back."""
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
    """A photo that can be measured on, before it is known whether a model has learnt from it.

    mean_chroma: (2,). squares: (N,64,64,3), see `squares`. beside: how each tool's file fits, see `Folder._look_at_tool`.
    """

    file: Path
    size: tuple[int, int]
    mean_chroma: npt.NDArray[np.float64]
    squares: Pixels
    beside: list[tuple[str, float, bytes]]


class Folder:
    """Photos of any size, measured when squeezed into a square; and what other tools have made of them."""

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
        """tools: folders of coloured files by the name of who made them. count: how many photos, in a fixed order (None: all).
        learnt_from: data sets whose training photos, and what looks like them, are left out, as far as they are in `data_dir`.

        Raises PhotochromError for a folder without colour photos, and for a tool's folder that fits none of them.
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
                    reason = f"it looks like a training photo of {name}, from which a model learnt: take photos that none has seen"
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
                f"{folder} has no photo to measure on, of {len(files)} files. {self.left_out[0].photo}: "
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
        """The files that are colour photos with a file of each tool, in a fixed order; the others are left out."""
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
        """The first of the data sets that has each photo in its training part."""
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
        """How a tool's file fits its photo: its size, how far luma has changed, a digest. Raises PhotochromError if it does not."""
        if file not in other.found:
            raise PhotochromError(f"{other.name} has no file of this name")
        found = other.found[file]
        picture, made = _look(found, gray=True)
        made_size = picture.size
        luma, made_luma = (255 * color.luma(rgb)[0, 0].numpy() for rgb in (small, made))
        change = float(np.abs(made_luma - luma).mean())
        if change > SAME_LUMA and alike(luma, made_luma) < ALIKE:
            raise PhotochromError(
                f"the file of {other.name} ({made_size[0]}x{made_size[1]}, the photo has {size[0]}x{size[1]}) shows something "
                "else: cropped, turned, with borders, or of another photo"
            )
        shape = made_size[0] / made_size[1] / (size[0] / size[1])
        kind = "equal" if made_size == size else "other size" if abs(shape - 1) <= SHAPE else "other shape"
        return kind, change, _digest(found)

    def batch(self, places: Sequence[int]) -> Batch:
        """See `Photos`. Each photo's noise is that of `photochrom colorize`, a function of the photo and of the seed."""
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
        """See `Photos`; the mean colour is that of these very photos, and a ceiling what a model's size of chroma lets through."""
        return full_size_references(self.mean_chroma, candidates)

    def tool_candidates(self) -> list[Candidate]:
        """The other tools, each as it is and, where it changed luma, with the photos' own luma put back."""
        return [
            candidate
            for each in self.tools
            for candidate in each.candidates({file: each.found[file] for file in self.files})
        ]

    def notes(self) -> list[str]:
        """What a person should know of the photos and of the tools' files, a line each."""
        said = []
        for reason, count in Counter(each.reason for each in self.left_out).items():
            names = [each.photo for each in self.left_out if each.reason == reason]
            more = f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            said.append(f"left out: {', '.join(names[:EXAMPLES])}{more}: {reason}")
        for each in self.tools:
            for kind, how in (("size", "resized"), ("shape", "squeezed back")):
                if count := each.sizes[f"other {kind}"]:
                    said.append(
                        f"{each.name}: {count} of {len(self)} files have another {kind} than the photo: {how}"
                    )
            if each.luma_change > SAME_LUMA:
                said.append(
                    f"{each.name} changed luma, by {each.luma_change:g} levels of 255 on average: measured as it is, and as "
                    f"{each.name + LUMA_BACK!r}"
                )
        return said


def photos_below(folder: Path) -> list[Path]:
    """Every photo below a folder, sorted, but for hidden ones; raises PhotochromError if there is none."""
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
    """Raise PhotochromError if two files have one name, suffix aside."""
    seen: dict[str, Path] = {}
    for file, key in keys.items():
        if key in seen:
            raise PhotochromError(
                f"{seen[key]} and {file} have one name, suffix aside: rename or remove one, since files are matched by it"
            )
        seen[key] = file


def match(photos: Mapping[Path, str], name: str, folder: Path) -> dict[Path, Path]:
    """The files of a tool by photo: of the same path below the folder, suffix aside, or else of the same name alone.

    photos: their paths below their folder without suffix. Raises PhotochromError if there is none at all.
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
            f"no file of {name} ({folder}, such as {files[0].name}) is called as a photo is (such as {example}): give each the "
            "name of its photo; the suffix does not matter"
        )
    return found


def _look(file: Path, gray: bool = False) -> tuple[Image.Image, torch.Tensor]:
    """A file, and the same at the size of measuring (1,3,S,S) in [0,1]. Raises PhotochromError if it is gray, unless it may be."""
    picture = open_photo(file)
    small = shrunk(picture, SIZE)
    if not gray and is_gray((small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()):
        raise PhotochromError("it is gray itself")
    return picture, small


def squares(picture: Image.Image) -> Pixels:
    """Squares that a data set may have cut from a photo: its middle and, of a long one, both ends; (N,64,64,3)."""
    size = (LEARNT_AT, LEARNT_AT)
    places = (0.5,) if max(picture.size) <= LONG * min(picture.size) else (0.5, 0.0, 1.0)
    fitted = [ImageOps.fit(picture, size, Image.Resampling.LANCZOS, centering=(at, at)) for at in places]
    return np.stack([np.asarray(each.convert("RGB")) for each in fitted])


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=8)).digest()


def alike(luma: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Correlation (-1 to 1) of the fine structure of two luma pictures (S,S).

    What is left after a blur is taken off moves with every shift and every border, and hardly with another tone curve.
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
