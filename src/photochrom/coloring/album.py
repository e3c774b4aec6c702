"""Colouring files and folders: which file becomes which, and colouring them group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from photochrom import processes
from photochrom.coloring.colorings import Samples
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.manifest import Record
from photochrom.coloring.photo import SUFFIXES as KEPT_SUFFIXES
from photochrom.coloring.photo import GrayPhoto, open_gray, write
from photochrom.data.reading import HEIC_SUFFIXES, SUFFIXES
from photochrom.errors import PhotochromError, UsageError
from photochrom.pictures import sheet

GROUP_PIXELS = 64_000_000  # of the photos whose luma is held in memory together
GUESSES = 8  # colourings that an uncertainty map compares, if no number is given
SHEET_SIDE = 384


class Wanted(NamedTuple):
    """What is written for each photo: one colouring, what several agree on, or several and a sheet; and a map."""

    samples: int = 1
    average: int = 1
    uncertainty: bool = False

    @property
    def draws(self) -> int:
        """How many colourings have to be drawn."""
        count = max(self.samples, self.average)
        return GUESSES if self.uncertainty and count == 1 else count

    def files(self, output: Path) -> list[Path]:
        """The files that are written where one colouring would be `output`."""
        names = [output.name]
        if self.samples > 1:
            names = [f"{output.stem}-{number + 1}{output.suffix}" for number in range(self.samples)]
            names.append(f"{output.stem}-sheet.png")
        if self.uncertainty:
            names.append(f"{output.stem}-uncertainty.png")
        return [output.with_name(name) for name in names]

    def pictures(self, samples: Samples) -> Iterator[Image.Image]:
        """The pictures for `files`, one after the other, so that only one is in memory."""
        if self.samples > 1:
            columns = {"gray": [_small(samples.photo.luma)]}
            for number in range(self.samples):
                picture = samples[number]
                columns[str(number + 1)] = [_small(picture)]
                yield picture
            yield sheet(columns, SHEET_SIDE)
        else:
            yield samples.average() if self.average > 1 else samples[0]
        if self.uncertainty:
            yield samples.uncertainty()


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return small


@dataclass
class Plan:
    """Where each photo goes ({output: photo}), why some go nowhere ({photo: reason}), and which are as they should be."""

    jobs: dict[Path, Path] = field(default_factory=dict)
    refused: dict[Path, str] = field(default_factory=dict)
    unchanged: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    record: Record | None = None

    def share(self) -> Plan:
        """What this process is to do of it, with refusals of its own."""
        return Plan(dict(processes.mine(list(self.jobs.items()))), record=self.record)


def plan(
    inputs: Sequence[Path],
    out: Path,
    overwrite: bool,
    how: Mapping[str, Any] | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008 (immutable)
) -> Plan:
    """What is to be done.

    Folders are searched with their sub-folders, whose structure is kept below `out`. With one file as input, `out`
    may be a file. how: all that decides about the colours; photos that were coloured so before and have not changed since
    are left alone. Raises UsageError when `out` is a file and cannot be one.
    """
    single = (
        len(inputs) == 1
        and not inputs[0].is_dir()
        and out.suffix.lower() in KEPT_SUFFIXES
        and not out.is_dir()
    )
    if out.exists() and not out.is_dir() and not single:
        raise UsageError(
            f"-o {out} is a file: name a folder, or a new file such as coloured.png for a single photo"
        )
    result = Plan(record=None if single else Record(out, how or {}))
    if result.record and result.record.problem:
        result.warnings.append(result.record.problem)
    taken: dict[Path, Path] = {}
    for given in inputs:
        photos = _photos_below(given, out) if given.is_dir() else {given: Path(given.name)}
        if not photos:
            result.refused[given] = f"{given} has no photo in it"
        for path, place in photos.items():
            suffix = path.suffix if path.suffix.lower() in KEPT_SUFFIXES else ".png"
            output = out if single else out / place.with_suffix(suffix)
            _place(result, path, output, wanted.files(output), overwrite, taken)
    return result


def _place(
    result: Plan, path: Path, output: Path, files: list[Path], overwrite: bool, taken: dict[Path, Path]
) -> None:
    """Put one photo where it belongs in the plan."""
    record = result.record
    double = next((file for file in files if taken.get(file, path) != path), None)
    kept = next((file for file in files if file.exists()), None)
    if any(file.exists() and path.exists() and file.samefile(path) for file in files):
        result.refused[path] = f"{path} would be written over itself: choose another place with -o"
    elif double:
        result.refused[path] = (
            f"{path} would be written to {double}, as {taken[double]} is: colour it separately"
        )
    elif any(file.is_dir() for file in files):
        result.refused[path] = f"{path} is left out, {output} is a folder"
    elif not overwrite and record and record.is_current(path, output, files):
        result.unchanged.append(path)
    elif kept and not overwrite and not (record and record.is_ours(output, files)):
        result.refused[path] = f"{path} is left out, {kept} exists: replace it with --overwrite"
    else:
        result.jobs[output] = path
    taken |= dict.fromkeys(files, path)


def _photos_below(folder: Path, out: Path) -> dict[Path, Path]:
    """Every photo below a folder with its place in it, except hidden ones and those that an earlier run put there."""
    inside = out.resolve() if folder.resolve() in out.resolve().parents else None
    photos = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if (
            path.suffix.lower() in (*SUFFIXES, *HEIC_SUFFIXES)
            and not hidden
            and path.is_file()
            and inside not in path.resolve().parents
        ):
            photos[path] = place
    return photos


def color_files(
    colorizer: Colorizer,
    plan: Plan,
    progress: Callable[[float], None],
    wanted: Wanted = Wanted(),  # noqa: B008 (immutable)
    **options: Any,
) -> Iterator[tuple[Path, list[Path], tuple[str, ...]]]:
    """Colour what is planned; yield photo, files and notes of each as they are written, each file atomically.

    A photo that cannot be read or written goes into `plan.refused` with its reason and does not stop the others.
    progress(done) is told how many photos are done, in fractions while a group is worked on. options: as for `Colorizer`.
    """
    done, before = 0, len(plan.refused)

    def step_done(step: int, steps: int) -> None:
        progress(done + len(plan.refused) - before + len(group) * step / steps)

    limits: dict[str, Any] = {key: options[key] for key in ("max_megapixels", "truncated") if key in options}
    try:
        for group in _groups(plan, limits):
            drawn = colorizer.samples(list(group.values()), wanted.draws, progress=step_done, **options)
            for output, samples in zip(group, drawn, strict=True):
                photo, files = plan.jobs[output], wanted.files(output)
                ours = {file for file in files if plan.record and plan.record.is_ours(output, [file])}
                try:
                    for file, picture in zip(files, wanted.pictures(samples), strict=True):
                        write(picture, file)
                        ours.add(file)
                except PhotochromError as error:
                    plan.refused[photo] = f"{photo}: {error}"
                    if plan.record and (there := [file for file in files if file in ours and file.exists()]):
                        plan.record.add(None, output, there)  # or the next run would take them for a person's
                    continue
                if plan.record:
                    plan.record.add(photo, output, files)
                done += 1
                yield photo, files, samples.photo.notes
    finally:
        if plan.record:
            plan.record.save()


def _groups(plan: Plan, limits: dict[str, Any]) -> Iterator[dict[Path, GrayPhoto]]:
    """Opened photos by output, as many as are worth colouring together and fit into memory."""
    group: dict[Path, GrayPhoto] = {}
    for output, path in plan.jobs.items():
        try:
            group[output] = open_gray(path, **limits)
        except UsageError:
            raise
        except PhotochromError as error:
            plan.refused[path] = str(error)
            continue
        pixels = sum(photo.luma.width * photo.luma.height for photo in group.values())
        if len(group) == BATCH or pixels > GROUP_PIXELS:
            yield group
            group = {}
    if group:
        yield group
