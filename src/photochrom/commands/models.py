"""`photochrom models`, `models list`, `models show`, `models mean`, `models push`."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photochrom.commands.shared import MODELS, Json, Models, print_json, print_table, say
from photochrom.errors import PhotochromError

if TYPE_CHECKING:
    from photochrom.model_folder import ModelFolder

app = typer.Typer()


@app.callback(invoke_without_command=True)
def all_models(context: typer.Context, models: Models = MODELS, as_json: Json = False) -> None:
    """List the models and how far their training is, show one, share one, or take a mean.

    [bold]Examples[/bold]
    $ photochrom models
    $ photochrom models --json
    $ photochrom models show model_v1
    """
    if command := context.invoked_subcommand:
        # What stands before the command counts for it, too.
        context.default_map = {command: {"models": models, "as_json": as_json}}
    else:
        list_models(models, as_json)


@app.command("list")
def list_models(models: Models = MODELS, as_json: Json = False) -> None:
    """List the models and how far their training is.

    If a model has been evaluated, the list shows its error in almost black
    regions (dark ΔE), CIEDE2000 (ΔE00), and how colourful its photos are
    beside true ones (colour). Compare losses only within a stage.
    """
    from photochrom import model_folder

    facts: list[dict[str, Any]] = []
    for folder in model_folder.list_models(models):
        try:
            facts.append(_model_facts(folder))
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
    if as_json:
        print_json(facts)
    else:
        _print_list(facts)


@app.command("show", no_args_is_help=True)
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name or folder.")],
    models: Models = MODELS,
    as_json: Json = False,
) -> None:
    """Print a model's card: how it was made, and how good it is.

    [bold]Examples[/bold]
    $ photochrom models show model_v1
    $ photochrom models show model_v1 --json
    """
    from photochrom import model_folder
    from photochrom.evaluation.card import model_card, read_evaluation

    folder = model_folder.find_model(name, models)
    if as_json:
        print_json(
            _model_facts(folder)
            | {"config": folder.config.model_dump(mode="json"), "evaluation": read_evaluation(folder)}
        )
        return
    if folder.history:
        card = model_card(folder, read_evaluation(folder))
    elif (folder / model_folder.CARD).exists():  # from someone who shared weights without a history
        card = (folder / model_folder.CARD).read_text(encoding="utf-8")
    else:
        raise PhotochromError(
            f"model {folder.name!r} has no card before its first epoch is done: train it on"
        )
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(card))
    else:
        typer.echo(card, nl=False)


@app.command("mean", no_args_is_help=True)
def mean_models(
    sources: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Two models or more.")],
    name: Annotated[str, typer.Option("--name", metavar="<str>", help="Name of the new model.")],
    models: Models = MODELS,
) -> None:
    """Make a model whose weights are the mean of others'.

    Where one training went on from the other, or both from one model, their
    mean is often better than each. Whether it is, photochrom evaluate tells.

    [bold]Examples[/bold]
    $ photochrom models mean model_v2 model_v2_longer --name model_v2_mean
    $ photochrom evaluate model_v2_longer model_v2_mean
    """
    from photochrom import model_folder
    from photochrom.training.mean import mean_model

    into = model_folder.model_folder(name, models)
    mean_model([model_folder.find_model(source, models) for source in sources], into)
    say(f"{into.path} has the mean weights of {', '.join(sources)}. Compare them:")
    typer.echo(shlex.join(["photochrom", "evaluate", *sources, name]))


@app.command("push", no_args_is_help=True)
def push_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name or folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/REPO", help="Where to put it on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Show it only to you.")] = False,
    models: Models = MODELS,
) -> None:
    """Share a model on the Hugging Face Hub.

    It uploads the weights for colouring, the configuration, the history and the
    card; checkpoints stay here. Log in first, with `hf auth login`. Others use
    the model with --model hf:OWNER/REPO. Needs pip install 'photochrom\\[hub]'.

    [bold]Examples[/bold]
    $ photochrom models push my_model me/my-colours
    $ photochrom colorize old.jpg -o out/ --model hf:me/my-colours
    """
    from photochrom import hub, model_folder
    from photochrom.evaluation.card import hub_card

    folder = model_folder.find_model(name, models)
    address = hub.push(folder, repo, hub_card(folder), private)
    say(f"{name} is on the Hub. Whoever can see it there can use it:")
    typer.echo(f"photochrom colorize PHOTO.jpg --model {address}")


def _print_list(facts: list[dict[str, Any]]) -> None:
    """Print the table, with figures of evaluations if any model has some."""
    evaluated = any(row["evaluation"] for row in facts)
    rows = [
        [
            *(row["name"], row["stage"], f"{row['epoch']}/{row['epochs']}"),
            "-" if row["best_val_loss"] is None else f"{row['best_val_loss']:.4f}",
            *(_figures(row["evaluation"]) if evaluated else ()),
            *(f"{row['bytes'] / 1e6:,.0f}", _day(row["changed"]) if evaluated else row["changed"]),
        ]
        for row in facts
    ]
    figures = (">dark ΔE", ">ΔE00", ">colour") if evaluated else ()
    print_table(["name", "stage", ">epoch", ">loss", *figures, ">MB", "changed"], rows)
    if old := [row["name"] for row in facts if row["evaluation"] and not row["evaluation"]["current"]]:
        say(f"* measured on earlier weights: `photochrom evaluate {' '.join(old)}` measures the present ones")


def _day(changed: str) -> str:
    """A short date, as `ls` has it: the day within this year, else the month."""
    then = time.strptime(changed, "%Y-%m-%d %H:%M")
    return time.strftime("%d %b" if then.tm_year == time.localtime().tm_year else "%b %Y", then)


def _figures(evaluation: dict[str, Any] | None) -> tuple[str, str, str]:
    if not evaluation:
        return "-", "-", "-"
    mark = "" if evaluation["current"] else "*"
    dark, all_over, share = (evaluation[key] for key in ("dark_error", "ciede2000", "color_share"))
    return (
        "-" if dark is None else f"{dark:.2f}{mark}",
        f"{all_over:.2f}{mark}",
        "-" if share is None else f"{share:.0%}{mark}".replace("%", " %"),
    )


def _model_facts(folder: ModelFolder) -> dict[str, Any]:
    files = [path.stat() for path in folder.path.rglob("*") if path.is_file()]
    return {
        "name": folder.name,
        **folder.progress,
        "evaluation": _evaluation_facts(folder, folder.history),
        "bytes": sum(file.st_size for file in files),
        "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(file.st_mtime for file in files))),
    }


def _evaluation_facts(folder: ModelFolder, history: list[dict[str, Any]]) -> dict[str, Any] | None:
    from photochrom.evaluation.card import color_share, is_current, read_evaluation

    evaluation = read_evaluation(folder)
    if evaluation is None:
        return None
    row = evaluation["rows"]["model"]
    return {
        **{key: evaluation[key] for key in ("data", "date", "epoch")},
        "current": is_current(evaluation, history),  # whether it measured the present weights
        **{key: row[key]["value"] for key in ("dark_error", "false_color", "ab", "ciede2000")},
        "color_share": color_share(evaluation),
    }
