"""Evaluation: intervals against closed forms, verdicts on cases made for them, and whole runs with tiny models."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from photochrom import model_folder
from photochrom.coloring.colorings import agreed
from photochrom.commands.cli import main
from photochrom.config import build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.evaluation import evaluate, report, statistics
from photochrom.evaluation.advice import COMPARED, NEXT, Case, advise
from photochrom.evaluation.candidates import (
    APART,
    Batch,
    Candidate,
    Painted,
    given_luma,
    model_at_size,
    references,
    render,
)
from photochrom.evaluation.card import read_evaluation
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.photos import Packed
from photochrom.evaluation.statistics import BETTER, EQUAL, NODES, WORSE
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training_history import best_epoch


def blotchy(name: str, amount: float, fade: float = 1.0) -> Candidate:
    """True chroma with soft noise of this amount, faded."""

    def paint(batch: Batch) -> Painted:
        c = color.from_rgb(batch.rgb)[1]
        noise = [torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in batch.seeds]
        blotches = F.interpolate(torch.stack(noise), size=c.shape[-2:], mode="bilinear")
        return Painted(given_luma(batch.rgb), fade * (c + amount * blotches))

    return Candidate(name, paint, {"amount": amount, "fade": fade, "sampler": "none", "steps": 1})


def run(
    candidates: Sequence[Candidate],
    pack: Pack,
    out: Path,
    *,
    page: bool = False,
    split: str = "validation",
    photos: int | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate, without the page unless it is asked for: its plots take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        if not page:
            patch.setattr(report, "html", lambda result, photos: "")
        return evaluate.evaluate(candidates, Packed(pack, split, photos, seed), out, **options)


# --- Intervals -------------------------------------------------------------------------------------------------------


def test_the_bootstrap_of_a_mean_is_the_textbooks_interval() -> None:
    values = np.random.default_rng(5).normal(10, 2, size=(400, 1))
    weights = statistics.resampling(400, resamples=4000)
    rows = statistics.ratio({"ab": values}, "ab", weights)[:, 0]
    found, reach = statistics.bootstrap_interval(rows), 1.96 * values.std() / 20
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert found["high"] == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_a_ratio_is_that_of_the_sums_and_its_interval_the_delta_methods() -> None:
    random = np.random.default_rng(6)
    pixels = random.integers(1, 100, size=(400, 1)).astype(float)
    false = random.binomial(pixels.astype(int), 0.3).astype(float)
    rows = statistics.ratio(
        {"false_color": false, "dark_pixels": pixels}, "false_color", statistics.resampling(400, 4000)
    )
    found, share = statistics.bootstrap_interval(rows[:, 0]), false.sum() / pixels.sum()
    reach = 100 * 1.96 * (false - share * pixels).std() / pixels.mean() / 20
    assert found["value"] == pytest.approx(100 * share)
    assert found["high"] == pytest.approx(100 * share + reach, abs=0.1 * reach)


def test_the_jackknife_of_a_mean_is_students_interval_of_the_group_means() -> None:
    values = np.random.default_rng(7).normal(size=100)
    groups = values.reshape(-1, statistics.GROUPS)
    left_out = [np.delete(groups, g, axis=1).mean() for g in range(statistics.GROUPS)]
    found = statistics.jackknife_interval(np.array([values.mean(), *left_out]))
    reach = 2.093 * groups.mean(axis=0).std(ddof=1) / np.sqrt(statistics.GROUPS)
    assert found["low"] == pytest.approx(values.mean() - reach)
    assert found["high"] == pytest.approx(values.mean() + reach)


def test_frechet_distances_of_photos_that_differ_in_nothing_have_an_interval_round_zero() -> None:
    features = np.random.default_rng(8).normal(size=(80, 3))
    rows = statistics.frechet_rows(features, features, 1.0)
    assert rows == pytest.approx(0, abs=1e-9)
    assert len(rows) == 1 + statistics.GROUPS
    assert (
        statistics.jackknife_interval(statistics.frechet_rows(features[:10], features[:10], 1.0))["low"]
        is None
    )


def test_what_was_never_counted_has_no_value() -> None:
    nothing = {"dark_error": np.zeros((3, 1)), "dark_pixels": np.zeros((3, 1))}
    rows = statistics.ratio(nothing, "dark_error", statistics.resampling(3))[:, 0]
    assert statistics.bootstrap_interval(rows) == {"value": None, "low": None, "high": None}


# --- Reading off at equal colourfulness ------------------------------------------------------------------------------


def test_strength_is_read_off_between_the_nodes() -> None:
    colorfulness = np.stack([30 * NODES, 10 * NODES])
    found = statistics.strength_at(colorfulness, np.array([27.0, 27.0]))
    assert found[0] == pytest.approx(0.9)
    assert np.isnan(found[1])  # 25 is all that it reaches


def test_values_on_a_parabola_are_read_off_exactly() -> None:
    strengths = np.array([0.1, 0.5, 1.05, 1.9, 2.5, np.nan])
    values = np.tile(3 - 2 * NODES + 5 * NODES**2, (6, 1))
    found = statistics.at_strength(values, strengths)
    assert found[:5] == pytest.approx(3 - 2 * strengths[:5] + 5 * strengths[:5] ** 2)
    assert np.isnan(found[5])


# --- Verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (-2.0, -1.0, -1, BETTER),
        (1.0, 2.0, -1, WORSE),
        (1.0, 2.0, 1, BETTER),
        (-2.0, -1.0, 1, WORSE),
        (-1.0, 1.5, -1, EQUAL),
        (0.01, 0.02, -1, EQUAL),  # certain, but less than the 0.1 that count
        (None, None, -1, None),
    ],
)
def test_verdicts(low: float | None, high: float | None, better: int, expected: str | None) -> None:
    value = None if low is None or high is None else (low + high) / 2
    assert statistics.verdict({"value": value, "low": low, "high": high}, better, 0.1) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([BETTER, BETTER, BETTER], BETTER),
        ([BETTER, BETTER, None], BETTER),
        ([BETTER, EQUAL, BETTER], EQUAL),
        ([BETTER, WORSE, WORSE], EQUAL),
        ([None, None, None], EQUAL),
    ],
)
def test_the_overall_verdict_asks_for_all(verdicts: list[str | None], expected: str) -> None:
    assert statistics.overall(verdicts) == expected


def verdicts(result: dict[str, Any], measure: str) -> tuple[str, str | None]:
    """(overall, as made)"""
    found = next(entry for entry in result["differences"] if entry["measure"] == measure)
    return found["verdict"], found["as_made"]["verdict"]


def test_a_model_with_fewer_blotches_is_better_and_its_mirror_image_worse(pack: Pack, tmp_path: Path) -> None:
    models = [blotchy("rough", 1.0), blotchy("fine", 0.2)]
    result = run(models, pack, tmp_path / "one")
    for measure in ("ab", "ciede2000", "psnr"):
        assert verdicts(result, measure)[0] == BETTER, measure
    assert result["advice"][0].startswith(
        "fine beats rough: at equal colourfulness it is better on colour distance"
    )
    assert "Keep fine." in result["advice"]
    mirrored = run(models[::-1], pack, tmp_path / "other")
    assert verdicts(mirrored, "ab")[0] == WORSE
    assert mirrored["advice"][0].startswith("rough is worse than fine on colour distance")


def test_fading_makes_no_model_better(pack: Pack, tmp_path: Path) -> None:
    result = run([blotchy("made", 1.5), blotchy("faded", 1.5, fade=0.6)], pack, tmp_path / "out")
    for measure in ("ab", "ciede2000"):
        assert verdicts(result, measure) == (EQUAL, BETTER), measure
    assert verdicts(result, "colorfulness")[1] in (WORSE, EQUAL)
    assert "cannot be told apart" in result["advice"][0]


def test_strengths_beyond_reach_are_said_to_be_so(pack: Pack, tmp_path: Path) -> None:
    result = run(
        [blotchy("pale", 0.1, fade=0.5), blotchy("very pale", 0.1, fade=0.1)],
        pack,
        tmp_path / "out",
        page=True,
    )
    pale, very = (result["at_equal_colorfulness"][name] for name in ("pale", "very pale"))
    assert (pale["70%"]["extrapolated"], pale["100%"]["extrapolated"]) == (False, True)
    assert pale["100%"]["strength"]["value"] == pytest.approx(2, abs=0.2)
    assert not very["70%"]["reached"]
    assert very["70%"]["ab"]["value"] is None
    assert verdicts(result, "ab")[0] == EQUAL
    assert "not reached" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


# --- Advice ----------------------------------------------------------------------------------------------------------

PLAIN = Case("new", "old", 1000, "", "", 0.8, 1.0, 0.3, False, 0.1, False, True, 0.0)
SAID = [
    (NEXT, 0, {"photos": 20}, "20 photos decide little"),
    (NEXT, 1, {"falling": True}, "still falling"),
    (NEXT, 2, {"likeness": 0.9}, "hardly nearer to true ones than gray"),
    (NEXT, 3, {"false_color": 9.0, "perceptual": 0.0}, "false colour on 9 % of the almost black pixels: go on with a second stage, --from new"),
    (NEXT, 4, {"false_color": 9.0}, "--perceptual 0.2"),
    (NEXT, 5, {"color": 0.4}, "40 % as colourful as true photos: a discriminator gives colour back, --gan; or lower the weight, --perceptual 0.05"),
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
    assert any("go on with a second stage" in said for said in advise(report, ["m"]))
    tried = {**report, "subjects": report["subjects"] | {"v2": {"config": {"source": "m"}}}}
    assert not any("go on with a second stage" in said for said in advise(tried, ["m"]))
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


# --- Whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(pack: Pack, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A report of a real model and of one that is not ours."""
    out = tmp_path_factory.mktemp("reports") / "whole"
    other = blotchy("<b>rough & ready</b>", 0.5)
    tiny = model_at_size("tiny", models, pack, steps=3, average=2)
    return run([tiny, other], pack, out, page=True), out


def test_a_report_holds_all_numbers(whole: tuple[dict[str, Any], Path], pack: Pack) -> None:
    result, out = whole
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    assert result["data"] == {
        "name": "tiny",
        "checksum": pack.checksum,
        "split": "validation",
        "size": 16,
        "photos": 8,
    }
    assert list(result["rows"]) == [
        "tiny", "<b>rough & ready</b>", "true photos", "true chroma, 1/2 size", "mean colour", "gray",
    ]  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]
    row = result["rows"]["tiny"]
    for name in ("ab", "ciede2000", "psnr", "ssim", "colorfulness", "pd_vgg16", "diversity"):
        assert row[name]["low"] <= row[name]["value"] <= row[name]["high"], name
    assert row["seconds_per_photo"] > 0
    assert result["subjects"]["tiny"]["steps"] == 3


def test_the_rows_that_are_no_model_say_what_they_must(whole: tuple[dict[str, Any], Path]) -> None:
    rows = whole[0]["rows"]
    for name in ("ab", "ciede2000", "dim_error", "pd_vgg16", "fd_vgg16"):
        assert rows["true photos"][name]["value"] == pytest.approx(0, abs=1e-3), name
        assert 0 < rows["true chroma, 1/2 size"][name]["value"] < rows["gray"][name]["value"], name
    assert rows["gray"]["colorfulness"]["value"] == 0
    assert rows["gray"]["dim_chroma"]["value"] == pytest.approx(0, abs=0.02)
    assert rows["gray"]["dim_error"]["value"] == pytest.approx(
        rows["true photos"]["dim_chroma"]["value"], abs=0.02
    )
    assert rows["mean colour"]["ab"]["value"] < rows["gray"]["ab"]["value"]


def test_the_page_needs_nothing_else_and_shows_names_as_they_are(whole: tuple[dict[str, Any], Path]) -> None:
    page = (whole[1] / "report.html").read_text(encoding="utf-8")
    assert "<b>rough" not in page
    assert "&lt;b&gt;rough &amp; ready&lt;/b&gt;" in page
    assert "3 steps, what 2 colourings agree on" in page
    sources = re.findall(r'(?:src|href)="([^#][^"]{0,21})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"<script[^>]+src|<(link|iframe)|url\((?!#)|@import|fetch\(", page)
    assert page.count("<svg") == len(report.CURVES) + 3


def test_options_in_the_advice_stay_in_one_piece() -> None:
    said = report._flags("go on, --from a<b --perceptual 0.1. Or --gan; a--b stays.")
    assert said == (
        "go on, <code>--from a</code>&lt;b <code>--perceptual 0.1</code>. Or <code>--gan</code>; a--b stays."
    )


def test_terminal_tables_fit_80_columns(whole: tuple[dict[str, Any], Path]) -> None:
    console = Console(width=80, record=True, force_terminal=False)
    with console.capture() as capture:
        for table in report.tables(whole[0]):
            console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…\n" not in text
    for words in ("<b>rough", "true photos", "cannot be told apart", "FD-VGG16", "100%"):
        assert words in text


def test_the_command_prints_tables_or_json(
    models: Path,
    pack: Pack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "html", lambda result, photos: "")
    command = ["evaluate", str(models / "tiny"), "--data", str(pack.folder), "--steps", "2", "--photos", "4"]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "-o", str(tmp_path / "tables")])
    told = capsys.readouterr()
    tables = told.out
    assert "no FID: it needs --inception-weights" in told.err
    assert "At equal colourfulness" in tables
    assert "4 photos decide little" in tables
    with pytest.raises(SystemExit, match="0"):
        main([*command, "-o", str(tmp_path / "json"), "--json"])
    assert json.loads(capsys.readouterr().out)["rows"]["tiny"]["ab"]["value"] > 0
    with pytest.raises(SystemExit, match="1"):
        main([*command, "-o", str(tmp_path / "json")])
    assert "holds a report: choose another folder with --out, or --overwrite" in capsys.readouterr().err


@pytest.fixture
def trained(pack: Pack, values: dict[str, Any], tmp_path: Path) -> ModelFolder:
    """A model of two epochs, `models/mine` beside the test's own files."""
    folder = ModelFolder(tmp_path / "models" / "mine")
    train(build(values), folder, pack)
    return folder


def call(*arguments: object) -> int:
    """Run the command line; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda result, photos: "")
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_models_own_figures_stay_with_it(
    trained: ModelFolder, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, out = ("--models", trained.path.parent), tmp_path / "report"
    assert "Evaluation" not in (trained / model_folder.CARD).read_text(encoding="utf-8")
    assert call("evaluate", "mine", *models, "--data", pack.folder, "--steps", 2, "-o", out) == 0
    row = json.loads((out / "report.json").read_text(encoding="utf-8"))["rows"]["mine"]
    kept = read_evaluation(trained)
    assert kept is not None
    assert kept["rows"]["model"] == {
        name: value for name, value in row.items() if name != "seconds_per_photo"
    }
    assert kept["epoch"] == best_epoch(trained.history)["epoch"]
    capsys.readouterr()
    assert call("models", "show", "mine", *models) == 0
    card = capsys.readouterr().out
    assert card == (trained / model_folder.CARD).read_text(encoding="utf-8")
    ab = row["ab"]
    assert f"| {ab['value']:.2f} | {ab['low']:.2f} to {ab['high']:.2f} |" in card
    assert "Of 8 validation photos of tiny" in card
    assert "weights have changed" not in card
    assert call("models", *models) == 0
    table = capsys.readouterr()
    assert f" {row['ciede2000']['value']:.2f} " in table.out
    assert max(map(len, table.out.splitlines())) <= 80
    assert table.err == ""
    assert call("models", "show", "mine", *models, "--json") == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == json.loads(json.dumps(kept))


def test_an_evaluation_of_earlier_weights_says_so(
    trained: ModelFolder,
    pack: Pack,
    values: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ("--models", trained.path.parent)
    assert call("evaluate", "mine", *models, "--data", pack.folder, "--steps", 2, "-o", tmp_path / "out") == 0
    before, measured = (trained / "evaluation.json").read_bytes(), best_epoch(trained.history)
    values["stages"][0]["epochs"] = 6
    train(build(values), trained, pack)
    assert best_epoch(trained.history)["epoch"] != measured["epoch"]
    assert (trained / "evaluation.json").read_bytes() == before
    card = (trained / model_folder.CARD).read_text(encoding="utf-8")
    assert f"Measured at epoch {measured['epoch']}; the weights have changed since" in card
    capsys.readouterr()
    assert call("models", *models) == 0
    table = capsys.readouterr()
    assert re.search(r"\d\.\d\d\*", table.out)
    assert "photochrom evaluate mine" in table.err
    assert call("models", *models, "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["evaluation"]["current"] is False


def test_a_torn_evaluation_is_told_and_stops_no_training(
    trained: ModelFolder, pack: Pack, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "evaluation.json").write_text('{"rows":', encoding="utf-8")
    values["stages"][0]["epochs"] = 3
    train(build(values), trained, pack)
    assert len(trained.history) == 3
    assert call("models", "show", "mine", "--models", trained.path.parent) == 1
    assert re.search(r"evaluation.json cannot be read: .*: delete it", capsys.readouterr().err)


def test_a_model_folder_that_takes_no_files_costs_no_report(
    trained: ModelFolder, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "evaluation.json").mkdir()
    out = tmp_path / "report"
    assert call("evaluate", trained.path, "--data", pack.folder, "--steps", 2, "-o", out) == 0
    assert (out / "report.json").exists()
    assert "cannot write mine's card: cannot write" in capsys.readouterr().err


def test_a_model_before_its_first_epoch_has_no_card(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models", "show", "tiny", "--models", models) == 1
    assert "'tiny' has no card before its first epoch is done" in capsys.readouterr().err
    assert call("models", "show", "nope", "--models", models) == 1
    assert "there are: large, tiny" in capsys.readouterr().err


def test_a_model_sees_luma_and_nothing_else(models: Path, pack: Pack) -> None:
    tiny = model_at_size("tiny", models, pack, steps=2, sampler="ddim", guidance=None, device=None)
    rgb = pack.rgb([0, 1])
    gray = (given_luma(rgb) + 1).expand_as(rgb) / 2
    one, other = (tiny.paint(Batch(each, [1, 2])) for each in (rgb, gray))
    assert one.y == pytest.approx(other.y, abs=1e-5)
    assert one.c == pytest.approx(other.c, abs=1e-5)


def test_what_colourings_agree_on_is_measured_as_colorize_makes_it(
    models: Path, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, four = (
        model_at_size("tiny", models, pack, steps=2, sampler="ddim", average=count, device=None)
        for count in (1, 4)
    )
    rgb, seeds = pack.rgb([0, 1]), [5, 8]
    drawn = [one.paint(Batch(rgb, [seed + APART * k for seed in seeds])).c for k in range(4)]
    # bfloat16, where it is faster, rounds a batch otherwise.
    assert torch.allclose(four.paint(Batch(rgb, seeds)).c, agreed(torch.stack(drawn)), atol=0.02)
    where = ("--models", models, "--data", pack.folder, "--steps", 2, "-o", tmp_path / "report")
    assert call("evaluate", "tiny", "--average", 65, *where) == 2
    assert "average = 65: " in capsys.readouterr().err
    assert call("evaluate", "tiny", "--average", 3, *where) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["subjects"]["tiny"]["average"] == 3


def test_painted_pictures_keep_their_luma(pack: Pack) -> None:
    rgb = pack.rgb(range(8))
    y, c, _ = blotchy("wild", 3.0).paint(Batch(rgb, list(range(8))))
    for strength in statistics.STRENGTHS:
        made = torch.from_numpy(render(y, c, strength)).permute(0, 3, 1, 2)
        assert (255 * (color.luma(made) - (y + 1) / 2)).abs().max() <= 1


def test_the_true_photos_are_painted_as_they_are(pack: Pack) -> None:
    rgb = pack.rgb(range(8))
    truth = references(pack, [1])[0]
    y, c, _ = truth.paint(Batch(rgb, list(range(8))))
    assert (render(y, c, 1.0) == rgb.permute(0, 2, 3, 1).numpy()).all()


def test_few_photos_are_a_part_of_many_with_the_same_colours(pack: Pack, tmp_path: Path) -> None:
    few = run([blotchy("model", 0.5)], pack, tmp_path / "few", photos=3)
    many = run([blotchy("model", 0.5)], pack, tmp_path / "many")
    again = run([blotchy("model", 0.5)], pack, tmp_path / "again", photos=3, seed=1)
    assert few["origins"] == many["origins"][:3] == again["origins"]
    values = [result["by_photo"]["model"]["ab"] for result in (few, many, again)]
    assert values[0] == values[1][:3] != values[2]


def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packed, "at_once", 3)
    painted: list[int] = []
    model = blotchy("model", 0.5)

    def counting(batch: Batch) -> Painted:
        painted.append(len(batch.rgb))
        return model.paint(batch)

    def stop(done: int, total: int, text: str) -> None:
        if done == 6:
            raise Interrupted("enough", 2)

    subject = Candidate(model.name, counting, model.facts)
    expected = run([subject], pack, tmp_path / "whole")
    full = sum(painted)
    painted.clear()
    with pytest.raises(Interrupted):
        run([subject], pack, tmp_path / "halves", progress=stop)
    first = sum(painted)
    assert [path.suffix for path in sorted((tmp_path / "halves" / "partial").iterdir())] == [
        ".npz",
        ".npz",
        ".json",
    ]
    found = run([subject], pack, tmp_path / "halves")
    assert sum(painted) == full
    assert 0 < first < full
    for result in (expected, found):
        del result["rows"]["model"]["seconds_per_photo"]
    assert found == expected


def test_ctrl_c_keeps_what_was_measured(
    models: Path,
    pack: Pack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Packed, "at_once", 3)
    measured: list[str] = []
    real = evaluate.measure

    def measure(subject: Candidate, *rest: Any) -> dict[str, Array]:
        measured.append(subject.name)
        if measured.count("tiny") == 2 and subject.name == "tiny":  # in the second of three batches
            os.kill(os.getpid(), signal.SIGINT)
        return real(subject, *rest)

    monkeypatch.setattr(evaluate, "measure", measure)
    command = ("evaluate", models / "tiny", "--data", pack.folder, "--steps", 1, "-o", tmp_path / "out")
    assert call(*command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert measured.count("tiny") == 2
    assert call(*command) == 0
    assert measured.count("tiny") == 3


def test_progress_counts_photos_times_models(pack: Pack, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(
        [blotchy("a", 0.1), blotchy("b", 0.2)],
        pack,
        tmp_path / "out",
        progress=lambda d, t, _: seen.append((d, t)),
    )
    assert seen == [(0, 16), (8, 16), (16, 16)]


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_one_photo_has_values_but_no_intervals(pack: Pack, tmp_path: Path) -> None:
    result = run([blotchy("a", 0.1), blotchy("b", 0.2)], pack, tmp_path / "out", photos=1, page=True)
    ab = result["rows"]["a"]["ab"]
    assert ab["value"] > 0
    assert (ab["low"], ab["high"]) == (None, None)
    assert verdicts(result, "ab") == (EQUAL, None)
    assert result["rows"]["a"]["fd_vgg16"]["value"] is None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no interval" in page
    assert "of one photo, nobody can say" in " ".join(page.split())
    assert result["advice"][-2].startswith("1 photos") or "1 photo" in " ".join(result["advice"])


def test_a_model_of_another_size_is_refused(models: Path, pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(
        PhotochromError, match=r"'large' was trained at 32 pixels and these photos have 16: .*--size 32"
    ):
        model_at_size("large", models, pack)


def test_an_unknown_model_is_refused_with_those_there_are(models: Path, pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"no model 'tinny' .* large, tiny"):
        model_at_size("tinny", models, pack)


def test_a_data_set_without_that_part_is_refused(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match="data set 'tiny' has no test photos"):
        run([blotchy("a", 0.1)], pack, tmp_path / "out", split="test")
    with pytest.raises(UsageError, match="there is no split 'tset'"):
        run([blotchy("a", 0.1)], pack, tmp_path / "out", split="tset")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"photos": 0}, "photos 0: give 1 or more"), ({"seed": -1}, "seed = -1: ")],
)
def test_numbers_out_of_range_are_refused(
    pack: Pack, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run([blotchy("a", 0.1)], pack, tmp_path / "out", **options)


def test_models_of_one_name_are_refused(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two rows would be called 'a'"):
        run([blotchy("a", 0.1), blotchy("a", 0.2)], pack, tmp_path / "out")
    with pytest.raises(UsageError, match="at least one model"):
        run([], pack, tmp_path / "out")


def test_photos_too_small_for_the_judge_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    from PIL import Image

    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / f"{number}.png"
        )
    import_photos(tmp_path / "photos", tmp_path / "small", size=8, validation=0.5, test=0.0, workers=1)
    with pytest.raises(PhotochromError, match=r"photos of 8 pixels are too small .*--size 16"):
        run([blotchy("a", 0.1)], Pack.open(tmp_path / "small"), tmp_path / "out")


def test_nothing_that_exists_is_overwritten_unasked(pack: Pack, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([blotchy("a", 0.1)], pack, out, photos=2)
    before = (out / "report.json").read_bytes()
    with pytest.raises(PhotochromError, match=r"holds a report: .*--overwrite"):
        run([blotchy("a", 0.2)], pack, out, photos=2)
    assert (out / "report.json").read_bytes() == before
    run([blotchy("a", 0.2)], pack, out, photos=2, overwrite=True)
    assert (out / "report.json").read_bytes() != before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(PhotochromError, match="holds other things than a report"):
        run([blotchy("a", 0.1)], pack, out, photos=2, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_unfinished_evaluation_with_other_settings_is_kept(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packed, "at_once", 3)

    def stop(done: int, total: int, text: str) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run([blotchy("a", 0.1)], pack, out, progress=stop)
    with pytest.raises(PhotochromError, match="unfinished evaluation with other settings"):
        run([blotchy("a", 0.2)], pack, out)
    assert (out / "partial" / "00000000.npz").exists()
    result = run([blotchy("a", 0.2)], pack, out, overwrite=True)
    assert result["subjects"]["a"]["amount"] == 0.2


def test_settings_that_fail_at_once_leave_nothing_in_the_way(
    models: Path, pack: Pack, tmp_path: Path
) -> None:
    tiny = model_at_size("tiny", models, pack, steps=2)
    with pytest.raises(UsageError, match=r"sampler = .best."):
        run([model_at_size("tiny", models, pack, sampler="best", steps=2)], pack, tmp_path / "out")
    with pytest.raises(PhotochromError, match="FID needs"):
        run([tiny], pack, tmp_path / "other", inception_weights=tmp_path / "none")
    assert not (tmp_path / "other").exists()
    result = run([tiny], pack, tmp_path / "out", photos=2)
    assert result["data"]["photos"] == 2


def test_a_data_set_without_dark_pixels_has_no_dark_measures(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(6):
        pixels: Array = np.random.default_rng(number).integers(150, 256, (4, 4, 3), dtype=np.uint8)
        photo = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR)
        photo.save(tmp_path / "photos" / f"{number}.png")
    import_photos(tmp_path / "photos", tmp_path / "bright", size=16, validation=0.5, test=0.0, workers=1)
    result = run(
        [blotchy("a", 0.1), blotchy("b", 0.3)], Pack.open(tmp_path / "bright"), tmp_path / "out", page=True
    )
    assert result["rows"]["a"]["dark_error"] == {"value": None, "low": None, "high": None}
    assert verdicts(result, "dark_error") == (EQUAL, None)
    assert "dark error" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
