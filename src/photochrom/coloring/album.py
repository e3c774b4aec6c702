"""Colouring files and folders: which file becomes which, and colouring them group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from photochrom import processes
from photochrom.coloring import video
from photochrom.coloring.colorings import Samples
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.manifest import Record, how_made
from photochrom.coloring.options import Options
from photochrom.coloring.photo import SUFFIXES as KEPT_SUFFIXES
from photochrom.coloring.photo import GrayPhoto, open_gray, write
from photochrom.data.reading import HEIC_SUFFIXES, SUFFIXES
from photochrom.errors import PhotochromError, UsageError
from photochrom.pictures import sheet

GROUP_PIXELS = 64_000_000  # of the photos whose luma is held in memory together
SHEET_SIDE = 384


def files_for(output: Path, options: Options) -> list[Path]:
    """The files that are written where one colouring would be `output`."""
    names = [output.name]
    if options.samples > 1:
        names = [f"{output.stem}-{number + 1}{output.suffix}" for number in range(options.samples)]
        names.append(f"{output.stem}-sheet.png")
    if options.uncertainty:
        names.append(f"{output.stem}-uncertainty.png")
    return [output.with_name(name) for name in names]


def pictures_for(samples: Samples, options: Options) -> Iterator[Image.Image]:
    """The pictures for `files_for`, one after the other, so that only one is in memory."""
    if options.samples > 1:
        columns = {"gray": [_small(samples.photo.luma)]}
        for number in range(options.samples):
            picture = samples[number]
            columns[str(number + 1)] = [_small(picture)]
            yield picture
        yield sheet(columns, SHEET_SIDE)
    else:
        yield samples.average() if options.average > 1 else samples[0]
    if options.uncertainty:
        yield samples.uncertainty()


class Colored(NamedTuple):
    """A file that was coloured, the files that were written, and what a person should know of how it was read."""

    source: Path
    files: list[Path]
    notes: tuple[str, ...] = ()


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
    options: Options = Options(),  # noqa: B008 (immutable)
    model: Path | None = None,
) -> Plan:
    """What is to be done.

    Folders are searched with their sub-folders, whose structure is kept below `out`. With one file as input, `out`
    may be a file. model: the file of the weights. Photos that were coloured by it with the same options and have not changed
    since are left alone. Raises UsageError when `out` is a file and cannot be one, and for hints to several photos.
    """
    single = (
        len(inputs) == 1
        and not inputs[0].is_dir()
        and out.suffix.lower() in ([video.WRITTEN_SUFFIX] if video.is_video(inputs[0]) else KEPT_SUFFIXES)
        and not out.is_dir()
    )
    if out.exists() and not out.is_dir() and not single:
        raise UsageError(
            f"-o {out} is a file: name a folder, or a new file such as coloured.png for a single photo"
        )
    result = Plan(record=None if single else Record(out, how_made(options, model)))
    if result.record and result.record.problem:
        result.warnings.append(result.record.problem)
    taken: dict[Path, Path] = {}
    for given in inputs:
        photos = _photos_below(given, out) if given.is_dir() else {given: Path(given.name)}
        if not photos:
            result.refused[given] = f"{given} has no photo in it"
        for path, place in photos.items():
            output = out if single else out / place.with_suffix(_kept_suffix(path))
            _place(result, path, output, files_for(output, options), overwrite, taken)
    options.check_count(len(result.jobs))
    return result


def _kept_suffix(path: Path) -> str:
    """How the coloured file's name ends: as the photo's, where that can be written."""
    if video.is_video(path):
        return video.WRITTEN_SUFFIX
    return path.suffix if path.suffix.lower() in KEPT_SUFFIXES else ".png"


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
    options: Options = Options(),  # noqa: B008 (immutable)
) -> Iterator[Colored]:
    """Colour what is planned, first photos, then videos; yield each when it is written, each file atomically.

    What cannot be read or written goes into `plan.refused` with its reason and does not stop the others.
    progress(done) is told how many are done, in fractions while a group or a video is worked on.
    """
    finished = -len(plan.refused)

    def steps_done(done: int, steps: int) -> None:
        progress(finished + len(plan.refused) + len(group) * done / steps)

    def frames_done(done: int, frames: int) -> None:
        progress(finished + len(plan.refused) + (min(1.0, done / frames) if frames else 0.0))

    try:
        for group in _groups(plan, options):
            drawn = colorizer.samples(list(group.values()), options=options, progress=steps_done)
            for output, samples in zip(group, drawn, strict=True):
                if colored := _write(plan, output, samples, options):
                    finished += 1
                    yield colored
        for output, film in plan.jobs.items():
            if video.is_video(film) and _color_video(colorizer, plan, output, options, frames_done):
                finished += 1
                yield Colored(film, [output])
    finally:
        if plan.record:
            plan.record.save()


def _write(plan: Plan, output: Path, samples: Samples, options: Options) -> Colored | None:
    """Write one photo's files; None if it was refused."""
    photo, files = plan.jobs[output], files_for(output, options)
    ours = {file for file in files if plan.record and plan.record.is_ours(output, [file])}
    try:
        for file, picture in zip(files, pictures_for(samples, options), strict=True):
            write(picture, file)
            ours.add(file)
    except PhotochromError as error:
        plan.refused[photo] = f"{photo}: {error}"
        if plan.record and (there := [file for file in files if file in ours and file.exists()]):
            plan.record.add(None, output, there)  # or the next run would take them for a person's
        return None
    if plan.record:
        plan.record.add(photo, output, files)
    return Colored(photo, files, samples.photo.notes)


def _color_video(
    colorizer: Colorizer, plan: Plan, output: Path, options: Options, progress: Callable[[int, int], None]
) -> bool:
    """Colour one video; False if it was refused."""
    film = plan.jobs[output]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        video.color_video(colorizer, film, output, options.without(*video.ONLY_PHOTOS), progress=progress)
    except UsageError:
        raise
    except PhotochromError as error:
        plan.refused[film] = str(error)
        return False
    if plan.record:
        plan.record.add(film, output, [output])
    return True


def _groups(plan: Plan, options: Options) -> Iterator[dict[Path, GrayPhoto]]:
    """Opened photos by output, as many as are worth colouring together and fit into memory."""
    group: dict[Path, GrayPhoto] = {}
    for output, path in plan.jobs.items():
        if video.is_video(path):
            continue
        try:
            group[output] = open_gray(path, options.max_megapixels, options.truncated)
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
