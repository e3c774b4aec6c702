"""Files that other tools have coloured: matches them with photos, and compares each with its photo."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from photochrom.data.reading import HEIC_SUFFIXES, SUFFIXES, open_photo
from photochrom.diffusion import color
from photochrom.errors import PhotochromError
from photochrom.evaluation.at_full_size import LUMA_BACK, shrunk, tool
from photochrom.evaluation.candidates import Candidate

SAME_LUMA = 2.0  # largest mean change, in levels of 255, that JPEG and rounding explain
LOOKED_AT = 32  # photos that show whether a tool changed luma
ALIKE = 0.7  # correlation of fine luma below which a file shows something else than its photo
SHAPE = 0.02  # relative difference of aspect ratios that needs no note


class Fit(NamedTuple):
    """How a tool's file fits its photo."""

    size: str  # equal | other size | other shape
    luma_change: float  # mean absolute difference, in levels of 255
    digest: bytes  # of the file


@dataclass
class Tool:
    """Another tool's coloured files, and how they fit the photos of an evaluation."""

    name: str
    folder: Path
    files: dict[Path, Path]  # {photo: file}
    sizes: Counter[str] = field(default_factory=Counter)  # see `Fit.size`
    luma_changes: list[float] = field(default_factory=list)  # of the first photos
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    def compare(self, photo: Path, small: torch.Tensor, size: tuple[int, int]) -> Fit:
        """Compare the tool's file with its photo.

        small: the photo at the size of measuring (1,3,S,S) in [0,1]. size: the photo's own width and height.
        Raises PhotochromError if there is no file, if it cannot be read, or if it does not show the photo.
        """
        if photo not in self.files:
            raise PhotochromError(f"{self.name} has no file of this name")
        file = self.files[photo]
        picture = open_photo(file)
        (width, height), (photo_width, photo_height) = picture.size, size
        made = shrunk(picture, small.shape[-1])
        luma, made_luma = (255 * color.luma(rgb)[0, 0].numpy() for rgb in (small, made))
        change = float(np.abs(made_luma - luma).mean())
        if change > SAME_LUMA and alike(luma, made_luma) < ALIKE:
            raise PhotochromError(
                f"the file of {self.name} ({width}x{height}, the photo has {photo_width}x{photo_height}) "
                "does not show this photo: it is cropped, turned, has borders, or belongs to another photo"
            )
        same_shape = abs(width / height / (photo_width / photo_height) - 1) <= SHAPE
        kind = "equal" if picture.size == size else "other size" if same_shape else "other shape"
        return Fit(kind, change, digest(file))

    def add(self, fit: Fit) -> None:
        """Count a file whose photo is measured on."""
        self.sizes[fit.size] += 1
        self.digest.update(fit.digest)
        if len(self.luma_changes) < LOOKED_AT:
            self.luma_changes.append(fit.luma_change)

    @property
    def luma_change(self) -> float:
        """The mean `Fit.luma_change` of the first photos."""
        return round(float(np.mean(self.luma_changes)), 2)

    def candidates(self, photos: Sequence[Path]) -> list[Candidate]:
        """The tool as a candidate; if it changed luma, also a candidate with the photos' luma put back."""
        facts = {
            "folder": self.folder.name,
            "checksum": self.digest.hexdigest(),
            "sizes": dict(sorted(self.sizes.items())),
            "luma_change": self.luma_change,
        }
        files = {photo: self.files[photo] for photo in photos}
        ways = (False, True) if self.luma_change > SAME_LUMA else (False,)
        return [tool(self.name, files, facts, luma_back) for luma_back in ways]

    def notes(self) -> list[str]:
        """Notes for the user about the files, one line each."""
        notes = [
            f"{self.name}: {count} of {self.sizes.total()} files have another {kind} than the photo: {how}"
            for kind, how in (("size", "resized"), ("shape", "squeezed back"))
            if (count := self.sizes[f"other {kind}"])
        ]
        if self.luma_change > SAME_LUMA:
            notes.append(
                f"{self.name} changed luma by {self.luma_change:g} of 255 levels on average: it is measured "
                f"as it is and as {self.name + LUMA_BACK!r}"
            )
        return notes


def photos_below(folder: Path) -> dict[Path, str]:
    """Every photo below a folder, sorted, without hidden ones: {file: path below the folder, without suffix}.

    Raises PhotochromError if there is none.
    """
    if not folder.is_dir():
        raise PhotochromError(f"there is no folder {folder}: name a folder of photos")
    files = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in (*SUFFIXES, *HEIC_SUFFIXES) and not hidden and path.is_file():
            files[path] = inside.with_suffix("").as_posix()
    if not files:
        raise PhotochromError(f"{folder} has no photo in it (such as .jpg, .png, .webp)")
    return files


def no_doubles(names: Mapping[Path, str]) -> None:
    """Raise PhotochromError if two files of `photos_below` have the same name without suffix."""
    seen: dict[str, Path] = {}
    for file, name in names.items():
        if name in seen:
            raise PhotochromError(
                f"{seen[name]} and {file} differ only in their suffix: rename or remove one"
            )
        seen[name] = file


def match(photos: Mapping[Path, str], tool: str, folder: Path) -> dict[Path, Path]:
    """Match a tool's files with photos by path without suffix, or else by file name, if that is unique.

    photos: see `photos_below`. Returns {photo: file}. Raises PhotochromError if nothing matches.
    """
    files = photos_below(folder)
    no_doubles(files)
    by_path = {path: file for file, path in files.items()}
    stems = Counter(Path(path).name for path in photos.values())
    by_stem: dict[str, list[Path]] = {}
    for file, path in files.items():
        by_stem.setdefault(Path(path).name, []).append(file)
    found = {}
    for photo, path in photos.items():
        stem = Path(path).name
        if path in by_path:
            found[photo] = by_path[path]
        elif stems[stem] == 1 and len(by_stem.get(stem, [])) == 1:
            found[photo] = by_stem[stem][0]
    if not found:
        a_file, a_photo = next(iter(files)).name, next(iter(photos)).name
        raise PhotochromError(
            f"no file of {tool} ({folder}, such as {a_file}) has the name of a photo (such as {a_photo}): "
            "give each file the name of its photo; the suffix does not matter"
        )
    return found


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
        structure = (values - blurred).ravel()
        fine.append(structure - structure.mean())
    norms = [float(np.linalg.norm(each)) for each in fine]
    if min(norms) == 0:
        return 1.0 if norms[0] == norms[1] else 0.0
    return float(np.dot(fine[0], fine[1]) / (norms[0] * norms[1]))


def digest(file: Path) -> bytes:
    """BLAKE2b of a file, 8 bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=8)).digest()
