"""Kept features: nearly lossless, resumed after an interruption, as good to learn from as computed ones."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor

from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.errors import Interrupted
from photochrom.model_folder import ModelFolder
from photochrom.training import features
from photochrom.training.features import LEVELS, KeptFeatures, keep
from photochrom.training.loop import Progress, train
from tests.running import call

pytestmark = pytest.mark.usefixtures("one_vgg")

Values = dict[str, Any]
CPU = torch.device("cpu")


def test_what_is_kept_is_what_was_seen_to_half_a_level(tmp_path: Path) -> None:
    luma, rows = torch.rand(100, 1, 4, 4) * 2 - 1, torch.rand(100, 6) * 15
    calls: list[int] = []

    def compute(photos: Any) -> tuple[Tensor, list[Tensor]]:
        calls.extend(photos)
        return luma[photos], [rows[photos, :2].reshape(-1, 2, 1, 1), rows[photos, 2:].reshape(-1, 1, 2, 2)]

    shapes = [(1, 4, 4), (2, 1, 1), (1, 2, 2)]
    kept = keep(tmp_path / "f.bytes", shapes, 100, compute, lambda done, total: None, CPU)
    drawn = np.array([99, 0, 7, 7])
    y, features = kept(drawn)
    assert (y - luma[drawn]).abs().max() <= 1 / 255 + 1e-6  # half of 1 / 127.5
    for found, true in zip(features, compute(drawn)[1], strict=True):
        assert found.shape == true.shape
        assert (found - true).abs().max() <= 0.5 / LEVELS + 1e-6
    calls.clear()
    again = keep(tmp_path / "f.bytes", shapes, 100, compute, lambda done, total: None, CPU)
    assert not calls
    assert torch.equal(again(drawn)[1][1], features[1])


def test_what_is_kept_may_be_larger_than_memory(tmp_path: Path) -> None:
    """A hundred gigabytes, nearly all of them a hole that takes no room on the disk."""
    path, count, row = tmp_path / "f.bytes", 1_000_000, 100_000
    with path.open("wb") as file:
        file.truncate(count * row)
        file.seek((count - 1) * row)
        file.write(bytes([255]) * row)
    kept = KeptFeatures(path, [(1, 100, 100), (9, 100, 100)], count, CPU)
    y, (features,) = kept(np.array([0, count - 1]))
    assert y[:, 0, 0, 0].tolist() == [-1.0, 1.0]
    assert features[:, 0, 0, 0].tolist() == [0.0, 255 / LEVELS]


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "KEPT_AT_ONCE", 10)
    rows, calls = torch.rand(50, 3), list[int]()
    shapes = [(1, 1, 1), (3, 1, 1)]

    def compute(photos: Any) -> tuple[Tensor, list[Tensor]]:
        calls.extend(photos)
        return rows[photos, :1].reshape(-1, 1, 1, 1), [rows[photos].reshape(-1, 3, 1, 1)]

    def stop(done: int, total: int) -> None:
        assert total == 50
        if done == 20:
            raise Interrupted("enough", 15)

    path = tmp_path / "f.bytes"
    with pytest.raises(Interrupted):
        keep(path, shapes, 50, compute, stop, CPU)
    assert calls == list(range(20))
    part = path.with_suffix(".part")
    part.write_bytes(part.read_bytes()[:-1])  # a torn row is computed again
    kept = keep(path, shapes, 50, compute, lambda done, total: None, CPU)
    assert calls == [*range(20), *range(19, 50)]
    assert (kept(np.arange(50))[1][0].flatten(1) - rows).abs().max() <= 0.5 / LEVELS + 1e-6
    assert not part.exists()


@pytest.mark.parametrize("flip", [False, True])
def test_a_training_with_kept_features_learns_as_one_that_computes_them(
    own_pack: Pack, seeing: Values, tmp_path: Path, flip: bool
) -> None:
    seeing["data"] = {"flip": flip, "aged": 0.5}
    losses = []
    for name, keeps in (("kept", True), ("computed", False)):
        seeing["data"]["keep_features"] = keeps
        folder = ModelFolder(tmp_path / name)
        train(build(seeing), folder, own_pack)
        losses.append(folder.history[-1]["val_loss"])
    (kept,) = own_pack.folder.glob("features-*.bytes")
    assert kept.stat().st_size == (1 + flip) * len(own_pack.split) * (16 * 16 + 256 * 4 * 4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("reason", ["full", "read-only"])
def test_without_room_it_says_so_and_computes_in_every_step(
    own_pack: Pack, seeing: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    else:

        def refuse(*arguments: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("photochrom.training.inputs.keep", refuse)
    notes: list[str] = []
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        notes.extend(progress.notes)
        seen.append(progress)

    train(build(seeing), ModelFolder(tmp_path / "model"), own_pack, report)
    assert any("every step computes them again" in note for note in notes)
    assert any(("are needed" if reason == "full" else "Permission denied") in note for note in notes)
    assert not list(own_pack.folder.glob("features-*.bytes"))
    assert seen[-1].record is not None


def in_use(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(
        13, "The process cannot access the file because it is being used by another process"
    )


def test_what_no_model_needs_is_counted_and_removed(
    own_pack: Pack, seeing: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(build(seeing), ModelFolder(tmp_path / "models" / "needed"), own_pack)
    seeing["data"]["aged"] = 0.5
    train(build(seeing), ModelFolder(tmp_path / "models" / "gone"), own_pack)
    kept = {path: path.stat().st_size for path in own_pack.folder.glob("features-*.bytes")}
    assert len(kept) == 2
    assert own_pack.summary()["feature_bytes"] == sum(kept.values())
    both = [ModelFolder(tmp_path / "models" / name).config for name in ("needed", "gone")]
    assert features.remove_unneeded(own_pack, both) == {}
    needed = own_pack.folder / f"features-{features.feature_key(both[0], own_pack.checksum)}.bytes"
    (other,) = kept.keys() - {needed}
    with FileLock(other.with_suffix(".lock")):  # another process computes it just now
        assert features.remove_unneeded(own_pack, both[:1]) == {}
    with monkeypatch.context() as windows:  # where another process reads it just now
        windows.setattr(features, "os", SimpleNamespace(name="nt"))
        windows.setattr(Path, "unlink", in_use)
        assert features.remove_unneeded(own_pack, both[:1]) == {}
    assert features.remove_unneeded(own_pack, both[:1]) == {other.name: kept[other]}
    assert needed.exists()
    assert own_pack.summary()["feature_bytes"] == kept[needed]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    own_pack.folder.rename(tmp_path / "data" / "tiny")
    assert call("data", "clean") == 0
    assert len(list((tmp_path / "data" / "tiny").glob("features-*.bytes"))) == 1
    shutil.rmtree(tmp_path / "models" / "needed")
    shutil.rmtree(tmp_path / "models" / "gone")
    assert call("data", "clean") == 0
    assert not list((tmp_path / "data" / "tiny").glob("features-*"))
