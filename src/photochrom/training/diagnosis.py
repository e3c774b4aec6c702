"""What goes wrong in trainings, noticed from the history and said in plain words, with the mend.

All rules stand in `faults`; each looks at finished epochs only, so that one bad batch raises no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from photochrom.config import StageConfig

GROWTH = 1.3  # of the training loss over the best epoch of its stage, two epochs in a row
WINNING = 0.97  # share of patches that a discriminator judges rightly when it has nothing left to learn
TINT = 0.25  # spread of the photos' mean colours in samples, as a share of the true photos'


def faults(history: Sequence[dict[str, Any]], stage: StageConfig) -> list[str]:
    """What to change, one sentence per fault of the last epoch; empty if all is well.

    history: records as `Training.end_epoch` makes them, of which the last is judged within its own stage.
    """
    last = history[-1]
    # Other weights are another stage, whatever its name, and their losses cannot be compared.
    losses = [
        _loss(one) for one in history if (one["stage"], one["weights"]) == (last["stage"], last["weights"])
    ]
    found = []
    if len(losses) >= 3 and min(losses[-2:]) > GROWTH * min(losses):
        found.append(f"the loss grows (now {losses[-1]:.4f}, at best {min(losses):.4f}): {_lower(stage)}")
    judged = (last.get("accuracy_true", 0.5), last.get("accuracy_coloured", 0.5))
    if min(judged) > WINNING and "adversarial" in last:  # while it learns alone it may be as good as it likes
        found.append(
            f"the discriminator knows {min(judged):.0%} of patches and teaches nothing: lower --adversarial to "
            f"{stage.adversarial / 2:g}, or train longer without --gan first"
        )
    if min(judged) < 1 - WINNING and sum(judged) < 1:
        found.append(f"the discriminator has lost: lower --adversarial to {stage.adversarial / 2:g}")
    spread = last.get("spread")
    if spread and spread["samples"] < TINT * spread["data"]:
        found.append(
            "all samples have nearly one tint: train longer; with --prediction epsilon, take v with zero terminal SNR"
        )
    return found


def _loss(record: dict[str, Any]) -> float:
    """What the photos cost. The discriminator's term is left out: it is a score, often below 0, and may rise freely."""
    return float(sum(record.get(f"weighted_{name}", 0.0) for name in ("noise", "perceptual")))


def _lower(stage: StageConfig) -> str:
    if stage.use_gan:
        return f"lower --adversarial to {stage.adversarial / 2:g}"
    if stage.perceptual:
        return f"lower --perceptual to {stage.perceptual / 2:g}"
    return "lower --learning-rate to a half"
