"""`photochrom data import`, `data info`, `data list`, `data clean`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from photochrom.commands.shared import (
    DATA_DIR,
    MODELS,
    DataDir,
    Json,
    Models,
    print_json,
    print_table,
    say,
    unless_default,
)
from photochrom.errors import PhotochromError, UsageError

app = typer.Typer(no_args_is_help=True, help="Make data sets of photos, list and inspect them.")


@app.command("import", no_args_is_help=True)
def data_import(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of photos, or Tiny ImageNet's zip.", show_default=False
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the data set (default: the source's).")] = None,
    size: Annotated[int, typer.Option(help="Side of the square photos, in pixels.")] = 64,
    photos: Annotated[
        int | None, typer.Option(help="Number of photos to keep, drawn at random (default: all).")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Keep only this category; repeat for more.")
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share to hold out, unless the source holds out some itself.")
    ] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the held-out photos to keep for final tests.")] = 0.5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.")] = 0,
    shards: Annotated[
        bool, typer.Option("--shards", help="Write WebDataset shards, for photos that fill many disks.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of this name.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Pack photos into a data set, which training reads without decoding.

    Leaves out gray photos, duplicates and broken files, and counts them.
    Photos that look alike stay together, all for training or all held out.
    Sub-folders become categories.

    [bold]Examples[/bold]
    $ photochrom data import ~/Pictures --name mine --size 128
    $ photochrom data import tiny-imagenet-200.zip
    $ photochrom data import tiny-imagenet-200.zip --name cats --category tabby
    """
    from photochrom.commands.terminal import Display
    from photochrom.data.dataset import open_data
    from photochrom.data.importing import import_photos

    own_name = source.stem if source.is_file() else source.resolve().name
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", own_name).strip("-.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"data set name {name!r}: use letters, digits, '.', '_' and '-', such as --name mine"
        )
    with Display() as display:
        report = import_photos(
            source,
            data_dir / name,
            size=size,
            limit=photos,
            categories=category,
            validation=validation,
            test=test,
            seed=seed,
            shards=shards,
            overwrite=overwrite,
            progress=lambda done, total, what: display.show(done, total, f"{done:,} of {total:,} {what}"),
        )
    facts = open_data(report.folder).summary()
    if as_json:
        files = [entry._asdict() for entry in report.left_out_files]
        print_json(
            {**facts, "folder": str(report.folder), "seconds": report.seconds, "left_out_files": files}
        )
    else:
        _print_counts(facts)
    broken = [entry for entry in report.left_out_files if entry.reason == "broken"]
    for entry in broken[:5]:
        say(f"broken: {entry.origin}: {entry.detail}")
    if len(broken) > 5:
        listed = report.folder / ("left_out.json" if shards else "index.json")
        say(f"... and {len(broken) - 5} more; {listed} lists all")
    place = unless_default("--data-dir", data_dir, DATA_DIR)
    say(f"Made {report.folder} in {report.seconds:.0f} s.")
    if missing := [part for part in ("train", "validation") if not report.counts[part]]:
        say(
            f"It has no photos for {' and '.join(missing)}, so no model can train on it: import at least two "
            "photos that do not look alike, with --validation above 0. Good colours need thousands of photos."
        )
        return
    say("Next:")
    say(f"  photochrom data info {name}{place}")
    say(f"  photochrom train --data {name}{place}")


def _print_counts(facts: dict[str, Any]) -> None:
    rows = [[split, f"{count:,}"] for split, count in facts["counts"].items()]
    if (alike := facts["look_alikes"]) and alike["groups"]:
        rows.append([f"look-alikes ({alike['groups']:,} groups)", f"{alike['photos']:,}"])
    rows += [[f"left out: {reason}", f"{count:,}"] for reason, count in facts["left_out"].items()]
    print_table([facts["name"], ">photos"], rows)


@app.command("info", no_args_is_help=True)
def data_info(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A data set's name or folder.", show_default=False)
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Contact sheet (default: in the data set's folder)."),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Count the photos of a data set, and draw a contact sheet.

    [bold]Examples[/bold]
    $ photochrom data info demo
    $ photochrom data info tiny-imagenet-200 --sheet sheet.png --json
    """
    from photochrom.data.dataset import find
    from photochrom.data.pack import contact_sheet
    from photochrom.files import write_bytes
    from photochrom.pictures import png

    pack = find(name, data_dir, typed=True)
    facts = pack.summary()
    shown_from = pack.to_look_at()
    sheet = sheet or shown_from.folder / "contact_sheet.png"
    write_bytes(sheet, png(contact_sheet(shown_from)))
    if as_json:
        print_json({**facts, "contact_sheet": str(sheet)})
        return
    _print_counts(facts)
    shown = [f"{name} {count:,}" for name, count in facts["categories"].items()]
    say(f"{facts['size']} x {facts['size']} pixels, from {facts['source']}, {facts['bytes'] / 1e6:,.0f} MB")
    if facts["feature_bytes"]:
        say(f"{facts['feature_bytes'] / 1e6:,.0f} MB of this are encoders' features: photochrom data clean")
    if shown:
        say(f"{len(shown)} categories: {', '.join(shown[:6])}{', ...' if len(shown) > 6 else ''}")
    if facts["look_alikes"] is None:
        say(
            "An earlier version made this data set and did not look for look-alikes: import the photos again."
        )
    say(f"contact sheet: {sheet}")


@app.command("clean")
def data_clean(models: Models = MODELS, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Delete features that no model needs.

    Training stores what the encoder sees in each photo beside the data set,
    for each combination of settings. It computes missing features again.

    [bold]Examples[/bold]
    $ photochrom data clean
    $ photochrom data clean --models elsewhere/models --json
    """
    from photochrom.data.dataset import names, open_data
    from photochrom.data.pack import Pack
    from photochrom.model_folder import list_models
    from photochrom.training.features import remove_unneeded

    # A model that cannot be read may need any of them: its error ends the command before it deletes one.
    configs = [folder.config for folder in list_models(models)]
    removed: dict[str, int] = {}
    for name in names(data_dir):
        try:
            pack = open_data(data_dir / name)
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
            continue
        if isinstance(pack, Pack):
            found = remove_unneeded(pack, configs)
            removed |= {str(data_dir / name / file): size for file, size in found.items()}
    if as_json:
        print_json(removed)
        return
    for file, size in removed.items():
        say(f"deleted {file}, {size / 1e6:,.0f} MB")
    if not removed:
        say(f"nothing to delete in {data_dir}/: models in {models}/ may need whatever is there")


@app.command("list")
def data_list(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """List the data sets.

    [bold]Examples[/bold]
    $ photochrom data list
    $ photochrom data list --json
    """
    from photochrom.data.dataset import names, open_data

    sets = []
    for name in names(data_dir):
        try:
            sets.append(open_data(data_dir / name).summary())
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
    if as_json:
        print_json([{key: facts[key] for key in facts if key != "categories"} for facts in sets])
    elif sets:
        counts = [[f"{count:,}" for count in facts["counts"].values()] for facts in sets]
        rows = [
            [facts["name"], str(facts["size"]), *numbers, f"{facts['bytes'] / 1e6:,.0f}"]
            for facts, numbers in zip(sets, counts, strict=True)
        ]
        print_table(["name", ">pixels", ">train", ">validation", ">test", ">MB"], rows)
    else:
        say(f"no data set in {data_dir}/: make one with `photochrom data import`")
