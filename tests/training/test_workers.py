"""Threads that take parts of a batch: their number changes no bit, and what fails in one fails once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photochrom.config import build
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.model_folder import ModelFolder
from photochrom.training.loop import train
from photochrom.training.state import Training
from photochrom.training.step import train_step
from photochrom.training.validation import sheet, validate
from photochrom.training.workers import Workers
from tests.making import smooth

Values = dict[str, Any]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch takes this many in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def many(values: Values) -> Values:
    """Batches of 24 photos, with an encoder and a loss on colours."""
    values["model"] |= {"encoder": "lite0", "chroma_scale": 4}
    values["training"] |= {"batch_size": 24}
    values["data"] |= {"photos_per_epoch": 96}
    values["stages"] = [{"epochs": 2, "perceptual": 0.1, "perceptual_from": 0.0, "perceptual_share": 1.0}]
    return values


@pytest.fixture(scope="module")
def pack_of_32(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Photos large enough for EfficientNet and VGG16."""
    source = tmp_path_factory.mktemp("photos")
    for seed in range(32):
        smooth(seed).resize((32, 32)).save(source / f"{seed:02}.png")
    destination = source.parent / "of-32"
    import_photos(source, destination, size=32, validation=0.25, test=0.0, workers=1)
    return Pack.open(destination)


def test_the_number_of_threads_changes_no_bit(many: Values, pack_of_32: Pack) -> None:
    def trained(count: int) -> tuple[list[Tensor], list[dict[str, float]], dict[str, float], bytes]:
        with threads(count):
            training = Training(build(many), pack_of_32)
            torch.nn.init.normal_(training.network.last_layer, generator=torch.Generator().manual_seed(0))
            logs = [train_step(training) for _ in range(3)]
            picture = sheet(training)[0].tobytes()
            assert training.workers.count == min(count, 2)
            return list(training.network.parameters()), logs, validate(training), picture

    one, two, three = map(trained, (1, 2, 3))
    for other in (two, three):
        assert all(map(torch.equal, one[0], other[0]))
        assert other[1:] == one[1:]


def test_parts_add_up_to_the_whole(many: Values, pack_of_32: Pack) -> None:
    gradients = []
    for alone in (False, True):
        training = Training(build(many), pack_of_32)
        if alone:
            training.backward.workers = Workers(24, alone=True)
        torch.nn.init.normal_(training.network.last_layer, generator=torch.Generator().manual_seed(0))
        _, batch = training.batches.of_step(0, training.losses, None)
        log = training.backward(batch, training.losses, None, 0)
        assert training.backward.parallel(training.losses) is not alone
        gradients.append((log, [weight.grad for weight in training.network.parameters()]))
    assert gradients[0][0]["loss"] == pytest.approx(gradients[1][0]["loss"], rel=1e-5)
    for part, whole in zip(gradients[0][1], gradients[1][1], strict=True):
        assert part is not None
        assert whole is not None
        torch.testing.assert_close(part, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("photos", "cores", "parts", "count", "each"),
    [(7, 2, [7], 1, 2), (8, 2, [8], 1, 2), (16, 2, [8, 8], 2, 1), (24, 1, [12, 12], 1, 1),
     (32, 2, [16, 16], 2, 1),
     (40, 2, [16, 16, 8], 2, 1), (64, 8, [16] * 4, 4, 2)],
)  # fmt: skip
def test_parts_do_not_depend_on_the_machine(
    photos: int, cores: int, parts: list[int], count: int, each: int
) -> None:
    with threads(cores):
        workers = Workers(photos)
    assert [len(range(photos)[part]) for part in workers.slices(photos)] == parts
    assert (workers.count, workers.threads) == (count, each)


def test_results_come_in_order_from_threads_that_take_one_core_each() -> None:
    with threads(2):
        workers, meeting = Workers(32), threading.Barrier(2, timeout=10)

        def do(number: int) -> tuple[int, int, str]:
            meeting.wait()  # so that two are at it at once
            return number, torch.get_num_threads(), threading.current_thread().name

        found = list(workers.map(do, range(4)))
        assert [each[:2] for each in found] == [(0, 1), (1, 1), (2, 1), (3, 1)]
        assert len({name for *_, name in found}) == 2
        assert torch.get_num_threads() == 2
        with workers.sharing():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


def test_what_fails_in_one_is_raised_once_all_have_ended() -> None:
    with threads(2):
        workers, ended, begun = Workers(32), list[int](), threading.Event()

        def do(number: int) -> None:
            if number == 0:
                begun.wait(10)
                raise RuntimeError("out of memory")
            begun.set()
            ended.append(number)

        with pytest.raises(RuntimeError, match="out of memory"):
            list(workers.map(do, range(4)))
        assert sorted(ended) == [1, 2, 3]


def test_the_history_says_who_did_the_work(many: Values, pack_of_32: Pack, tmp_path: Path) -> None:
    """A stage whose threads share the batch, and one that its discriminator makes them do at once."""
    many["data"]["photos_per_epoch"] = 24
    many["model"] |= {"chroma_scale": 2, "encoder": "none"}
    plain = {"epochs": 1, "perceptual": 0.0}
    many["stages"] = [plain, plain | {"gan": True, "gan_delay": 0}]
    folder = ModelFolder(tmp_path / "model")
    with threads(2):
        train(build(many), folder, pack_of_32)
    keys = ("parts", "workers", "threads")
    assert [tuple(record[key] for key in keys) for record in folder.history] == [(2, 2, 1), (1, 1, 2)]


def test_a_discriminator_and_dropout_see_the_batch_at_once(many: Values, pack_of_32: Pack) -> None:
    many["stages"] = [{"epochs": 1, "perceptual": 0.0, "gan": True, "gan_delay": 0}]
    many["model"] |= {"chroma_scale": 2, "encoder": "none"}
    training = Training(build(many), pack_of_32)
    assert not training.backward.parallel(training.losses)
    many["stages"] = [{"epochs": 1, "perceptual": 0.0}]
    many["model"] |= {"dropout": 0.1}
    assert Training(build(many), pack_of_32).workers.parts == 1
