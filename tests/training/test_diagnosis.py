"""What goes wrong in trainings is noticed, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from photochrom.config import build
from photochrom.training.diagnosis import faults
from tests.training.making import GAN, V1, V2, Values

STAGES = {
    name: build({"stages": [stage]}).stages[0]
    for name, stage in (("v1", V1), ("v2", V2), ("gan", {**GAN, "adversarial": 0.01}))
}


def records(*found: float, stage: str = "v1", **more: Any) -> list[Values]:
    """Epochs with these losses; the last one with `more`."""
    history: list[Values] = [
        {
            "stage": STAGES[stage].label,
            "weights": {"perceptual": STAGES[stage].perceptual},
            "train_loss": loss,
            "weighted_noise": 0.8 * loss,
            "weighted_perceptual": 0.2 * loss,
        }
        for loss in found
    ]
    history[-1] |= more
    return history


@pytest.mark.parametrize(
    ("stage", "mend"),
    [
        ("v1", "lower --learning-rate to a half"),
        ("v2", "lower --perceptual to 0.05"),
        ("gan", "lower --adversarial to 0.005"),
    ],
)
def test_a_growing_loss_is_noticed(stage: str, mend: str) -> None:
    (said,) = faults(records(0.4, 0.3, 0.45, 0.5, stage=stage), STAGES[stage])
    assert said == f"the loss grows (now 0.5000, at best 0.3000): {mend}"


@pytest.mark.parametrize(
    "history",
    [
        records(0.5),
        records(0.5, 0.4, 0.3, 0.31),
        records(0.3, 0.3, 0.9),  # one bad epoch
        records(0.3, 0.9, 0.35),  # which passed
        records(0.3, 0.9),  # too early to tell
        records(0.3, 0.3, stage="v1") + records(0.6, 0.6, 0.6, stage="v2"),  # another stage has other losses
        records(0.3, 0.3, stage="v2")
        + [one | {"weights": {"perceptual": 1.0}} for one in records(0.9, 0.9, stage="v2")],
    ],
)
def test_a_loss_that_does_not_grow_is_left_alone(history: list[Values]) -> None:
    assert faults(history, STAGES["v2"]) == []


def test_the_discriminators_score_is_no_loss_to_grow() -> None:
    """The sum may be below 0 and rise, while photos cost less and less."""
    history = records(0.5, 0.45, 0.4, 0.38, stage="gan")
    for record, score in zip(history, (-2.0, -1.5, -1.2, -0.9), strict=True):
        record |= {"weighted_adversarial": score, "train_loss": record["train_loss"] + score}
    assert faults(history, STAGES["gan"]) == []


def judged(true: float, coloured: float, **more: Any) -> list[Values]:
    return records(0.3, stage="gan", accuracy_true=true, accuracy_coloured=coloured, **more)


def test_a_discriminator_that_wins_is_noticed() -> None:
    (said,) = faults(judged(0.99, 0.98, adversarial=1.2), STAGES["gan"])
    assert said.startswith(
        "the discriminator recognises 98% of patches and teaches nothing: lower --adversarial to 0.005"
    )
    assert faults(judged(0.99, 0.98), STAGES["gan"]) == []  # while it learns alone
    assert faults(judged(0.99, 0.9, adversarial=1.2), STAGES["gan"]) == []


def test_a_discriminator_that_loses_is_noticed() -> None:
    (said,) = faults(judged(0.01, 0.4, adversarial=1.2), STAGES["gan"])
    assert said == "the discriminator no longer tells true from coloured: lower --adversarial to 0.005"
    assert len(faults(judged(0.4, 0.01, adversarial=1.2), STAGES["gan"])) == 1
    assert len(faults(judged(0.0, 0.0, adversarial=1.2), STAGES["gan"])) == 1
    for true, coloured in ((0.5, 0.5), (0.4, 0.3), (0.2, 0.8)):
        assert faults(judged(true, coloured, adversarial=1.2), STAGES["gan"]) == []


def test_one_tint_over_all_samples_is_noticed() -> None:
    (said,) = faults(records(0.3, spread={"samples": 0.01, "data": 0.2}), STAGES["v1"])
    assert said.startswith("all samples have nearly the same tint: train longer")
    assert faults(records(0.3, spread={"samples": 0.1, "data": 0.2}), STAGES["v1"]) == []
    assert faults(records(0.3), STAGES["v1"]) == []  # an epoch without samples
