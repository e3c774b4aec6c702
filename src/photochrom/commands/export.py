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
    format: Annotated[str, typer.Option(metavar="onnx", help="What to write.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Where (default: model.onnx in the model's folder)."
        ),
    ] = None,
    models: Models = MODELS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's network as an ONNX file, for other programs and engines.

    Batch and size are free. The file is compared with torch first, and not
    written where they differ by more than 0.001. `photochrom colorize
    --engine onnx` runs it: faster for one small photo at a time, slower for
    many where torch convolves in bfloat16 (docs/measurements/engines.md). What other
    programs have to give to the network stands in docs/guides/onnx.md.

    [bold]Examples[/bold]
    $ photochrom export model_v1
    $ photochrom colorize old.jpg -o out/ --model model_v1 --engine onnx
    $ photochrom export model_v1 --format onnx -o small.onnx
    $ photochrom colorize old.jpg -o out/ --model small.onnx
    """
    from photochrom import model_folder
    from photochrom.coloring.onnx import write_onnx

    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; there is {', '.join(FORMATS)}")
    folder = model_folder.find_model(model, models)
    if folder.shipped and out is None:
        raise UsageError(f"{folder.name} comes along with Photochrom: say with -o where its ONNX file goes")
    output = out or folder / model_folder.ONNX
    if output.suffix != Path(model_folder.ONNX).suffix:
        raise UsageError(f"-o {output}: name a file that ends in {Path(model_folder.ONNX).suffix}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists: replace it with --overwrite, or take another -o")
    output.parent.mkdir(parents=True, exist_ok=True)
    differences = write_onnx(folder / model_folder.WEIGHTS, output)
    if as_json:
        checks = [difference._asdict() for difference in differences]
        print_json({"model": folder.name, "output": str(output), "differences": checks})
        return
    typer.echo(output)
    shapes = " and ".join(f"{d.photos} x {d.height}x{d.width}" for d in differences)
    say(f"onnxruntime and torch agree within {max(d.largest for d in differences):.1g} (photos: {shapes})")
