"""The model folder: nothing is ever half written, lost or run, and every fault says what it is."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import build
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    folder = ModelFolder(tmp_path / "model_v1")
    folder.path.mkdir()
    return folder


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A second process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- Writing ------------------------------------------------------------------------------------------------


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from photochrom.errors import PhotochromError
from photochrom.model_folder import ModelFolder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    state = {"config": {}, "model_state_dict": torch.zeros(10**6)}
    ModelFolder(Path(sys.argv[1])).save_checkpoint("last_model.pth", state)
except PhotochromError as error:
    print(error)
"""


def test_a_checkpoint_that_finds_no_room_keeps_the_old_one(folder: ModelFolder) -> None:
    """A real limit of the operating system: torch.save answers it with an error of its own."""
    old = {"model_state_dict": {}, "config": {}, "epoch": 3}
    folder.save_checkpoint(model_folder.LAST, old)
    message, _ = python(LIMITED, folder.path).communicate(timeout=60)
    assert message.startswith(f"cannot write {folder / model_folder.LAST}: ")
    assert "what was saved before stays" in message
    assert model_folder.read_checkpoint(folder / model_folder.LAST) == old
    assert names(folder.path) == {model_folder.LAST}


# --- The lock -----------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from photochrom.model_folder import ModelFolder
with ModelFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_trainer_is_refused_until_the_first_is_dead(folder: ModelFolder) -> None:
    holder = python(HOLDER, folder.path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(PhotochromError, match=f"process {holder.pid}; wait or stop it"):
            folder.locked().__enter__()
    finally:
        holder.kill()  # SIGKILL: it has no chance to tidy up
        holder.communicate(timeout=60)
    with folder.locked():
        pass


def test_a_folder_is_being_trained_while_somebody_holds_its_lock(folder: ModelFolder) -> None:
    """Not while some process has the number that a trainer of long ago wrote down."""
    assert not folder.being_trained
    (folder / ".trainer").write_text(f"{os.getpid()}\n")
    (folder / ".lock").touch()
    assert not folder.being_trained
    with folder.locked():
        assert ModelFolder(folder.path).being_trained
    assert not folder.being_trained


def test_asking_keeps_no_trainer_out(folder: ModelFolder) -> None:
    with folder.locked():
        pass
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            _ = folder.being_trained

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(50):
            with ModelFolder(folder.path).locked():
                pass
    finally:
        asking.set()
        thread.join()


def test_the_lock_is_free_after_use_and_after_an_error(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models" / "new")
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked():
        assert folder.path.is_dir()
        with pytest.raises(PhotochromError, match=f"process {os.getpid()}"):
            ModelFolder(folder.path).locked().__enter__()
    with folder.locked():
        pass


def test_a_disk_that_cannot_even_take_a_number_is_told(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(path: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        with pytest.raises(PhotochromError, match=r"cannot write to .*model_v1: No space left on device"):
            folder.locked().__enter__()
    with folder.locked():
        pass


def test_the_next_trainer_sweeps_what_a_killed_one_left(folder: ModelFolder) -> None:
    (folder / "samples").mkdir()
    left = [
        folder / f".{name}.x7_y2.part"
        for name in (model_folder.LAST, model_folder.BEST, model_folder.WEIGHTS, model_folder.HISTORY)
    ]
    left.append(folder / "samples" / ".epoch_0005.png.x7_y2.part")
    kept = [
        folder / ".notes.txt",
        folder / model_folder.LAST,
        folder / model_folder.HISTORY,
        folder / "notes.part",
    ]
    for path in left + kept:
        path.touch()
    with folder.locked():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_place_that_cannot_be_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(PhotochromError, match=r"cannot write to .*model_v1"):
        ModelFolder(tmp_path / "models" / "model_v1").locked().__enter__()


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model_v1", "a", "2024.best-one", "x" * 64])
def test_good_names(name: str, tmp_path: Path) -> None:
    folder = model_folder.model_folder(name, tmp_path)
    assert (folder.name, folder.path, folder.exists) == (name, tmp_path / name, False)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "/etc", ".hidden", "-flag", "a b", "a\n", "ä", "x" * 65]
)
def test_bad_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use letters, digits"):
        model_folder.model_folder(name, tmp_path)


def make(models: Path, name: str) -> ModelFolder:
    folder = model_folder.model_folder(name, models)
    folder.path.mkdir(parents=True)
    files.write_json(folder / model_folder.CONFIG, build({}).model_dump(mode="json"))
    return folder


def test_models_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    models = tmp_path / "models"
    make(models, "b")
    made = make(models, "a")
    (models / "not_a_model").mkdir()
    assert [folder.name for folder in model_folder.list_models(models)] == ["a", "b"]
    assert model_folder.find_model("a", models).path == made.path
    assert model_folder.find_model(made.path, tmp_path / "elsewhere").path == made.path
    assert model_folder.find_model("a", models).config == build({})


def test_an_unknown_model_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"no model 'c' in .*none yet; make one with"):
        model_folder.find_model("c", tmp_path)
    make(tmp_path, "a")
    make(tmp_path, "b")
    with pytest.raises(PhotochromError, match=r"no model 'c' in .*; there are: a, b$"):
        model_folder.find_model("c", tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": {"features": [3]}}', '{"colour": 1}'])
def test_a_broken_configuration_is_told(folder: ModelFolder, content: str) -> None:
    (folder / model_folder.CONFIG).write_text(content)
    with pytest.raises(PhotochromError, match=r"config\.json cannot be read") as caught:
        _ = folder.config
    assert caught.value.exit_code == 1  # nobody has used a command wrongly


def test_history(folder: ModelFolder) -> None:
    assert folder.history == []
    epoch = {
        "epoch": 1,
        "stage": "v1",
        "train_loss": 0.6,
        "val_loss": 0.5,
        "photos": 8,
        "seconds": 1.5,
        "noise": 0.6,
    }
    epoch |= {"weights": {"noise": 1.0, "perceptual": 0.0, "adversarial": 0.0}}
    files.write_json(folder / model_folder.HISTORY, [epoch])
    assert folder.history == [epoch]
    for content in ('[{"epoch"', "1", "[1]", "{}", "null", "[{}]", json.dumps([epoch | {"val_loss": "low"}])):
        (folder / model_folder.HISTORY).write_text(content)
        with pytest.raises(PhotochromError, match=r"training_history\.json cannot be read"):
            _ = folder.history


def test_remove_takes_the_whole_folder(tmp_path: Path) -> None:
    folder = make(tmp_path, "a")
    with folder.locked(), pytest.raises(PhotochromError, match=f"being trained by process {os.getpid()}"):
        ModelFolder(folder.path).remove()
    folder.remove()
    assert not folder.path.exists()


# --- Checkpoints --------------------------------------------------------------------------------------------


def checkpoint_bytes(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


class Payload:
    """Pickled, it would do something with a file when it is read."""

    def __init__(self, *does: Any) -> None:
        self.does = does

    def __reduce__(self) -> tuple[Any, ...]:
        return self.does


class Late(Payload):
    """Does it not when it is made, but when its state is set."""

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (print,), (self.does[0], self.does[1], {}, {}), None, None


def payloads(victim: Path) -> dict[str, Any]:
    """Each would make the file `victim`."""
    touch, python = f"touch {victim}", f"__import__('pathlib').Path({str(victim)!r}).touch()"
    return {
        "touch": Payload(Path.touch, (victim,)),
        "shell": Payload(os.system, (touch,)),
        "process": Payload(subprocess.call, (["touch", str(victim)],)),
        "eval": Payload(eval, (python,)),
        "exec": Payload(exec, (python,)),
        "open": Payload(open, (str(victim), "w")),
        "nested": Payload(map, (Payload(Path.touch, (victim,)), [1])),
        "pickle in a pickle": Payload(pickle.loads, (pickle.dumps(Payload(Path.touch, (victim,))),)),
        "torch.load": Payload(functools.partial(torch.load, weights_only=False), (str(victim),)),
        "state": Late(Path.touch, (victim,)),
    }


FORMS: dict[str, Callable[[Any], bytes]] = {
    "torch zip": lambda value: checkpoint_bytes({"model_state_dict": {}, "config": value}),
    "torch zip, alone": checkpoint_bytes,
    "torch legacy": lambda value: checkpoint_bytes(
        {"model_state_dict": {}, "config": value}, _use_new_zipfile_serialization=False
    ),
    **{f"pickle {n}": functools.partial(pickle.dumps, protocol=n) for n in (0, 1, 2, 3, 4, 5)},
    "tar": lambda value: tarred(pickle.dumps(value, protocol=2)),
    "deflated zip": lambda value: deflated(pickle.dumps(value, protocol=2)),
}


def tarred(content: bytes) -> bytes:
    """As torch wrote checkpoints in its first versions."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def deflated(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3")
    return stream.getvalue()


def test_payloads_do_work_where_someone_is_careless(tmp_path: Path) -> None:
    """Without this, the tests below would pass for payloads that do nothing. Hence weights_only=False."""
    victim = tmp_path / "victim"
    for name in ("touch", "shell", "process", "eval", "exec", "pickle in a pickle"):
        pickle.loads(pickle.dumps(payloads(victim)[name]))
        victim.unlink()
    torch.load(io.BytesIO(FORMS["torch zip"](payloads(victim)["touch"])), weights_only=False)
    victim.unlink()


@pytest.mark.fault(
    "pickle with a payload (ten kinds in eleven formats)", "refused in one line, and did not run"
)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", payloads(Path()))
def test_a_payload_never_runs(kind: str, form: str, tmp_path: Path) -> None:
    victim, evil = tmp_path / "victim", tmp_path / "evil.pth"
    evil.write_bytes(FORMS[form](payloads(victim)[kind]))
    with pytest.raises(PhotochromError, match=r"evil\.pth is damaged, or not a checkpoint") as caught:
        model_folder.read_checkpoint(evil)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch itself would recommend to trust the file
    assert not victim.exists()


def test_broken_bytes_are_told_whatever_they_are(tmp_path: Path) -> None:
    whole = checkpoint_bytes({"model_state_dict": {"a": torch.zeros(10)}, "config": {}})
    random_ = random.Random(0)
    cases = [b"", b"\x80", b"text\n", b"\x89PNG\r\n\x1a\n" + bytes(99), pickle.dumps([1], protocol=2)]
    cases += [whole[: random_.randrange(len(whole))] for _ in range(100)]
    # "\x80\x02" opens a pickle, so that the reader gets past the first byte
    cases += [b"\x80\x02" + random_.randbytes(random_.randrange(1, 60)) for _ in range(500)]
    for content in cases:
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(PhotochromError, match=r"broken\.pth is "):
            model_folder.read_checkpoint(tmp_path / "broken.pth")


@pytest.mark.parametrize(
    "content", [[1], {"state_dict": {}}, {"model_state_dict": {}}, torch.zeros(2)], ids=str
)
def test_another_programs_file_is_told(tmp_path: Path, content: Any) -> None:
    (tmp_path / "other.pth").write_bytes(checkpoint_bytes(content))
    with pytest.raises(PhotochromError, match=r"other\.pth is not a Photochrom checkpoint: it lacks"):
        model_folder.read_checkpoint(tmp_path / "other.pth")


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"no checkpoint .*last_model\.pth"):
        model_folder.read_checkpoint(tmp_path / model_folder.LAST)
    with pytest.raises(PhotochromError, match="cannot be read: Is a directory"):
        model_folder.read_checkpoint(tmp_path)


def test_weights_of_another_network_are_named_by_key_and_shape() -> None:
    module, origin = nn.Linear(3, 2), Path("best_model.pth")
    good = {key: value.clone() for key, value in nn.Linear(3, 2).state_dict().items()}
    model_folder.load_tensors(module, good, origin)
    assert torch.equal(module.weight, good["weight"])
    with pytest.raises(PhotochromError, match=r"'weight' has shape \(2, 4\), this network expects \(2, 3\)"):
        model_folder.load_tensors(module, {**good, "weight": torch.zeros(2, 4)}, origin)
    with pytest.raises(PhotochromError, match=r"best_model\.pth has no 'bias'"):
        model_folder.load_tensors(module, {"weight": good["weight"]}, origin)
    with pytest.raises(PhotochromError, match=r"best_model\.pth has an unknown key 'extra'"):
        model_folder.load_tensors(module, {**good, "extra": torch.zeros(1)}, origin)
    assert torch.equal(module.weight, good["weight"])  # a refusal changes nothing


# --- Weights to share ---------------------------------------------------------------------------------------


def test_weights_travel_with_their_configuration(folder: ModelFolder, values: dict[str, Any]) -> None:
    config = build(values)
    network = UNet(config.model)
    folder.save_weights(network.state_dict(), config)
    again, tensors = model_folder.read_weights(folder / model_folder.WEIGHTS)
    assert again == config
    other = UNet(again.model)
    model_folder.load_tensors(other, tensors, folder / model_folder.WEIGHTS)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[key], atol=1e-4, rtol=1e-3)  # float16 on disk
        assert value.dtype == torch.float32


def test_weights_without_configuration_are_told(tmp_path: Path) -> None:
    path = tmp_path / model_folder.WEIGHTS
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(PhotochromError, match="was not written by Photochrom: it has no configuration"):
        model_folder.read_weights(path)


@pytest.mark.parametrize("config", ["", "{", "[]", '{"model": {"features": [3]}}'])
def test_weights_with_a_broken_configuration_are_told(tmp_path: Path, config: str) -> None:
    path = tmp_path / model_folder.WEIGHTS
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {"config": config}))
    with pytest.raises(PhotochromError):
        model_folder.read_weights(path)


def test_missing_and_torn_weights_are_told(folder: ModelFolder, values: dict[str, Any]) -> None:
    with pytest.raises(PhotochromError, match=r"no weights .*model\.safetensors: train the model first"):
        model_folder.read_weights(folder / model_folder.WEIGHTS)
    config = build(values)
    folder.save_weights(UNet(config.model).state_dict(), config)
    whole = (folder / model_folder.WEIGHTS).read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (folder / model_folder.WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(PhotochromError, match=r"model\.safetensors cannot be read"):
            model_folder.read_weights(folder / model_folder.WEIGHTS)


def test_a_model_of_an_earlier_version_still_colours(tmp_path: Path) -> None:
    """Settings and names of weights as commit 1417f2f shipped photochrom-fast; the numbers are random."""
    earlier = json.loads((Path(__file__).parent / "earlier_model.json").read_text())
    torch.manual_seed(0)
    weights = {name: 0.05 * torch.randn(shape).half() for name, shape in earlier["shapes"].items()}
    files.write_json(tmp_path / model_folder.CONFIG, earlier["config"])
    metadata = {"format": "photochrom-1", "config": json.dumps(earlier["config"])}
    safetensors.torch.save_file(weights, tmp_path / model_folder.WEIGHTS, metadata)
    config = ModelFolder(tmp_path).config
    assert (config.model.encoder, config.model.chroma_scale, config.steps) == ("vgg16x2", 2, 4)
    assert (config.guidance, config.ancestors, config.training.anneal) == (1.0, (), True)
    gray = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    picture = Colorizer.load(tmp_path)(Image.fromarray(gray))
    assert np.abs(np.asarray(picture.convert("L")).astype(int) - gray).max() <= 1
    assert np.ptp(np.asarray(picture), axis=2).max() > 5
