"""Several processes of a launcher: two do what one does, whatever happens to either.

Run by a launcher, this file is what both of them do.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom import files, model_folder, pictures, processes
from photochrom.commands.cli import main
from photochrom.config import Config, build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError, UsageError
from photochrom.evaluation import evaluate, report
from photochrom.evaluation.at_size import model_at_size
from photochrom.evaluation.held_out import HeldOut
from photochrom.model_folder import ModelFolder
from photochrom.randomness import Indices
from photochrom.training.batches import Batches
from photochrom.training.loop import Progress, train
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training
from tests.making import smooth
from tests.training.making import losses, signal_at

Values = dict[str, Any]
BIN = Path(sys.executable).parent
TORCHRUN = (BIN / "torchrun", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (
    *(BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", "2"),
    "--main_process_port",
    "0",
)
V1, V2 = {"epochs": 1, "perceptual": 0.0}, {"epochs": 1, "perceptual": 0.1}
NO_CLOCK = {"seconds_per_photo": 0.0}
GAN = {**V2, "gan": True, "gan_delay": 1, "adversarial": 0.1}


def config(*stages: Values, **training: Any) -> Config:
    """By default three steps of eight photos an epoch; chroma of 16 pixels, as the discriminator needs."""
    model = {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1, "chroma_scale": 1}
    usual = {
        "precision": "fp32",
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "sample_every": 0,
    }
    diffusion = {"timesteps": 50}
    return build({"model": model, "diffusion": diffusion, "training": usual | training, "stages": stages})


BOTH_STAGES = config(V1, GAN)
BF16 = config(V2, precision="bf16")
UNEVEN = config(V2, batch_size=5)  # one process gets three photos of each batch, the other two
IN_PARTS = config(V2, batch_size=5, accumulate=2)
POISONED = config(V1)
LONG = config({**V1, "epochs": 12})
AS_FLAGS = (
    "--features 8,16 --time-embedding 16 --blocks 1 --attention 1 --chroma-scale 1 --timesteps 50 "
    "--precision fp32 --batch-size 8 --learning-rate 1e-3 --warmup-steps 2 --ema-decay 0.9 --sample-every 0 "
    "--perceptual 0 --epochs 12"
)


@contextmanager
def patched(owner: Any, name: str, new: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, new)
        yield


def poison(
    self: Batches,
    step: int,
    *more: Any,
    real: Callable[..., tuple[Indices, Noisy]] = Batches.of_step,
) -> tuple[Indices, Noisy]:
    """The second batch of a training has a value that is no number, for the last process."""
    photos, batch = real(self, step, *more)
    if step == 1 and processes.number() == processes.count() - 1:
        batch.xt[0] = torch.nan
    return photos, batch


def short_of_memory(self: UNet, xt: Tensor, *more: Any, real: Callable[..., Tensor] = UNet.forward) -> Tensor:
    """The second process has memory for a single photo at a time."""
    if torch.is_grad_enabled() and processes.number() == 1 and len(xt) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return real(self, xt, *more)


def evaluated(model: ModelFolder, pack: Pack, out: Path) -> dict[str, Any]:
    with patched(report, "html", lambda result, photos: ""), patched(HeldOut, "at_once", 2):
        tiny = model_at_size(model.path, "models", pack, steps=2)
        return evaluate.evaluate([tiny], HeldOut(pack), out)


# --- What both processes do ---------------------------------------------------------------------------------


def run_both(place: Path) -> None:
    """Run every case in a model folder of its name. A file holds what each process was told, or its error."""
    pack = Pack.open(place / "data" / "tiny")
    told: dict[str, Any] = {}

    def case(name: str, config: Config, signal_received: Callable[[], int] = lambda: 0) -> None:
        notes: list[str] = []

        def report(progress: Progress) -> None:
            notes.extend(progress.notes)

        try:
            train(config, ModelFolder(place / name), pack, report, signal_received)
        except PhotochromError as error:
            notes += [type(error).__name__, str(error), str(error.exit_code)]
        told[name] = notes

    VGG16.load = functools.cache(VGG16.load)  # type: ignore[method-assign]
    pictures.loss_curve = lambda history: b""
    write = files.write_atomically if processes.is_first() else None  # which would fail
    with patched(files, "write_atomically", write):
        case("both-stages", BOTH_STAGES)
        case("long", LONG)
        case("bf16", BF16)
        case("parts", IN_PARTS)
        with patched(UNet, "forward", short_of_memory):
            case("memory", UNEVEN)
        with patched(Batches, "of_step", poison):
            case("poisoned", POISONED)
        case("stopped", BOTH_STAGES, signal_at(2) if processes.number() == 1 else lambda: 0)
        case("resumed", BOTH_STAGES)
        with patched(ModelFolder, "save_checkpoint", no_disk):
            case("full", POISONED)
    told["report"] = evaluated(ModelFolder(place / "both-stages"), pack, place / "report")["rows"]
    (place / f"told-{processes.number()}.json").write_text(json.dumps(told))


def no_disk(self: ModelFolder, *arguments: Any) -> None:
    raise PhotochromError("the disk is full")


# --- Trainings and evaluations ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(place: Path, pack: Pack) -> Iterator[Callable[[Config], ModelFolder]]:
    """The folder of a training by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", functools.cache(VGG16.load))
        patch.setattr(pictures, "loss_curve", lambda history: b"")

        def trained(config: Config) -> ModelFolder:
            folder = ModelFolder(place / f"alone-{hash(config)}")
            train(config, folder, pack)
            return folder

        yield functools.cache(trained)


@pytest.fixture(scope="module")
def told(place: Path, pack: Pack, alone: Callable[[Config], ModelFolder]) -> list[dict[str, Any]]:
    """What the two processes were told, after both have run."""
    (place / "data").symlink_to(pack.folder.parent)
    with pytest.raises(PhotochromError, match="all saved"):  # here by one process, there taken up by two
        train(BOTH_STAGES, ModelFolder(place / "resumed"), pack, signal_received=signal_at(4))
    done = subprocess.run(
        [*TORCHRUN, __file__, place],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((place / f"told-{number}.json").read_text()) for number in range(2)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def assert_equal_training(
    found: ModelFolder, expected: ModelFolder, tolerance: float, parts: bool = False
) -> None:
    """Equal losses, and equal weights, but for what Adam makes of rounding where a gradient should be 0."""
    for ours, theirs in zip(losses(found), losses(expected), strict=True):
        assert ours.keys() == theirs.keys()
        if parts:  # it is the mean over parts
            theirs["gradient_ratio"] = ours["gradient_ratio"]
        for name, value in theirs.items():
            is_number = isinstance(value, float | dict)
            assert ours[name] == (
                pytest.approx(value, rel=tolerance, abs=tolerance) if is_number else value
            ), name
    one, other = (model_folder.read_checkpoint(folder / model_folder.LAST) for folder in (found, expected))
    for part in ("model_state_dict", "ema_state_dict"):
        for name, weights in other[part].items():
            torch.testing.assert_close(one[part][name], weights, rtol=1e-3, atol=20 * tolerance, msg=name)


@pytest.mark.parametrize(
    ("name", "config", "tolerance"),
    [
        ("both-stages", BOTH_STAGES, 2e-5),
        ("bf16", BF16, 2e-2),
        ("parts", UNEVEN, 2e-5),
        ("memory", UNEVEN, 2e-5),
        ("resumed", BOTH_STAGES, 2e-5),
    ],
)
def test_two_processes_train_as_one_does(
    name: str,
    config: Config,
    tolerance: float,
    told: list[dict[str, Any]],
    place: Path,
    alone: Callable[[Config], ModelFolder],
) -> None:
    assert_equal_training(ModelFolder(place / name), alone(config), tolerance, parts=config is UNEVEN)


def test_a_process_short_of_memory_makes_all_take_smaller_parts(told: list[dict[str, Any]]) -> None:
    (ours,), (theirs,) = ([note for note in each["memory"] if "memory" in note] for each in told)
    assert ours.startswith("out of memory: processing batches in parts of 2; the batch size stays 5")
    assert theirs.startswith("out of memory: processing batches in parts of 1; the batch size stays 5")


def test_what_is_no_number_for_one_is_left_out_by_all(
    told: list[dict[str, Any]], place: Path, pack: Pack
) -> None:
    expected = ModelFolder(place / "poisoned-alone")
    with patched(Batches, "of_step", poison), patched(pictures, "loss_curve", lambda history: b""):
        train(POISONED, expected, pack)
    assert_equal_training(ModelFolder(place / "poisoned"), expected, 2e-5)
    for each in told:
        assert re.match(r"step 1: .*noise.* not finite; skipped this batch", each["poisoned"][0])


def test_a_signal_to_one_stops_all_and_one_process_goes_on(
    told: list[dict[str, Any]], place: Path, pack: Pack, alone: Callable[[Config], ModelFolder]
) -> None:
    for each in told:
        assert (each["stopped"][0], each["stopped"][2]) == ("Interrupted", "143")
    folder = ModelFolder(place / "stopped")
    assert model_folder.read_checkpoint(folder / model_folder.LAST)["step"] == 2
    train(BOTH_STAGES, folder, pack)
    assert_equal_training(folder, alone(BOTH_STAGES), 2e-5)


def test_what_fails_in_the_first_ends_all_and_only_the_first_says_why(told: list[dict[str, Any]]) -> None:
    assert told[0]["full"] == ["PhotochromError", "the disk is full", "1"]
    assert told[1]["full"] == ["FailedElsewhere", "the first process has failed", "1"]


def test_two_processes_measure_what_one_does(told: list[dict[str, Any]], place: Path, pack: Pack) -> None:
    expected = json.loads(
        json.dumps(evaluated(ModelFolder(place / "both-stages"), pack, place / "report-alone"))
    )
    assert told[0]["report"] == told[1]["report"]
    for row, measures in expected["rows"].items():
        found = told[0]["report"][row] | NO_CLOCK
        assert found.keys() == (measures | NO_CLOCK).keys()
        for name, interval in (measures | NO_CLOCK).items():
            numbers = interval if isinstance(interval, dict) else {"value": interval}
            others = found[name] if isinstance(interval, dict) else {"value": found[name]}
            for end, number in numbers.items():  # sums are in another order
                assert others[end] == (number if number is None else pytest.approx(number, rel=1e-6)), name
    assert sorted(path.name for path in (place / "report").iterdir()) == ["report.html", "report.json"]


# --- The commands -------------------------------------------------------------------------------------------


def launched(launcher: tuple[Any, ...], *arguments: Any, at: Path) -> subprocess.CompletedProcess[str]:
    command = [*launcher, "-m", "photochrom", *arguments]
    return subprocess.run(
        command, cwd=at, capture_output=True, text=True, timeout=300, check=False, env=environment()
    )


def test_two_processes_share_an_album(
    told: list[dict[str, Any]], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album, out = tmp_path / "album", tmp_path / "out"
    (album / "more").mkdir(parents=True)
    for number in range(5):
        smooth(number).save(album / ("more" if number % 2 else "") / f"{number}.png")
    (album / "bad.png").write_text("no photo")
    options = ("colorize", album, "--model", place / "both-stages", "--steps", "2")
    done = launched(ACCELERATE, *options, "-o", out, at=tmp_path)
    written = sorted(str(out / path.relative_to(album)) for path in album.rglob("[0-4].png"))
    assert sorted(done.stdout.split()) == written
    assert done.stderr.count("photochrom: error: ") == 1
    assert done.stderr.count("5 coloured, 1 failed") == 1
    # Of the process that ends first; the launcher may stop the other one then, and its own code is 1.
    assert done.stderr.count("exitcode  : 3 ") >= 1
    assert main_code(*options, "-o", tmp_path / "alone") == 3
    for path in map(Path, written):
        ours, theirs = (Image.open(at / path.relative_to(out)) for at in (out, tmp_path / "alone"))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    capsys.readouterr()
    assert main_code(*options, "-o", out) == 3
    assert "skipped 5 unchanged since" in capsys.readouterr().err


def main_code(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return int(exit.value.code or 0)


def test_a_launcher_that_is_stopped_leaves_a_training_to_go_on_with(pack: Pack, tmp_path: Path) -> None:
    options = [
        *("--features", "8,16", "--blocks", "1", "--perceptual", "0"),
        *("--epochs", "100000", "--batch-size", "8"),
    ]
    command = [*map(str, TORCHRUN), "-m", "photochrom", "train", "--data", str(pack.folder), *options]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    folder = ModelFolder(tmp_path / "models" / "my_model")
    deadline = time.monotonic() + 120
    while len(folder.history) < 2 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert said.count("all saved; the same command goes on from here") == 1
    assert said.count("1/100000  v1  loss") == 1
    assert model_folder.read_checkpoint(folder / model_folder.LAST)["step"] >= 6
    assert not (folder / ".trainer").exists()


# --- Two machines -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """One of two launchers' machines: how to start a command there, and its address on their network."""

    inside: tuple[str, ...]
    interface: str
    address: str


def ip(*arguments: str) -> bool:
    """Whether the command that sets up networks can do so."""
    with suppress(FileNotFoundError):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Two network namespaces and a cable.

    Two addresses of this machine where namespaces are not permitted.
    """
    names = [f"photochrom-{os.getpid()}-{number}" for number in (1, 2)]
    addresses = [f"10.77.0.{number}" for number in (1, 2)]
    try:
        if not all(ip("netns", "add", name) for name in names):
            yield [Machine((), "lo", f"127.0.0.{number}") for number in (1, 2)]
            return
        one, other = names
        assert ip(
            "link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", other
        )
        for name, address in zip(names, addresses, strict=True):
            assert ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            assert ip("-n", name, "link", "set", "cable", "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield [
            Machine(("ip", "netns", "exec", name), "cable", address)
            for name, address in zip(names, addresses, strict=True)
        ]
    finally:
        for name in names:
            ip("netns", "delete", name)


ONE_STORE_EACH = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Without it, some restarts hang on a busy machine."""
TOGETHER = "--nnodes 2 --nproc-per-node 1 --max-restarts 3 --rdzv-backend c10d --rdzv-id killed"


def launch_on(machines: list[Machine], number: int, port: int, place: Path) -> subprocess.Popen[str]:
    """Start the launcher of one machine, with one process in the training `killed`."""
    machine, own_address = machines[number], machines[number].address
    meeting = f"--rdzv-endpoint {machines[0].address}:{port} --rdzv-conf is_host={1 - number}"
    options = f"{TOGETHER} {meeting} --local-addr {own_address} -m photochrom train".split()
    folders = ["--name", "killed", "--models", str(place), "--data", str(place / "data" / "tiny")]
    return subprocess.Popen(
        [*machine.inside, str(BIN / "torchrun"), *options, *folders, *AS_FLAGS.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | {"GLOO_SOCKET_IFNAME": machine.interface, ONE_STORE_EACH: "1"},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one address on the loopback")
def test_a_training_on_two_machines_survives_the_death_of_a_process(
    told: list[dict[str, Any]], place: Path, machines: list[Machine]
) -> None:
    folder, undisturbed = ModelFolder(place / "killed"), ModelFolder(place / "long")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    launchers = [launch_on(machines, number, port, place) for number in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while len(folder.history) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(int((folder / ".trainer").read_text()), signal.SIGKILL)  # the one that writes
        said = "".join(launcher.communicate(timeout=300)[0] for launcher in launchers)
    finally:
        for launcher in launchers:
            with launcher:  # closes its pipe, which a process of a killed launcher may hold open
                launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    assert re.search(r"killed already has \d+ epochs", said)
    one, other = (model_folder.read_checkpoint(each / model_folder.LAST) for each in (folder, undisturbed))
    assert one["step"] == other["step"] == 36
    for part in ("model_state_dict", "ema_state_dict"):
        for name, weights in other[part].items():
            assert torch.equal(one[part][name], weights), name


# --- Without a launcher -------------------------------------------------------------------------------------


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a process that a launcher has started, which meets no other."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


def test_batches_that_do_not_go_round_are_refused(second_of_two: None, pack: Pack) -> None:
    with pytest.raises(UsageError, match="a batch of 1 has no photo for each of 2 processes"):
        Training(config(V1, batch_size=1), pack)


def test_more_processes_than_gpus_are_refused(second_of_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="more processes than GPUs on this machine: start 1"):
        processes.connect.__wrapped__()


def test_several_launchers_that_restart_need_a_store_for_each_start(
    second_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"start each launcher with {ONE_STORE_EACH}=1"):
        processes.connect.__wrapped__()


def test_what_one_process_does_is_refused_to_several(
    second_of_two: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_code("data", "list") == 2
    said = "photochrom: error (process 1): photochrom data runs in one process, and the launcher has"
    assert capsys.readouterr().err.startswith(said)


def test_a_share_is_every_nth(second_of_two: None) -> None:
    assert processes.mine(range(5)) == range(1, 5, 2)
    assert (processes.count(), processes.number(), processes.is_first()) == (2, 1, False)


def test_one_process_meets_nobody() -> None:
    tensor = torch.ones(2)
    before = copy.copy(tensor)
    processes.meet(trouble=True)
    processes.add_up([tensor])
    assert torch.equal(processes.total(tensor), before)
    assert (processes.largest(7), processes.gather(7), processes.from_first(lambda: 7)) == (7, [7], 7)
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    with processes.ending():
        run_both(Path(sys.argv[1]))
        sys.exit()
