"""What a person should do next, by rules that stand here and nowhere else.

A rule is a condition on a Case and the sentence that is said when it holds. COMPARED speaks of each model against the
first, and the first rule that holds is said. NEXT speaks of the model to keep (among several that beat the first, the one of
lowest CIEDE2000), and every rule that holds is said; OTHERWISE if none does. The bounds are judgement, not measurement: they say where a person looking at the pictures begins to mind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from photochrom.evaluation.metrics import MEASURES, SET_MEASURES
from photochrom.evaluation.statistics import BETTER, GRAY, TRUTH, WORSE

FEW_PHOTOS = 100
PALE, GAUDY = 0.6, 1.3  # shares of the true photos' colourfulness
MUCH_FALSE_COLOR = 4.0  # % of almost black pixels
STILL_GRAY = 0.8  # of the gray photos' Frechet distance
MOST_PERCEPTUAL = 1.0
STILL_FALLING = 0.01  # drop of the validation loss over the last quarter of the epochs, as a share of it


@dataclass(frozen=True)
class Case:
    """What the rules look at: a model, and what telling it from the first model gave."""

    name: str
    against: str
    photos: int
    better: str  # titles of measures
    worse: str
    color: float  # its colourfulness as a share of the true photos'
    false_color: float
    likeness: float  # its Frechet distance as a share of the gray photos'
    falling: bool  # whether its validation loss still fell
    perceptual: float
    gan: bool
    trained_here: bool  # whether flags of `photochrom train` can be advised
    distance: float  # CIEDE2000, minus the first model's, at 85 % of the true photos' colourfulness
    continued: bool = False  # whether another of the models goes on from it

    @property
    def half(self) -> float:
        """Half the perceptual weight."""
        return self.perceptual / 2

    @property
    def double(self) -> float:
        """Twice the perceptual weight."""
        return self.perceptual * 2

    @property
    def percent(self) -> str:
        """Its colourfulness in per cent of the truth's."""
        return f"{self.color:.0%}".replace("%", " %")


Rule = tuple[Callable[[Case], bool], str]

COMPARED: tuple[Rule, ...] = (
    (
        lambda c: bool(c.better and not c.worse),
        "{c.name} beats {c.against}: at equal colourfulness it is better on {c.better}, and worse on nothing.",
    ),
    (
        lambda c: bool(c.worse and not c.better and c.perceptual),
        "{c.name} is worse than {c.against} on {c.worse}, and better on nothing. Train it again with half the weight, "
        "--perceptual {c.half:g}, or keep {c.against}.",
    ),
    (
        lambda c: bool(c.worse and not c.better),
        "{c.name} is worse than {c.against} on {c.worse}, and better on nothing. Keep {c.against}.",
    ),
    (
        lambda c: bool(c.worse),
        "{c.name} is better than {c.against} on {c.better}, but worse on {c.worse}: let the pictures decide.",
    ),
    (
        lambda c: True,
        "{c.name} and {c.against} cannot be told apart with {c.photos} photos. Keep the cheaper one, or evaluate on more photos.",
    ),
)
NEXT: tuple[Rule, ...] = (
    (
        lambda c: c.photos < FEW_PHOTOS,
        "{c.photos} photos decide little: evaluate on 500 or more before you act on the rest.",
    ),
    (
        lambda c: c.falling,
        "The validation loss of {c.name} was still falling when it stopped: train it longer first.",
    ),
    (
        lambda c: c.likeness > STILL_GRAY and not c.falling,
        "As a set, the photos of {c.name} are hardly nearer to true ones than gray photos are: train longer, or with more photos.",
    ),
    (
        lambda c: c.false_color > MUCH_FALSE_COLOR and not c.perceptual and not c.continued,
        "{c.name} puts false colour on {c.false_color:.0f} % of the almost black pixels: go on with a second stage, "
        "--from {c.name} --perceptual 0.1.",
    ),
    (
        lambda c: c.false_color > MUCH_FALSE_COLOR and 0 < c.perceptual < MOST_PERCEPTUAL,
        "{c.name} puts false colour on {c.false_color:.0f} % of the almost black pixels in spite of its perceptual loss: raise "
        "it, --perceptual {c.double:g}.",
    ),
    (
        lambda c: c.color < PALE and c.perceptual > 0 and not c.gan,
        "{c.name} is pale, {c.percent} as colourful as true photos: a discriminator gives colour back, --gan; or lower the "
        "weight, --perceptual {c.half:g}.",
    ),
    (
        lambda c: c.color < PALE and not c.perceptual and not c.falling,
        "{c.name} is pale, {c.percent} as colourful as true photos: sample with more steps, or train longer.",
    ),
    (
        lambda c: c.color > GAUDY,
        "{c.name} is gaudy, {c.percent} as colourful as true photos: train longer, or without the GAN.",
    ),
)
KEEP = "Keep {c.name}."
OTHERWISE = (
    "No rule finds anything to mend in {c.name}: stop here, or try what the pictures call for (issues of colour: more "
    "photos of such things; issues of shape: a wider network)."
)


def advise(report: dict[str, Any], models: Sequence[str]) -> list[str]:
    """The sentences for a report whose numbers are complete."""
    first, *others = [_case(report, name, models[0]) for name in models]
    said = [next(text.format(c=case) for holds, text in COMPARED if holds(case)) for case in others]
    winners = [case for case in others if case.better and not case.worse]
    keep = min(winners, key=lambda case: case.distance, default=first)
    if winners:
        said.append(KEEP.format(c=keep))
    rules = NEXT if keep.trained_here else NEXT[:1]
    following = [text for holds, text in rules if holds(keep)]
    if set(following) <= {NEXT[0][1]}:  # few photos are no reason to go on training
        following.append(OTHERWISE)
    return [*said, *(text.format(c=keep) for text in following)]


def _case(report: dict[str, Any], name: str, first: str) -> Case:
    row, true, gray = (report["rows"][key] for key in (name, TRUTH, GRAY))
    facts = report["subjects"][name]
    stage = _last_stage(facts)
    weights = stage[-1].get("weights", {}) if stage else {}
    told = [d for d in report["differences"] if d["model"] == name and d["at"]]
    distance = next((d["at"]["85%"]["value"] for d in told if d["measure"] == "ciede2000"), None)
    titles = {
        v: [(MEASURES | SET_MEASURES)[d["measure"]].title for d in told if d["verdict"] == v]
        for v in (BETTER, WORSE)
    }
    return Case(
        name=name,
        against=first,
        photos=report["data"]["photos"],
        better=", ".join(titles[BETTER]),
        worse=", ".join(titles[WORSE]),
        color=row["colorfulness"]["value"] / (true["colorfulness"]["value"] or 1.0),
        false_color=_value(row, "false_color"),
        likeness=_value(row, "fd_vgg16") / (_value(gray, "fd_vgg16") or 1.0),
        falling=_falling([record["val_loss"] for record in stage]),
        perceptual=weights.get("perceptual", 0.0),
        gan=weights.get("adversarial", 0.0) > 0,
        trained_here="config" in facts,
        distance=distance or 0.0,
        continued=any(f.get("config", {}).get("source") == name for f in report["subjects"].values()),
    )


def _value(row: dict[str, Any], name: str) -> float:
    """A measure's value, 0 where it was not taken or never counted."""
    return row.get(name, {"value": None})["value"] or 0.0


def _last_stage(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The epochs of the stage that a model has come to, which need not be the last one that its recipe plans."""
    history = facts.get("history", [])
    return [record for record in history if record["epoch"] >= history[-1].get("stage_began", 1)]


def _falling(losses: Sequence[float]) -> bool:
    quarter = max(1, len(losses) // 4)
    return len(losses) > quarter and min(losses[-quarter:]) < (1 - STILL_FALLING) * min(losses[:-quarter])
