"""Evaluation: intervals against closed forms, verdicts on made-up cases, whole runs with tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted, PhotochromError, UsageError
from photochrom.evaluation.at_size import model_at_size
from photochrom.evaluation.candidates import Batch, Candidate, Painted
from photochrom.evaluation.held_out import HeldOut
from photochrom.evaluation.metrics import Array
from photochrom.evaluation.statistics import BETTER, EQUAL, WORSE
from tests.evaluation.making import blotchy, run, verdicts

# --- Verdicts -----------------------------------------------------------------------------------------------


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


# --- Whole runs ---------------------------------------------------------------------------------------------


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


def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOut, "at_once", 3)
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


def test_progress_counts_photos_times_models(pack: Pack, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(
        [blotchy("a", 0.1), blotchy("b", 0.2)],
        pack,
        tmp_path / "out",
        progress=lambda d, t, _: seen.append((d, t)),
    )
    assert seen == [(0, 16), (8, 16), (16, 16)]


# --- Bad input ----------------------------------------------------------------------------------------------


def test_one_photo_has_values_but_no_intervals(pack: Pack, tmp_path: Path) -> None:
    result = run([blotchy("a", 0.1), blotchy("b", 0.2)], pack, tmp_path / "out", photos=1, page=True)
    ab = result["rows"]["a"]["ab"]
    assert ab["value"] > 0
    assert (ab["low"], ab["high"]) == (None, None)
    assert verdicts(result, "ab") == (EQUAL, None)
    assert result["rows"]["a"]["fd_vgg16"]["value"] is None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no interval" in page
    assert "a single photo has none" in " ".join(page.split())
    assert result["advice"][-2].startswith("1 photos") or "1 photo" in " ".join(result["advice"])


def test_models_of_one_name_are_refused(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two rows would have the name 'a'"):
        run([blotchy("a", 0.1), blotchy("a", 0.2)], pack, tmp_path / "out")
    with pytest.raises(UsageError, match="at least one model"):
        run([], pack, tmp_path / "out")


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
    with pytest.raises(PhotochromError, match="holds files that are no report"):
        run([blotchy("a", 0.1)], pack, out, photos=2, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_unfinished_evaluation_with_other_settings_is_kept(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOut, "at_once", 3)

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
