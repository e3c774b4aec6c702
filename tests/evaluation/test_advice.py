"""What a report advises: every rule has a case made for it."""

from __future__ import annotations

from typing import Any

import pytest

from photochrom.evaluation import statistics
from photochrom.evaluation.advice import COMPARED, NEXT, Case, advise

PLAIN = Case("new", "old", 1000, "", "", 0.8, 1.0, 0.3, False, 0.1, False, True, 0.0)


SAID = [
    (NEXT, 0, {"photos": 20}, "20 photos decide little"),
    (NEXT, 1, {"falling": True}, "still falling"),
    (NEXT, 2, {"likeness": 0.9}, "hardly nearer to true photos than gray"),
    (NEXT, 3, {"false_color": 9.0, "perceptual": 0.0},
     "false colour on 9 % of the almost black pixels: train a second stage, --from new"),
    (NEXT, 4, {"false_color": 9.0}, "--perceptual 0.2"),
    (NEXT, 5, {"color": 0.4},
     "40 % as colourful as true photos: add a discriminator, --gan, for more colour; "
     "or lower the weight, --perceptual 0.05"),
    (NEXT, 6, {"color": 0.4, "perceptual": 0.0}, "sample with more steps, or train longer"),
    (NEXT, 7, {"color": 1.5}, "gaudy"),
    (COMPARED, 0, {"better": "PSNR"}, "new beats old: at equal colourfulness it is better on PSNR"),
    (COMPARED, 1, {"worse": "PSNR"}, "--perceptual 0.05"),
    (COMPARED, 2, {"worse": "PSNR", "perceptual": 0.0}, "Keep old."),
    (COMPARED, 3, {"worse": "PSNR", "better": "SSIM"}, "let the pictures decide"),
    (COMPARED, 4, {}, "cannot be told apart with 1000 photos"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "number", "change", "words"), SAID)
def test_every_rule_has_its_case(rules: Any, number: int, change: dict[str, Any], words: str) -> None:
    case = Case(**{**PLAIN.__dict__, **change})
    assert next(n for n, (holds, _) in enumerate(rules) if holds(case)) == number
    assert words in rules[number][1].format(c=case)


def test_advice_speaks_of_the_stage_that_a_model_has_come_to() -> None:
    """Stopped within V1 of a recipe that plans V2: its colours never saw the perceptual loss."""
    weights = {"noise": 1.0, "perceptual": 0.0, "adversarial": 0.0}
    row = {name: {"value": 10.0} for name in ("colorfulness", "false_color", "fd_vgg16")}
    epoch = {"epoch": 1, "stage_began": 1, "val_loss": 0.2, "photos": 9, "weights": weights}
    config = {"stages": [{"perceptual": 0.0}, {"perceptual": 0.1}]}
    report: dict[str, Any] = {
        "rows": {name: row for name in ("m", statistics.TRUTH, statistics.GRAY)},
        "subjects": {"m": {"config": config, "history": [epoch]}},
        "differences": [],
        "data": {"photos": 500},
    }
    assert any("train a second stage" in said for said in advise(report, ["m"]))
    tried = {**report, "subjects": report["subjects"] | {"v2": {"config": {"source": "m"}}}}
    assert not any("train a second stage" in said for said in advise(tried, ["m"]))
    # In its second stage, losses are higher by the new term: only what they did since then is looked at.
    second = weights | {"perceptual": 0.1}
    later = [
        epoch | {"epoch": n, "stage_began": 2, "val_loss": loss, "weights": second}
        for n, loss in ((2, 0.5), (3, 0.4))
    ]
    report["subjects"]["m"]["history"] += later
    told = advise(report, ["m"])
    assert any("--perceptual 0.2" in said for said in told)
    assert any("still falling" in said for said in told)


def test_every_rule_was_tried() -> None:
    assert {(id(rules), number) for rules, number, _, _ in SAID} == {
        (id(r), n) for r in (NEXT, COMPARED) for n in range(len(r))
    }
    assert not any(holds(PLAIN) for holds, _ in NEXT)
