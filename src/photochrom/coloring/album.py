"""Colours files and folders: plans which file goes where, then colours them group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from photochrom import processes
from photochrom.coloring import film, video
from photochrom.coloring.colorings import Colorings
from photochrom.coloring.colorizer import BATCH, Colorizer
from photochrom.coloring.manifest import Record, how_made
from photochrom.coloring.options import Options
from photochrom.coloring.photo import ASKED_SUFFIXES, GrayPhoto, make_folder, open_gray, write
from photochrom.coloring.photo import SUFFIXES as KEPT_SUFFIXES
from photochrom.data.reading import HEIC_SUFFIXES, SUFFIXES
from photochrom.errors import PhotochromError, UsageError
from photochrom.pictures import sheet

GROUP_PIXELS = 64_000_000  # pixels at most of the photos that are in memory together
SHEET_SIDE = 384
# Systems keep thumbnails and deleted files here.
SYSTEM_FOLDERS = ("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "__MACOSX")
UNREAD_SUFFIXES = (  # pictures that we cannot read, but people may expect us to: camera raw, layered drawings
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".psd", ".psb", ".xcf", ".tga", ".jxl", ".jxr", ".exr", ".hdr"),
)
Progress = Callable[[float, int, str], None]  # (done, total, unit)


def files_for(output: Path, options: Options) -> list[Path]:
    """The files that the options ask for, where a single colouring would be written to `output`."""
    names = [output.name]
    if options.samples > 1:
        names = [f"{output.stem}-{number + 1}{output.suffix}" for number in range(options.samples)]
        names.append(f"{output.stem}-sheet.png")
    if options.uncertainty:
        names.append(f"{output.stem}-uncertainty.png")
    return [output.with_name(name) for name in names]


def pictures_for(samples: Colorings, options: Options) -> Iterator[Image.Image]:
    """The pictures for `files_for`, made one by one, so that only one is in memory."""
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
    """A coloured file, the files that were written for it, and notes for the user."""

    source: Path
    files: list[Path]
    notes: tuple[str, ...] = ()


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return small


@dataclass
class Plan:
    """What `color_files` is to do."""

    jobs: dict[Path, Path] = field(default_factory=dict)  # {output: photo or video}
    refused: dict[Path, str] = field(default_factory=dict)  # {input: reason}
    unchanged: list[Path] = field(default_factory=list)  # inputs whose outputs are up to date
    warnings: list[str] = field(default_factory=list)
    record: Record | None = None

    def share(self) -> Plan:
        """This process's share of the jobs, with its own list of refusals."""
        return Plan(dict(processes.mine(list(self.jobs.items()))), record=self.record)


def plan(
    inputs: Sequence[Path],
    out: Path,
    overwrite: bool,
    options: Options = Options(),  # noqa: B008 (immutable)
    model: Path | None = None,
) -> Plan:
    """Plan where each photo and video of the inputs goes.

    inputs: files and folders; folders are searched with their sub-folders, and keep their structure below
    `out`. out: a folder, or, for one input file, a file. model: the file of the weights. A photo is left
    alone if this model has coloured it with the same options and it has not changed since. Raises UsageError
    if `out` cannot be a file but is one, and for hints if there are several photos.
    """
    single = _is_one_file(inputs, out)
    result = Plan(record=None if single else Record(out, how_made(options, model)))
    if result.record and result.record.problem:
        result.warnings.append(result.record.problem)
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        files = _files_below(given, out, result.warnings) if given.is_dir() else {given: Path(given.name)}
        if not files:
            result.refused[given] = f"{given} has no photo in it"
        found += files.items()
    # A photo that keeps its name has priority over one whose suffix changes.
    kept = {file for _, place in found if _suffix(place) is None for file in files_for(out / place, options)}
    taken: dict[Path, Path] = {}
    for path, place in found:
        output = out if single else _named(out / place, path, kept, taken, options)
        _place(result, path, output, files_for(output, options), overwrite, taken)
    options.check_count(len(result.jobs))
    return result


def _is_one_file(inputs: Sequence[Path], out: Path) -> bool:
    """Whether `out` is a file, not a folder. Raises UsageError if it must not be a file but is one."""
    if out.is_dir():
        return False
    suffix = out.suffix.lower()
    named = suffix in (*SUFFIXES, *HEIC_SUFFIXES, *film.SUFFIXES)
    if len(inputs) > 1 or inputs[0].is_dir():
        if out.exists() or named:
            raise UsageError(f"-o {out} is one file, but there may be several to write: name a folder")
        return False
    writable = film.FORMATS if video.is_video(inputs[0]) else ASKED_SUFFIXES
    if suffix in writable:
        return True
    if out.exists() or named:
        kind = "a video" if video.is_video(inputs[0]) else "a photo"
        raise UsageError(f"-o {out}: {kind} is written as {', '.join(writable)}; or name a folder")
    return False


def _suffix(place: Path) -> str | None:
    """The new suffix for a coloured file, or None if it keeps its own."""
    if video.is_video(place):
        return None if place.suffix.lower() == ".mp4" else ".mp4"
    return None if place.suffix.lower() in KEPT_SUFFIXES else ".png"


def _named(place: Path, path: Path, kept: set[Path], taken: dict[Path, Path], options: Options) -> Path:
    """The output for a photo at this place: a.gif becomes a.png, or a.gif.png if a.png is taken."""
    suffix = _suffix(place)
    if suffix is None:
        return place
    short = place.with_suffix(suffix)
    free = all(
        file not in kept and taken.get(file, path).name == path.name for file in files_for(short, options)
    )
    return short if free else place.with_name(place.name + suffix)


def _place(
    result: Plan, path: Path, output: Path, files: list[Path], overwrite: bool, taken: dict[Path, Path]
) -> None:
    """Add one photo to the plan: as a job, as unchanged, or as refused."""
    record = result.record
    double = next((file for file in files if taken.get(file, path) != path), None)
    kept = next((file for file in files if file.exists()), None)
    if any(file.exists() and path.exists() and file.samefile(path) for file in files):
        result.refused[path] = f"{path} would overwrite itself: choose another place with -o"
    elif double:
        result.refused[path] = (
            f"{path} would be written to {double}, like {taken[double]}: colour it separately"
        )
    elif any(file.is_dir() for file in files):
        result.refused[path] = f"{path} is left out: {output} is a folder"
    elif not overwrite and record and record.is_current(path, output, files):
        result.unchanged.append(path)
    elif kept and not overwrite and not (record and record.is_ours(output, files)):
        result.refused[path] = f"{path} is left out: {kept} exists; replace it with --overwrite"
    else:
        result.jobs[output] = path
    taken |= dict.fromkeys(files, path)


def _files_below(folder: Path, out: Path, warnings: list[str]) -> dict[Path, Path]:
    """Find the photos and videos below a folder: {file: its path relative to the folder}.

    It skips hidden files, system folders, and everything below `out`. Adds a line to `warnings` if there are
    pictures that we cannot read.
    """
    inside = out.resolve() if folder.resolve() in out.resolve().parents else None
    files, unread = {}, []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        suffix = path.suffix.lower()
        if any(part.startswith(".") or part in SYSTEM_FOLDERS for part in place.parts):
            continue
        if suffix in UNREAD_SUFFIXES:
            unread.append(path)
        elif (
            suffix in (*SUFFIXES, *HEIC_SUFFIXES, *film.SUFFIXES)
            and path.is_file()
            and inside not in path.resolve().parents
        ):
            files[path] = place
    if unread:
        names = ", ".join(map(str, unread[:3])) + (f" and {len(unread) - 3} more" if len(unread) > 3 else "")
        warnings.append(f"{names} cannot be read: save those you want to colour as TIFF, PNG or JPEG")
    return files


def color_files(
    colorizer: Colorizer,
    plan: Plan,
    progress: Progress,
    options: Options = Options(),  # noqa: B008 (immutable)
) -> Iterator[Colored]:
    """Carry out a plan, first photos, then videos. Yields each after writing its files atomically.

    An input that cannot be read or written goes into `plan.refused` with the reason and does not stop the
    others. Calls progress(done, total, "photos"), with fractions of photos while a group is in work, and
    progress(done, total, "frames of NAME") for each video.
    """
    films = {output: path for output, path in plan.jobs.items() if video.is_video(path)}
    finished = -len(plan.refused)

    def steps_done(done: int, steps: int) -> None:
        photos = finished + len(plan.refused) + len(group) * done / steps
        progress(photos, len(plan.jobs) - len(films), "photos")

    try:
        for group in _groups(plan, options):
            drawn = colorizer.samples(list(group.values()), options=options, progress=steps_done)
            for output, samples in zip(group, drawn, strict=True):
                if colored := _write(plan, output, samples, options):
                    finished += 1
                    yield colored
        for output in films:
            if colored := _color_video(colorizer, plan, output, options, progress):
                yield colored
    finally:
        if plan.record:
            plan.record.save()


def _write(plan: Plan, output: Path, samples: Colorings, options: Options) -> Colored | None:
    """Write one photo's files. Returns None if that fails, with the reason in `plan.refused`."""
    photo, files = plan.jobs[output], files_for(output, options)
    ours = {file for file in files if plan.record and plan.record.is_ours(output, [file])}
    notes = dict.fromkeys(samples.photo.notes)
    try:
        for file, picture in zip(files, pictures_for(samples, options), strict=True):
            notes |= dict.fromkeys(write(picture, file))
            ours.add(file)
    except PhotochromError as error:
        plan.refused[photo] = f"{photo}: {error}"
        if plan.record and (there := [file for file in files if file in ours and file.exists()]):
            plan.record.add(None, output, there)  # else the next run would take them for the user's files
        return None
    if plan.record:
        plan.record.add(photo, output, files)
    return Colored(photo, files, tuple(notes))


def _color_video(
    colorizer: Colorizer, plan: Plan, output: Path, options: Options, progress: Progress
) -> Colored | None:
    """Colour one video. Returns None if that fails, with the reason in `plan.refused`."""
    source = plan.jobs[output]

    def frames_done(done: int, frames: int) -> None:
        progress(done, frames, f"frames of {source.name}")

    try:
        make_folder(output.parent)
        used = options.without(*video.ONLY_PHOTOS)
        notes = video.color_video(colorizer, source, output, used, progress=frames_done)
    except UsageError:
        raise
    except PhotochromError as error:
        plan.refused[source] = str(error)
        return None
    if plan.record:
        plan.record.add(source, output, [output])
    return Colored(source, [output], notes)


def _groups(plan: Plan, options: Options) -> Iterator[dict[Path, GrayPhoto]]:
    """Open photos in groups of at most BATCH photos and about GROUP_PIXELS pixels: {output: photo}."""
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
