"""`photochrom models`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from photochrom.commands.shared import MODELS, Json, Models, print_json, print_table, say
from photochrom.errors import PhotochromError

if TYPE_CHECKING:
    from photochrom.store import ModelFolder


def list_models(models: Models = MODELS, as_json: Json = False) -> None:
    """List the models, with what their training has come to.

    [bold]Examples[/bold]
    $ photochrom models
    $ photochrom models --json
    """
    from photochrom import store

    facts: list[dict[str, Any]] = []
    for folder in store.list_models(models):
        try:
            facts.append(_model_facts(folder))
        except PhotochromError as error:
            say(f"photochrom: error: {error}")
    if as_json:
        print_json(facts)
    elif facts:
        rows = [
            [
                *(row["name"], row["stage"], f"{row['epoch']}/{row['epochs']}"),
                "-" if row["best_val_loss"] is None else f"{row['best_val_loss']:.4f}",
                *(f"{row['bytes'] / 1e6:,.0f}", row["changed"]),
            ]
            for row in facts
        ]
        print_table(["name", "stage", ">epoch", ">best loss", ">MB", "changed"], rows)
    else:
        say(f"no model in {models}/: make one with `photochrom train` or `photochrom demo`")


def _model_facts(folder: ModelFolder) -> dict[str, Any]:
    from photochrom.store import best_record

    config, history = folder.config, folder.history
    files = [path.stat() for path in folder.path.rglob("*") if path.is_file()]
    return {
        "name": folder.name,
        "stage": history[-1]["stage"] if history else config.stages[0].label,
        "epoch": len(history),
        "epochs": config.last_epoch,
        "best_val_loss": best_record(history)["val_loss"] if history else None,
        "bytes": sum(file.st_size for file in files),
        "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(file.st_mtime for file in files))),
    }
