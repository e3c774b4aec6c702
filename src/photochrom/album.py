"""Colouring files and folders: which file becomes which, and colouring them group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from photochrom.colorizer import BATCH, Colorizer
from photochrom.data.sources import SUFFIXES
from photochrom.errors import PhotochromError, UsageError
from photochrom.photo import SUFFIXES as KEPT_SUFFIXES
from photochrom.photo import GrayPhoto, open_gray, write

GROUP_PIXELS = 64_000_000  # of the photos held in memory together: about 400 MB with their colours


def plan(inputs: Sequence[Path], out: Path, overwrite: bool) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Where each photo goes ({output: input}), and why some go nowhere ({input: reason}).

    Folders are searched with their sub-folders, whose structure is kept below `out`. With one file as input, `out`
    may be a file. Raises UsageError when `out` is a file and cannot be one.
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
    jobs: dict[Path, Path] = {}
    refused: dict[Path, str] = {}
    for given in inputs:
        photos = _photos_below(given, out) if given.is_dir() else {given: Path(given.name)}
        if not photos:
            refused[given] = f"{given} has no photo in it"
        for path, place in photos.items():
            suffix = path.suffix if path.suffix.lower() in KEPT_SUFFIXES else ".png"
            output = out if single else out / place.with_suffix(suffix)
            if output.exists() and path.exists() and output.samefile(path):
                refused[path] = f"{path} would be written over itself: choose another place with -o"
            elif output in jobs and jobs[output] != path:
                refused[path] = (
                    f"{path} would be written to {output}, as {jobs[output]} is: colour it separately"
                )
            elif output.is_dir() or (output.exists() and not overwrite):
                mend = "is a folder" if output.is_dir() else "exists: replace it with --overwrite"
                refused[path] = f"{path} is left out, {output} {mend}"
            else:
                jobs[output] = path
    return jobs, refused


def _photos_below(folder: Path, out: Path) -> dict[Path, Path]:
    """Every photo below a folder with its place in it, except hidden ones and those that an earlier run put there."""
    inside = out.resolve() if folder.resolve() in out.resolve().parents else None
    photos = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if (
            path.suffix.lower() in SUFFIXES
            and not hidden
            and path.is_file()
            and inside not in path.resolve().parents
        ):
            photos[path] = place
    return photos


def color_files(
    colorizer: Colorizer,
    jobs: dict[Path, Path],
    failed: dict[Path, str],
    progress: Callable[[float], None],
    **options: Any,
) -> Iterator[tuple[Path, Path]]:
    """Colour {output: input} and yield (input, output) of each file as it is written, atomically.

    A photo that cannot be read goes into `failed` with its reason and does not stop the others. progress(done) is told
    how many photos are done, in fractions while a group is worked on. options: as for `Colorizer`.
    """
    done, refused = 0, len(failed)

    def step_done(step: int, steps: int) -> None:
        progress(done + len(failed) - refused + len(group) * step / steps)

    for group in _groups(jobs, failed):
        photos = colorizer(list(group.values()), progress=step_done, **options)
        for output, photo in zip(group, photos, strict=True):
            write(photo, output)
            yield jobs[output], output
        done += len(group)


def _groups(jobs: dict[Path, Path], failed: dict[Path, str]) -> Iterator[dict[Path, GrayPhoto]]:
    """Opened gray photos by output, as many as are worth colouring together and fit into memory."""
    group: dict[Path, GrayPhoto] = {}
    for output, path in jobs.items():
        try:
            group[output] = open_gray(path)
        except PhotochromError as error:
            failed[path] = str(error)
            continue
        if (
            len(group) == BATCH
            or sum(photo.luma.width * photo.luma.height for photo in group.values()) > GROUP_PIXELS
        ):
            yield group
            group = {}
    if group:
        yield group
