"""Finds what goes wrong in a training from its history, and says in plain words what to change.

`faults` holds all rules. They look at whole epochs only, so that one bad batch raises no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from photochrom.config import StageConfig

GROWTH = 1.3  # training loss of two epochs in a row, divided by the best of its stage
WINNING = 0.97  # share of patches judged rightly by a discriminator with nothing left to learn
TINT = 0.25  # spread of the mean colours of samples, divided by that of true photos


def faults(history: Sequence[dict[str, Any]], stage: StageConfig) -> list[str]:
    """What to change, one sentence for each fault of the last epoch; empty if all is well.

    history: records of `validation.end_epoch`. Compares the last one with the others of its stage.
    """
    last = history[-1]
    # Losses compare only if their weights are equal, whatever the stage is called.
    losses = [
        _loss(one) for one in history if (one["stage"], one["weights"]) == (last["stage"], last["weights"])
    ]
    found = []
    if len(losses) >= 3 and min(losses[-2:]) > GROWTH * min(losses):
        found.append(f"the loss grows (now {losses[-1]:.4f}, at best {min(losses):.4f}): {_lower(stage)}")
    judged = (last.get("accuracy_true", 0.5), last.get("accuracy_coloured", 0.5))
    # Before gan_delay, without a term in the loss, the discriminator may judge as well as it likes.
    if min(judged) > WINNING and "adversarial" in last:
        found.append(
            f"the discriminator recognises {min(judged):.0%} of patches and teaches nothing: "
            f"lower --adversarial to {stage.adversarial / 2:g}, or train longer without --gan first"
        )
    if min(judged) < 1 - WINNING and sum(judged) < 1:
        found.append(f"the discriminator no longer tells true from coloured: {_lower(stage)}")
    spread = last.get("spread")
    if spread and spread["samples"] < TINT * spread["data"]:
        found.append(
            "all samples have nearly the same tint: train longer; with --prediction epsilon, take v with "
            "zero terminal SNR"
        )
    return found


def _loss(record: dict[str, Any]) -> float:
    """The loss without the discriminator's term, which is a score: often below 0, and free to rise."""
    return float(sum(record.get(f"weighted_{name}", 0.0) for name in ("noise", "perceptual")))


def _lower(stage: StageConfig) -> str:
    if stage.use_gan:
        return f"lower --adversarial to {stage.adversarial / 2:g}"
    if stage.perceptual:
        return f"lower --perceptual to {stage.perceptual / 2:g}"
    return "lower --learning-rate to a half"
