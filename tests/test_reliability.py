"""Breaks everything on purpose: kills trainings at random, fills disks, tears files, spoils numbers.

Experiments that fork and kill run in their own process, as `test_reliability.py EXPERIMENT ...`.
"""

from __future__ import annotations

import ast
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.commands.terminal import asked_to_stop
from photochrom.config import build
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.errors import Interrupted, PhotochromError
from photochrom.model_folder import ModelFolder
from photochrom.training import discriminator, loop
from photochrom.training.loop import Progress
from photochrom.training.state import Training
from photochrom.training.step import train_step
from tests.training.making import GAN, V1, assert_equal, assert_same_training, frozen, staged

Values = dict[str, Any]
Tries = Callable[[int, int], int]
SOURCES = sorted(Path(model_folder.__file__).parent.rglob("*.py"))

# --- Experiments, in a process of their own -----------------------------------------------------------------

CONFIG: Values = {
    "model": {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1, "chroma_scale": 1},
    "diffusion": {"timesteps": 50},
    "training": {"batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "sample_every": 0},
    "stages": [{**V1, "epochs": 2}, {**GAN, "epochs": 2, "perceptual": 0.0, "gan_delay": 2}],
}


def fork(work: Callable[[], None]) -> int:
    """Run it in a copy of this process, and return its id.

    It exits with 0, 1 for a reported error, 143 if stopped.
    """
    if pid := os.fork():
        return pid
    code = 70
    try:
        work()
        code = 0
    except Interrupted as error:
        code = 128 + error.signal_number
    except PhotochromError as error:
        code = 1 if "cannot write" in str(error) else 70
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Trials:
    """Trainings of two stages with a discriminator, interrupted often, beside an undisturbed one."""

    def __init__(self, pack: str, work: str) -> None:
        self.pack, self.work = Pack.open(Path(pack)), Path(work)
        self.chance = random.Random(0)
        self.straight = ModelFolder(self.work / "straight")
        self.train(self.straight)  # here, so that what is imported late is there in every copy
        begun = time.monotonic()
        assert ended(fork(lambda: self.train(ModelFolder(self.work / "timed")))) == 0
        self.seconds = time.monotonic() - begun
        self.trainings = 0

    def train(self, folder: ModelFolder) -> None:
        def report(progress: Progress) -> None:
            if progress.record:  # what a person has been told
                with (self.work / f"{folder.name}.told").open("a") as file:
                    file.write(f"{progress.epoch}\n")

        with asked_to_stop(lambda text: None) as stop:
            loop.train(build(CONFIG), folder, self.pack, report, stop)

    def run(self, tries: int, break_off: Callable[[ModelFolder], int]) -> Values:
        """Interrupt trainings this many times, check each time, and finish each training in the end."""
        codes: dict[int, int] = {}
        before = self.trainings
        while tries > 0:
            self.trainings += 1
            folder, code = ModelFolder(self.work / f"broken{self.trainings}"), -1
            while code and tries > 0:
                code = break_off(folder)
                tries -= code != 0
                codes[code] = codes.get(code, 0) + 1
                assert code != 70, f"training {self.trainings} cannot go on"
                told = self.work / f"{folder.name}.told"
                if told.exists():
                    newest, _, skipped = folder.newest_checkpoint()
                    assert newest["epoch"] >= int(told.read_text().split()[-1]), "an epoch is lost"
                    assert skipped == []
            assert ended(fork(lambda f=folder: self.train(f))) == 0  # type: ignore[misc]
            assert_same_training(folder, self.straight)
            assert list(folder.path.rglob(".*.part")) == []
        return {"codes": codes, "trainings": self.trainings - before}

    def signalled(self, number: int, folder: ModelFolder) -> int:
        """Send a signal at a random moment."""
        pid = fork(lambda: self.train(folder))
        time.sleep(self.chance.uniform(0, self.seconds))
        os.kill(pid, number)
        return ended(pid)

    def limited(self, folder: ModelFolder) -> int:
        """Limit the size of files: torch.save, which writes piece by piece, is stopped in the middle."""
        largest = self.chance.randrange(10, (self.straight / model_folder.LAST).stat().st_size)

        def train_limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            self.train(folder)

        return ended(fork(train_limited))

    def on_a_small_disk(self) -> list[int]:
        """Train twice on a disk that fills after an epoch or two, then make room.

        [] if nothing can be mounted.
        """
        disk = self.work / "disk"
        disk.mkdir()
        size = sum(path.stat().st_size for path in self.straight.path.rglob("*") if path.is_file())
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "none", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return []
        try:
            folder = ModelFolder(disk / "model")
            codes = [ended(fork(lambda: self.train(folder))) for _ in range(2)]
            subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(disk)], check=True)
            codes.append(ended(fork(lambda: self.train(folder))))
            assert_same_training(folder, self.straight)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        return codes


def broken_off(pack: str, work: str, kills: str, stops: str, limits: str) -> Values:
    """All that is done to trainings while they run."""
    trials = Trials(pack, work)
    return {
        "killed": trials.run(int(kills), lambda folder: trials.signalled(signal.SIGKILL, folder)),
        "stopped": trials.run(int(stops), lambda folder: trials.signalled(signal.SIGTERM, folder)),
        "limited": trials.run(int(limits), trials.limited),
        "small disk": trials.on_a_small_disk(),
    }


STEPS = ("open", "write", "fsync of the file", "rename", "fsync of the folder")


def points(work: str) -> Values:
    """Kill a process before and after each step of writing a checkpoint.

    Returns what is there, then and after the next start.
    """
    found = {}
    for step in STEPS:
        for when in ("before", "after", "half-way") if step == "write" else ("before", "after"):
            folder = ModelFolder(Path(work, f"{step} {when}"))
            folder.path.mkdir()
            folder.save_checkpoint(model_folder.LAST, checkpoint(1))
            code = ended(fork(lambda f=folder, s=step, w=when: killed_at(s, w, f)))  # type: ignore[misc]
            newest, origin, skipped = folder.newest_checkpoint()
            assert (origin.name, skipped) == (model_folder.LAST, [])
            with folder.locked():
                left = sorted(path.name for path in folder.path.iterdir() if path.suffix == files.PART)
            found[folder.name] = [code, newest["epoch"], left]
    return found


def checkpoint(epoch: int) -> Values:
    """As plain as a checkpoint can be."""
    return {"model_state_dict": {"a": torch.full((1000,), float(epoch))}, "config": {}, "epoch": epoch}


def killed_at(step: str, when: str, folder: ModelFolder) -> None:
    """Write a checkpoint, and kill this process at one step of it."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                die()
            result = real(*arguments, **options)
            die()
            return result

        return call

    def half(value: Any, file: IO[bytes]) -> None:
        file.write(bytes(5000))
        file.flush()
        die()

    def in_order(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        chosen = step == ("fsync of the folder" if is_folder else "fsync of the file")
        (dying(real) if chosen else real)(descriptor)

    if step == "open":
        Path.open = dying(Path.open)  # type: ignore[method-assign]
    elif step == "write":
        torch.save = half if when == "half-way" else dying(torch.save)  # type: ignore[assignment]
    elif step == "rename":
        os.replace = dying(os.replace)
    else:
        os.fsync = in_order  # type: ignore[assignment]
    folder.save_checkpoint(model_folder.LAST, checkpoint(2))


def growth(pack: str, work: str, steps: str, photos: str) -> Values:
    """MB of growth between the first quarter and the end, in training, colouring and serving."""
    from fastapi.testclient import TestClient

    from photochrom.server.app import create_app
    from photochrom.server.settings import Settings

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    def grown(count: int, work: Callable[[], object]) -> float:
        for _ in range(count // 4):
            work()
        before = megabytes()
        for _ in range(count - count // 4):
            work()
        return megabytes() - before

    opened = Pack.open(Path(pack))
    training = Training(build({**CONFIG, "stages": [{**GAN, "perceptual": 0.0, "gan_delay": 0}]}), opened)
    trained = grown(int(steps), lambda: train_step(training))
    weights = {key: value.detach() for key, value in training.network.state_dict().items()}
    colorizer = Colorizer(training.config, UNet.load(training.config.model, weights, Path(work)))
    photo = Path(work, "photo.png")
    Image.fromarray(opened.photos[0]).save(photo)
    coloured = grown(int(photos), lambda: colorizer(photo, steps=2))
    folder = ModelFolder(Path(work, "models", "served"))
    folder.path.mkdir(parents=True)
    files.write_json(folder / model_folder.CONFIG, training.config.model_dump(mode="json"))
    folder.save_weights(weights, training.config)
    content = photo.read_bytes()
    with TestClient(create_app(Settings(models=folder.path.parent, device="cpu"))) as client:

        def ask() -> None:
            answer = client.post("/api/colorize", files={"photo": content}, data={"steps": "2"})
            assert answer.status_code == 200, answer.text

        served = grown(int(photos), ask)
    return {"training": trained, "colouring": coloured, "serving": served}


def experiment(what: Callable[..., Values], *arguments: object) -> Any:
    """Run one of the above in a process of its own."""
    command = [sys.executable, __file__, what.__name__, *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- Trainings broken off -----------------------------------------------------------------------------------


@pytest.mark.fault("kill -9 before, within and after each step of writing a checkpoint", "")
def test_a_checkpoint_is_old_or_new_wherever_its_writer_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = experiment(points, tmp_path)
    assert len(found) == 11
    assert {code for code, _, _ in found.values()} == {-signal.SIGKILL}
    assert {name: left for name, (_, _, left) in found.items() if left} == {}
    new = {name for name, (_, epoch, _) in found.items() if epoch == 2}
    assert new == {"rename after", "fsync of the folder before", "fsync of the folder after"}
    record_property("tries", len(found))
    record_property("outcome", "the old one whole 8 times, the new one whole 3 times, nothing left over")


@pytest.fixture(scope="module")
def trials(pack: Pack, tmp_path_factory: pytest.TempPathFactory, tries: Tries) -> Values:
    """What `broken_off` found; each test below looks at one part of it."""
    many = (tries(5, 200), tries(4, 100), tries(3, 50))
    return dict(experiment(broken_off, pack.folder, tmp_path_factory.mktemp("trials"), *many))


@pytest.mark.fault("kill -9 at a random moment of a training in two stages with a discriminator", "")
def test_a_training_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    trials: Values, record_property: Callable[[str, object], None]
) -> None:
    codes = trials["killed"]["codes"]
    assert codes.keys() <= {"-9", "0"}
    record_property("tries", codes["-9"])
    record_property(
        "outcome",
        f"each of {trials['killed']['trainings']} trainings went on; no epoch lost that was told; "
        "all ended bit for bit like the one that nobody killed",
    )


@pytest.mark.fault("SIGTERM at a random moment of such a training", "")
def test_a_training_that_is_stopped_again_and_again_too(
    trials: Values, record_property: Callable[[str, object], None]
) -> None:
    codes = trials["stopped"]["codes"]
    assert codes.keys() <= {"143", "-15", "0"}  # -15: before it listens
    assert codes["143"] > 0
    record_property("tries", codes["143"])
    record_property(
        "outcome",
        f"exit 143; all {trials['stopped']['trainings']} trainings ended bit for bit like the "
        "undisturbed one",
    )


@pytest.mark.fault("no file may grow over a random size", "")
def test_a_training_that_finds_no_room_ends_and_goes_on(
    trials: Values, record_property: Callable[[str, object], None]
) -> None:
    codes = trials["limited"]["codes"]
    assert codes.keys() <= {"1", "0"}
    record_property("tries", codes["1"])
    record_property("outcome", "told in one line, exit 1; without the limit each went on to the same end")


@pytest.mark.fault(
    "a disk that is full after an epoch or two", "told in one line, twice; with room, to the same end"
)
def test_a_full_disk(trials: Values) -> None:
    if not trials["small disk"]:
        pytest.skip("no disk may be mounted here")
    assert trials["small disk"] == [1, 1, 0]


@pytest.mark.fault("last_model.pth cut short, or one bit of it changed", "")
def test_a_torn_checkpoint_is_named_and_the_one_before_it_is_gone_on_from(
    pack: Pack, values: Values, tmp_path: Path, tries: Tries, record_property: Callable[[str, object], None]
) -> None:
    config, chance = staged(values, V1, {**GAN, "perceptual": 0.0}), random.Random(0)
    straight, torn = ModelFolder(tmp_path / "straight"), ModelFolder(tmp_path / "torn")
    for folder in (straight, torn):
        loop.train(config, folder, pack)
    whole, unbroken = (
        (torn / model_folder.LAST).read_bytes(),
        model_folder.read_checkpoint(torn / model_folder.LAST),
    )
    count = tries(40, 2000)
    for number in range(count):
        broken = bytearray(whole)
        place = chance.randrange(len(whole))
        if number % 2:
            broken = broken[:place]
        else:
            broken[place] ^= 1 << chance.randrange(8)
        (torn / model_folder.LAST).write_bytes(broken)
        state, origin, skipped = torn.newest_checkpoint()
        if origin.name == model_folder.BEST:
            assert skipped == [
                f"{torn / model_folder.LAST} is damaged, or not a checkpoint of plain tensors and numbers: "
                "get a copy, or start again"
            ]
        else:  # a bit that nobody reads, such as a date in the zip's directory
            assert number % 2 == 0
            assert_equal(state, unbroken)
    (torn / model_folder.LAST).write_bytes(whole[: len(whole) // 2])
    notes: list[str] = []
    loop.train(config, torn, pack, lambda progress: notes.extend(progress.notes))
    assert_same_training(torn, straight)
    record_property("tries", count)
    record_property(
        "outcome", "named and skipped, or the same in every number; best_model.pth leads to the same end"
    )


def test_what_was_skipped_is_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    values["stages"][0]["epochs"] = 3
    folder = ModelFolder(tmp_path / "model")
    with pytest.raises(Interrupted):
        loop.train(build(values), folder, pack, signal_received=iter([0, 0, 0, 0, 15]).__next__)
    (folder / model_folder.LAST).write_bytes(b"PK")
    notes: list[str] = []
    loop.train(build(values), folder, pack, lambda progress: notes.extend(progress.notes))
    assert f"{folder / model_folder.LAST} is damaged" in notes[0]
    assert notes[0].endswith(f"(skipped: going on from {folder / model_folder.BEST})")
    assert [record["epoch"] for record in folder.history] == [1, 2, 3]


def test_an_only_checkpoint_that_is_torn_is_told(pack: Pack, values: Values, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    loop.train(build(values), folder, pack)
    for file in (model_folder.LAST, model_folder.BEST):
        (folder / file).write_bytes(b"")
    with pytest.raises(PhotochromError, match=r"last_model\.pth is damaged, .*start again"):
        loop.train(build(values), folder, pack)


def test_a_training_killed_between_its_last_two_files_is_completed(
    pack: Pack, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best_model.pth holds the only epoch, and nothing else was written."""
    values["stages"][0]["epochs"] = 1
    straight, killed = ModelFolder(tmp_path / "straight"), ModelFolder(tmp_path / "killed")
    loop.train(build(values), straight, pack)
    with monkeypatch.context() as patch:
        patch.setattr(ModelFolder, "save_weights", lambda self, tensors, config: sys.exit(1))
        with pytest.raises(SystemExit):
            loop.train(build(values), killed, pack)
    assert not (killed / model_folder.LAST).exists()
    loop.train(build(values), killed, pack)
    assert_same_training(killed, straight)


# --- Memory -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.fault("training, colouring and serving for long", "")
def test_memory_does_not_grow(
    pack: Pack, tmp_path: Path, tries: Tries, record_property: Callable[[str, object], None]
) -> None:
    steps, photos = tries(200, 2000), tries(40, 500)
    found = experiment(growth, pack.folder, tmp_path, steps, photos)
    assert found["training"] < 10
    assert found["colouring"] < 10
    assert found["serving"] < 10
    record_property("tries", steps + 2 * photos)
    record_property(
        "outcome",
        f"{steps:,} training steps grew by {found['training']:.1f} MB after the first quarter, "
        f"{photos} colourings by {found['colouring']:.1f} MB, "
        f"{photos} requests to the server by {found['serving']:.1f} MB",
    )


# --- Numbers that are none ----------------------------------------------------------------------------------

BAD = {"nan": math.nan, "infinity": math.inf}


def poison(training: Training, place: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, every batch has this number in this place."""
    if place == "photo":
        real = Pack.rgb

        def rgb(self: Pack, where: Any) -> torch.Tensor:
            photos = real(self, where)
            photos[0, 1, 3, 5] = value
            return photos

        monkeypatch.setattr(Pack, "rgb", rgb)
    elif place == "loss":
        monkeypatch.setattr(F, "mse_loss", lambda output, target: (output * value).sum())
    elif place == "gradient":
        training.network.last_layer.register_hook(lambda gradient: gradient * value)
    elif place == "loss of the discriminator":
        monkeypatch.setattr(discriminator, "discriminator_loss", lambda true, coloured: true.mean() * value)
    else:
        assert training.losses.discriminator
        weight = next(training.losses.discriminator.network.parameters())
        weight.register_hook(lambda gradient: gradient * value)


@pytest.mark.fault(
    "NaN or infinity in photo, loss or gradient; stage 1, 2 and 2 with discriminator",
    "no weight, average or optimiser changed; step, number and photos named",
)
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("stage", "place"),
    [
        *((stage, place) for stage in ("v1", "v2", "gan") for place in ("photo", "loss", "gradient")),
        ("gan", "loss of the discriminator"),
        ("gan", "gradient of the discriminator"),
    ],
)
def test_a_bad_number_changes_nothing(
    stage: str, place: str, value: str, pack: Pack, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"v1": V1, "v2": {**V1, "perceptual": 0.1}, "gan": {**GAN, "perceptual": 0.0, "gan_delay": 0}}
    training = Training(staged(values, stages[stage]), pack)
    train_step(training)
    before = frozen(training)
    poison(training, place, BAD[value], monkeypatch)
    names = pack.origin[pack.photos_of_step(0, 2, 8)[0]]
    with pytest.raises(
        PhotochromError, match=rf"^step 2: .* not finite; .*\(photos {names}, .*last good checkpoint"
    ):
        train_step(training)
    assert_equal(frozen(training), before)


# --- Files that would do harm -------------------------------------------------------------------------------


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_nothing_that_is_read_is_ever_executed() -> None:
    """Every torch.load has weights_only=True, and nothing else that runs what it reads is called anywhere."""
    loads = 0
    for path in SOURCES:
        for call in calls(path):
            name, options = (
                ast.unparse(call.func),
                {word.arg: ast.unparse(word.value) for word in call.keywords},
            )
            assert name not in (
                "eval",
                "exec",
                "pickle.load",
                "pickle.loads",
                "yaml.load",
                "marshal.loads",
            ), path
            assert options.get("allow_pickle", "False") == "False", path
            assert options.get("strict", "True") == "True" or not name.endswith("load_state_dict"), path
            assert not name.endswith("load_state_dict") or len(call.args) == 1, path
            if name == "torch.load":
                loads += 1
                assert options["weights_only"] == "True", path
        assert "weights_only=False" not in path.read_text()
    assert loads > 0


def test_the_lock_file_has_every_dependency() -> None:
    """Of the package and of its tests, each with its hashes; after a change of dependencies: `make lock`."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[^\w.-]", line)[0].lower()
        for line in (*project["dependencies"], *extras["dev"], *extras["serve"], "hatchling", "editables")
    }
    entries = re.findall(
        r"^(\S+)==\S+.*((?:\\\n {4}--hash=sha256:[0-9a-f]{64} ?)+)",
        (root / "requirements-ci.txt").read_text(),
        re.M,
    )
    assert wanted - {name for name, _ in entries} == {project["name"]}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
