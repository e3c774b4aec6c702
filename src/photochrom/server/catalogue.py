"""Facts about the models, read from their folders at each request, so that a running training shows live."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from photochrom import model_folder
from photochrom.config import DEFAULT_MODEL, Config, LearntFrom
from photochrom.errors import PhotochromError
from photochrom.evaluation.card import SHOWN, is_current, read_evaluation
from photochrom.evaluation.metrics import ALL_MEASURES
from photochrom.files import read_json
from photochrom.model_folder import ModelFolder
from photochrom.server.problems import Problem

ENCODERS = {"none": "", "vgg16": "VGG16", "lite0": "EfficientNet-Lite0"}
GLANCE = ("ciede2000", "dark_error", "colorfulness")
NAMED = 2  # data sets that a sentence names; it counts more than that
SHEET = re.compile(r"epoch_(\d+)\.png")


class Report(TypedDict):
    """The part of `report.json` that the list of reports needs: which models took part."""

    subjects: dict[str, Any]


REPORT_FILE = TypeAdapter(Report)


class Catalogue:
    """The model folders in one folder, and the evaluation reports in another."""

    def __init__(self, models: Path, reports: Path) -> None:
        self._models, self._reports = models, reports

    def find(self, name: str) -> ModelFolder:
        """The model of that name, or Problem 404.

        Never makes a path from a name: looks it up in the list of folders.
        """
        folders = {folder.name: folder for folder in model_folder.list_models(self._models)}
        if name not in folders:
            known = ", ".join(folders) or "none yet; make one with `photochrom train`"
            raise Problem(404, f"there is no model {name!r}; there are: {known}")
        return folders[name]

    def usable(self, name: str) -> ModelFolder:
        """The model of that name, if it can colour. Problem 409 if its training has not finished an epoch."""
        folder = self.find(name)
        if not (folder / model_folder.WEIGHTS).is_file():
            raise Problem(409, f"the model {name!r} has no weights yet: wait until its first epoch is done")
        return folder

    def all(self) -> list[dict[str, Any]]:
        """The facts of all models: the default model, other shipped ones, then the last changed first.

        A folder that cannot be read appears with its error.
        """
        facts = []
        for folder in model_folder.list_models(self._models):
            try:
                facts.append(self.facts(folder))
            except PhotochromError as error:
                facts.append(
                    {
                        "name": folder.name,
                        "usable": False,
                        "training": False,
                        "shipped": folder.shipped,
                        "changed": 0.0,
                        "error": str(error),
                    }
                )

        def rank(fact: dict[str, Any]) -> tuple[bool, bool, float]:
            return fact["name"] == DEFAULT_MODEL, fact["shipped"], fact["changed"]

        return sorted(facts, key=rank, reverse=True)

    def facts(self, folder: ModelFolder) -> dict[str, Any]:
        """One model's facts, as the list shows them."""
        config, history = folder.config, folder.history
        usable, running = (folder / model_folder.WEIGHTS).is_file(), folder.being_trained
        files = [path for path in folder.path.iterdir() if path.is_file()]
        seconds_left = None
        if running and history:
            seconds_left = round(history[-1]["seconds"] * (config.last_epoch - history[-1]["epoch"]))
        return {
            "name": folder.name,
            "about": about(config),
            "use": use(model_folder.learnt_from(config, self._models)),
            "usable": usable,
            "training": running,
            "shipped": folder.shipped,
            **folder.progress,
            "seconds_left": seconds_left,
            "source": config.source,
            "data": config.data.title,
            "size": config.data.size,
            "features": list(config.model.features),
            "timesteps": config.diffusion.timesteps,
            "steps": config.steps,
            "quality": quality(folder),
            "bytes": (folder / model_folder.WEIGHTS).stat().st_size if usable else 0,
            "changed": max(path.stat().st_mtime for path in files),
        }

    def details(self, name: str) -> dict[str, Any]:
        """A model's facts, configuration and evaluation, with the names of its sample sheets and reports."""
        folder = self.find(name)
        return self.facts(folder) | {
            "config": folder.config.model_dump(mode="json"),
            "evaluation": evaluation(folder),
            "samples": sorted(self.sheets(folder)),
            "reports": sorted(self.reports(name)),
        }

    def sheets(self, folder: ModelFolder) -> dict[int, Path]:
        """Paths of the sample sheets, by epoch."""
        found = ((SHEET.fullmatch(path.name), path) for path in (folder / "samples").glob("epoch_*.png"))
        return {int(match[1]): path for match, path in found if match}

    def reports(self, name: str) -> dict[str, Path]:
        """Folders of the evaluations that a model took part in, by name."""
        found = {}
        for path in self._reports.glob("*/report.json"):
            try:
                subjects = read_json(path, REPORT_FILE)["subjects"]
            except (FileNotFoundError, PhotochromError):
                continue  # half written, or another program's
            if name in subjects and (path.parent / "report.html").is_file():
                found[path.parent.name] = path.parent
        return found


def about(config: Config) -> str:
    """One sentence that says what a model is."""
    if config.stages[-1].distill:
        return f"Fast: {config.steps} steps, learnt from {config.source or 'another model'}."
    encoder = ENCODERS[config.model.encoder.removesuffix("x2")]
    sight = f"recognises things with {encoder}" if encoder else "knows light and shape only"
    return f"Thorough: {config.steps} steps; {sight}."


def use(learnt_from: Sequence[LearntFrom]) -> str:
    """What one may use a model for, by its own data set, which comes first, and those of its ancestors."""
    names = dict.fromkeys(each.name for each in learnt_from)
    others = [name for name in names if not name.startswith("tiny-imagenet")]
    if len(others) == len(names):
        return f"For any use that the licence of its training photos ({', '.join(names)}) allows."
    if len(others) > NAMED:
        others = [f"{len(others)} other data sets"]
    listed = " and ".join([", ".join(["Tiny ImageNet", *others[:-1]]), *others[-1:]])
    return f"For research and private use only: it learnt from {listed}."


def quality(folder: ModelFolder) -> dict[str, Any] | None:
    """The main figures, each with its 95 % interval. None if there is no evaluation, or its file is torn."""
    try:
        found = read_evaluation(folder)
    except PhotochromError:
        return None
    if not found:
        return None
    rows = {name: found["rows"]["model"].get(name) for name in GLANCE}
    if any(row is None or row["value"] is None for row in rows.values()):
        return None
    true = found["rows"]["true"]["colorfulness"]["value"]
    gray = found["rows"]["gray"]["ciede2000"]["value"]
    data = found["data"]
    return {
        "data": f"{data['photos']} {data['split']} photos of {data['name']}",
        "gray": gray,
        "true": true,
        **rows,
    }


def evaluation(folder: ModelFolder) -> dict[str, Any] | None:
    """Results of the model's last evaluation, beside gray and true photos; None if there is none."""
    found = read_evaluation(folder)
    if not found:
        return None
    measures = []
    for name in SHOWN:
        values = {row: found["rows"][row].get(name) for row in ("model", "gray", "true")}
        if values["model"] and values["model"]["value"] is not None:
            measure = ALL_MEASURES[name]
            known = {
                row: round(entry["value"], measure.digits)
                for row, entry in values.items()
                if entry and entry["value"] is not None
            }
            measures.append(
                {
                    "name": name,
                    "title": measure.title,
                    "unit": measure.unit,
                    "meaning": measure.meaning,
                    **known,
                }
            )
    facts = {key: found[key] for key in ("data", "date", "epoch")}
    return facts | {"current": is_current(found, folder.history), "measures": measures}
