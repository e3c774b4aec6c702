"""`photochrom export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photochrom.commands.shared import MODELS, Json, Models, print_json, say
from photochrom.errors import UsageError

FORMATS = ("onnx",)


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name or folder.", show_default=False)
    ],
    format: Annotated[str, typer.Option(metavar="onnx", help="Format of the file.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The file (default: model.onnx in the model's folder)."
        ),
    ] = None,
    models: Models = MODELS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> None:
    """Export a model's network as an ONNX file, for other programs.

    The file takes batches and photos of any size. It is written only if its
    results are within 0.001 of torch's. `photochrom colorize --engine onnx`
    runs it: faster for one small photo, slower for many (see
    docs/measurements/engines.md). docs/guides/onnx.md says what other programs
    must feed the network.

    [bold]Examples[/bold]
    $ photochrom export model_v1
    $ photochrom colorize old.jpg -o out/ --model model_v1 --engine onnx
    $ photochrom export model_v1 --format onnx -o small.onnx
    $ photochrom colorize old.jpg -o out/ --model small.onnx
    """
    from photochrom import model_folder
    from photochrom.coloring.onnx import write_onnx

    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: take {', '.join(FORMATS)}")
    folder = model_folder.find_model(model, models)
    if folder.shipped and out is None:
        raise UsageError(f"{folder.name} comes with Photochrom: say with -o where to write its ONNX file")
    output = out or folder / model_folder.ONNX
    if output.suffix != Path(model_folder.ONNX).suffix:
        raise UsageError(f"-o {output}: give a file name that ends in {Path(model_folder.ONNX).suffix}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists: replace it with --overwrite, or give another -o")
    output.parent.mkdir(parents=True, exist_ok=True)
    differences = write_onnx(folder / model_folder.WEIGHTS, output)
    if as_json:
        checks = [difference._asdict() for difference in differences]
        print_json({"model": folder.name, "output": str(output), "differences": checks})
        return
    typer.echo(output)
    shapes = " and ".join(f"{d.photos} x {d.height}x{d.width}" for d in differences)
    say(f"onnxruntime and torch agree within {max(d.largest for d in differences):.1g} (photos: {shapes})")
