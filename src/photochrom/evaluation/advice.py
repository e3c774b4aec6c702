"""Advises the user what to do next, by rules.

A rule is a condition on a Case and a sentence. COMPARED compares each model with the first; the first rule
that holds gives the sentence. NEXT is about the model to keep (of several that beat the first, the one with
the lowest CIEDE2000); every rule that holds gives a sentence, or OTHERWISE if none holds. The thresholds are
judgement, not measurement: from there on, people looking at the pictures begin to mind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from photochrom.evaluation.metrics import ALL_MEASURES
from photochrom.evaluation.statistics import BETTER, GRAY, TRUTH, WORSE

FEW_PHOTOS = 100
PALE, GAUDY = 0.6, 1.3  # shares of the true photos' colourfulness
MUCH_FALSE_COLOR = 4.0  # % of almost black pixels
STILL_GRAY = 0.8  # share of the gray photos' Frechet distance
MOST_PERCEPTUAL = 1.0
STILL_FALLING = 0.01  # relative drop of the validation loss over the last quarter of the epochs


@dataclass(frozen=True)
class Case:
    """The facts for the rules: a model, and its comparison with the first model."""

    name: str
    against: str  # name of the first model
    photos: int
    better: str  # titles of the measures on which it is better
    worse: str
    color: float  # its colourfulness as a share of the true photos'
    false_color: float
    likeness: float  # its Frechet distance as a share of the gray photos'
    falling: bool  # whether its validation loss was still falling
    perceptual: float  # weight of the perceptual loss
    gan: bool
    trained_here: bool  # a model, not another tool, so that advice can name flags of `photochrom train`
    distance: float  # CIEDE2000 minus the first model's, at 85 % of the true photos' colourfulness
    continued: bool = False  # whether another of the models was trained from it

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
        "{c.name} beats {c.against}: at equal colourfulness it is better on {c.better}, and worse on "
        "nothing.",
    ),
    (
        lambda c: bool(c.worse and not c.better and c.perceptual),
        "{c.name} is worse than {c.against} on {c.worse}, and better on nothing. Train it again with half "
        "the weight, --perceptual {c.half:g}, or keep {c.against}.",
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
        "{c.name} and {c.against} cannot be told apart with {c.photos} photos. Keep the cheaper one, or "
        "evaluate on more photos.",
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
        "As a set, the photos of {c.name} are hardly nearer to true photos than gray photos are: train "
        "longer, or with more photos.",
    ),
    (
        lambda c: c.false_color > MUCH_FALSE_COLOR and not c.perceptual and not c.continued,
        "{c.name} puts false colour on {c.false_color:.0f} % of the almost black pixels: train a second "
        "stage, --from {c.name} --perceptual 0.1.",
    ),
    (
        lambda c: c.false_color > MUCH_FALSE_COLOR and 0 < c.perceptual < MOST_PERCEPTUAL,
        "{c.name} puts false colour on {c.false_color:.0f} % of the almost black pixels despite its "
        "perceptual loss: raise the weight, --perceptual {c.double:g}.",
    ),
    (
        lambda c: c.color < PALE and c.perceptual > 0 and not c.gan,
        "{c.name} is pale, {c.percent} as colourful as true photos: add a discriminator, --gan, for more "
        "colour; or lower the weight, --perceptual {c.half:g}.",
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
    "No rule finds a fault in {c.name}: stop here, or look at the pictures (wrong colours call for more "
    "training photos of such things, wrong shapes for a wider network)."
)


def advise(report: dict[str, Any], models: Sequence[str]) -> list[str]:
    """The advice for a complete report, in sentences. The first of `models` is compared with the others."""
    first, *others = [_case(report, name, models[0]) for name in models]
    sentences = [next(text.format(c=case) for holds, text in COMPARED if holds(case)) for case in others]
    winners = [case for case in others if case.better and not case.worse]
    keep = min(winners, key=lambda case: case.distance, default=first)
    if winners:
        sentences.append(KEEP.format(c=keep))
    rules = NEXT if keep.trained_here else NEXT[:1]
    following = [text for holds, text in rules if holds(keep)]
    # Having few photos is no reason to train on, and another tool is not ours to train.
    if keep.trained_here and set(following) <= {NEXT[0][1]}:
        following.append(OTHERWISE)
    return [*sentences, *(text.format(c=keep) for text in following)]


def _case(report: dict[str, Any], name: str, first: str) -> Case:
    row, true, gray = (report["rows"][key] for key in (name, TRUTH, GRAY))
    facts = report["subjects"][name]
    stage = _last_stage(facts)
    weights = stage[-1].get("weights", {}) if stage else {}
    told = [d for d in report["differences"] if d["model"] == name and d["at"]]
    distance = next((d["at"]["85%"]["value"] for d in told if d["measure"] == "ciede2000"), None)
    titles = {
        v: [ALL_MEASURES[d["measure"]].title for d in told if d["verdict"] == v] for v in (BETTER, WORSE)
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
    """A measure's value, 0 if it was not measured or nothing counted."""
    return row.get(name, {"value": None})["value"] or 0.0


def _last_stage(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The epochs of the latest stage of a model's history, which may not be the last of its recipe."""
    history = facts.get("history", [])
    return [record for record in history if record["epoch"] >= history[-1].get("stage_began", 1)]


def _falling(losses: Sequence[float]) -> bool:
    quarter = max(1, len(losses) // 4)
    return len(losses) > quarter and min(losses[-quarter:]) < (1 - STILL_FALLING) * min(losses[:-quarter])
