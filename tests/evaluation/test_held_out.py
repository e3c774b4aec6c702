"""Held-out photos of a data set: which are chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from photochrom.config import LearntFrom
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation.held_out import HeldOut
from tests.evaluation.making import blotchy, run
from tests.making import smooth


def packed(place: Path, name: str, **options: Any) -> Pack:
    """A data set of twelve photos."""
    (place / "photos").mkdir(exist_ok=True)
    for seed in range(12):
        smooth(seed).save(place / "photos" / f"{seed}.png")
    import_photos(place / "photos", place / name, **{"test": 0.0, "size": 16, "workers": 1, **options})
    return Pack.open(place / name)


def test_few_photos_are_a_part_of_many_with_the_same_colours(pack: Pack, tmp_path: Path) -> None:
    few = run([blotchy("model", 0.5)], pack, tmp_path / "few", photos=3)
    many = run([blotchy("model", 0.5)], pack, tmp_path / "many")
    again = run([blotchy("model", 0.5)], pack, tmp_path / "again", photos=3, seed=1)
    assert few["origins"] == many["origins"][:3] == again["origins"]
    values = [result["by_photo"]["model"]["ab"] for result in (few, many, again)]
    assert values[0] == values[1][:3] != values[2]


def test_each_photo_has_its_own_noise_whatever_else_is_measured(pack: Pack) -> None:
    photos = HeldOut(pack)
    seeds = photos.batch(range(8)).seeds
    assert len(set(seeds)) == 8
    assert photos.batch([5, 2]).seeds == [seeds[5], seeds[2]]
    assert not set(HeldOut(pack, seed=1).batch(range(8)).seeds) & set(seeds)


def test_a_data_set_without_that_part_is_refused(pack: Pack) -> None:
    with pytest.raises(PhotochromError, match="data set 'tiny' has no test photos"):
        HeldOut(pack, "test")
    with pytest.raises(UsageError, match="there is no split 'tset'"):
        HeldOut(pack, "tset")


def test_numbers_out_of_range_are_refused(pack: Pack) -> None:
    with pytest.raises(UsageError, match="photos 0: give 1 or more"):
        HeldOut(pack, count=0)
    with pytest.raises(UsageError, match="seed = -1: "):
        HeldOut(pack, seed=-1)


def test_photos_too_small_for_the_judge_are_refused(tmp_path: Path) -> None:
    small = packed(tmp_path, "small", size=8, validation=0.5)
    with pytest.raises(PhotochromError, match=r"photos of 8 pixels are too small .*--size 16"):
        HeldOut(small)


def test_a_data_set_that_a_model_has_learnt_whole_is_refused(tmp_path: Path) -> None:
    learnt = packed(tmp_path, "learnt", validation=0.0)
    split_anew = packed(tmp_path, "anew", validation=0.5)
    source = [LearntFrom(name="learnt", checksum=learnt.checksum)]
    assert len(HeldOut(split_anew, data_dir=tmp_path)) == 6
    with pytest.raises(PhotochromError, match="trained on all validation photos of 'anew': take another"):
        HeldOut(split_anew, learnt_from=source, data_dir=tmp_path)
