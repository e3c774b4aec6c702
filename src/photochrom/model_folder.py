"""The model folder `models/NAME/`: names, the trainer's lock, atomic writes, checkpoints, history, weights to share."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from photochrom.config import Config, LearntFrom, build
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import PART, read_json, write_atomically, write_bytes
from photochrom.training_history import HISTORY_FILE, EpochRecord, best_epoch

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CONFIG, BEST, LAST = "config.json", "best_model.pth", "last_model.pth"
HISTORY, WEIGHTS, CURVE, CARD = "training_history.json", "model.safetensors", "loss_curve.png", "README.md"
ONNX, EVALUATION = "model.onnx", "evaluation.json"
ENGINES = {"torch": WEIGHTS, "onnx": ONNX}  # what runs a network, and the file that it reads
LOCK = ".lock"  # in a model folder
LOCK_SECONDS = 0.5  # longer than `being_trained` holds a lock to find out
SHIPPED = Path(__file__).parent / "weights"  # folders of the models that come along


def check_tensors(module: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Raise PhotochromError, naming the key, if one is missing, unknown or of another shape than the module's."""
    expected = module.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors:
            raise PhotochromError(
                f"{origin} has no {key!r}: it belongs to another network than its configuration says"
            )
        if key not in expected:
            raise PhotochromError(f"{origin} has an unknown key {key!r}: it belongs to another network")
        if expected[key].shape != tensors[key].shape:
            found, wanted = tuple(tensors[key].shape), tuple(expected[key].shape)
            raise PhotochromError(f"{origin}: {key!r} has shape {found}, this network expects {wanted}")


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Load weights into a module, all of them or none; see `check_tensors`."""
    check_tensors(module, tensors, origin)
    module.load_state_dict(tensors)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint: plain tensors, numbers, strings, lists and dicts. Nothing in it is ever executed.

    Raises PhotochromError for a file that is missing, torn, changed in a single bit, or of another kind.
    """
    try:
        _check_whole(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PhotochromError(f"no checkpoint {path}") from None
    except OSError as error:
        raise PhotochromError(f"{path} cannot be read: {error.strerror or error}") from None
    except (
        Exception
    ) as error:  # on broken bytes torch and pickle raise a dozen types, from IndexError to struct.error
        raise PhotochromError(
            f"{path} is torn, or not a checkpoint of plain tensors and numbers; take a whole one, or begin anew"
        ) from error
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint or "config" not in checkpoint:
        raise PhotochromError(
            f"{path} is not a Photochrom checkpoint: it lacks 'model_state_dict' and 'config'"
        )
    return checkpoint


def _check_whole(path: Path) -> None:
    """Raise BadZipFile unless this is an uncompressed zip whose checksums are right, as torch.save writes it.

    torch.load compares no checksum and takes older formats too, which begin with a pickle.
    """
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise zipfile.BadZipFile("compressed")  # it could unpack to any size
        if entry := archive.testzip():
            raise zipfile.BadZipFile(f"{entry} does not fit its checksum")


def read_weights(path: Path) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and averaged weights from a `model.safetensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise PhotochromError(f"no weights {path}; train the model first") from None
    except (OSError, SafetensorError) as error:
        raise PhotochromError(f"{path} cannot be read: {error}") from None
    return carried_config(metadata, path), tensors


def carried_config(metadata: Mapping[str, str], path: Path) -> Config:
    """The configuration that a file with weights carries, as `metadata_for` has put it there."""
    if "config" not in metadata:
        raise PhotochromError(f"{path} was not written by Photochrom: it carries no configuration")
    try:
        return build(json.loads(metadata["config"]))
    except (ValueError, RecursionError, UsageError) as error:
        raise PhotochromError(f"{path} carries a configuration that cannot be read: {error}") from None


def metadata_for(config: Config) -> dict[str, str]:
    """What a file with weights carries, so that it alone is enough to colour with."""
    return {"format": "photochrom-1", "config": config.model_dump_json()}


class ModelFolder:
    """`models/NAME/` and the files in it. Making this object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def __truediv__(self, file: str) -> Path:
        return self.path / file

    @property
    def exists(self) -> bool:
        """Whether a training has begun here."""
        return (self / CONFIG).is_file()

    @property
    def shipped(self) -> bool:
        """Whether it came along with the package: a model to read, not to write."""
        return self.path.parent == SHIPPED

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        try:
            return build(json.loads((self / CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, UsageError) as error:  # the last: of another version
            raise PhotochromError(f"{self / CONFIG} cannot be read: {error}") from None

    @property
    def history(self) -> list[EpochRecord]:
        """One record per finished epoch; none before the first."""
        try:
            return read_json(self / HISTORY, HISTORY_FILE)
        except FileNotFoundError:
            return []

    @property
    def progress(self) -> dict[str, Any]:
        """How far its training has come: stage, epoch of how many epochs, and the best epoch with its validation loss."""
        config, history = self.config, self.history
        best = best_epoch(history) if history else None
        return {
            "stage": history[-1]["stage"] if history else config.stages[0].label,
            "epoch": history[-1]["epoch"] if history else config.first_epoch,
            "epochs": config.last_epoch,
            "best_epoch": best["epoch"] if best else None,
            "best_val_loss": best["val_loss"] if best else None,
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it against a second trainer; the lock of a process that died is free."""
        lock = FileLock(self / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=LOCK_SECONDS)
            (self / ".trainer").write_text(f"{os.getpid()}\n")
        except Timeout:
            owner = (self / ".trainer").read_text().strip() if (self / ".trainer").exists() else "unknown"
            raise PhotochromError(
                f"{self.path} is being trained by process {owner}; wait or stop it"
            ) from None
        except OSError as error:
            lock.release()
            raise PhotochromError(f"cannot write to {self.path}: {error.strerror or error}") from error
        try:
            for leftover in self.path.rglob(f".*{PART}"):  # of a trainer that was killed while writing
                leftover.unlink()
            yield
        finally:
            (self / ".trainer").unlink(missing_ok=True)
            lock.release()

    @property
    def being_trained(self) -> bool:
        """Whether somebody holds its lock right now."""
        if not (self / LOCK).is_file():
            return False
        try:
            with FileLock(self / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that is only read here
            return False

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self / LAST).exists() or (self / BEST).exists()

    def newest_checkpoint(self) -> tuple[dict[str, Any], Path, list[str]]:
        """The newest complete checkpoint, its file, and a sentence for each file that was skipped because it is torn.

        `best_model.pth` is as complete as `last_model.pth`, and only some epochs older: going on from it leads to the
        same end. Raises PhotochromError when there is no checkpoint, or no complete one.
        """
        skipped: list[str] = []
        for path in (self / LAST, self / BEST):
            try:
                return read_checkpoint(path), path, skipped
            except PhotochromError as error:
                if path.exists():
                    skipped.append(str(error))
        raise PhotochromError(skipped[0] if skipped else f"no checkpoint {self / LAST}")

    def weights_alone(self) -> tuple[dict[str, Any], Path, list[str]]:
        """What there is to go on from where a model was passed on without its checkpoints, as `newest_checkpoint` has it.

        The averaged weights stand for the network's own. Optimiser and losses begin anew.
        """
        config, tensors = read_weights(self / WEIGHTS)
        steps = sum(record["photos"] for record in self.history) // config.training.batch_size
        epoch = self.history[-1]["epoch"] if self.history else 0
        weights = {"model_state_dict": tensors, "ema_state_dict": tensors}
        counts = {"ema_updates": steps, "epoch": epoch, "step": steps, "history": self.history}
        return weights | counts, self / WEIGHTS, []

    def save_checkpoint(self, file: str, checkpoint: dict[str, Any]) -> None:
        """Write `best_model.pth` or `last_model.pth`, atomically."""
        write_atomically(self / file, lambda target: torch.save(checkpoint, target))

    def save_weights(self, tensors: dict[str, Tensor], config: Config) -> None:
        """Write the averaged weights to share: float16 safetensors that carry their configuration."""
        half = {key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}
        write_bytes(self / WEIGHTS, safetensors.torch.save(half, metadata_for(config)))

    def remove(self) -> None:
        """Delete the folder and all that is in it; raises PhotochromError while it is being trained."""
        with self.locked():
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:  # it is open, and Windows deletes no open file
                    path.unlink()
        (self / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # another training has begun here meanwhile
            self.path.rmdir()


def model_folder(name: str, models: Path) -> ModelFolder:
    """The folder for a model to train; raises UsageError for a name that is not a plain file name, or is taken."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"model name {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    if (SHIPPED / name / CONFIG).is_file():
        raise UsageError(
            f"{name} is the name of a model that comes along: take another --name, and --from {name}"
        )
    return ModelFolder(models / name)


def list_models(models: Path) -> list[ModelFolder]:
    """Every model folder, by name: those that come along, then those in `models`."""
    return [
        ModelFolder(path.parent)
        for folder in (SHIPPED, models)
        for path in sorted(folder.glob(f"*/{CONFIG}"))
    ]


def find_model(name_or_path: str | Path, models: Path) -> ModelFolder:
    """A model by its name, under `models` or of those that come along, or by the path of its folder.

    Raises PhotochromError for an unknown one, listing those there are.
    """
    for path in (models / name_or_path, SHIPPED / name_or_path, Path(name_or_path)):
        if (path / CONFIG).is_file():
            return ModelFolder(path)
    known = (
        ", ".join(folder.name for folder in list_models(models))
        or "none yet; make one with `photochrom train`"
    )
    raise PhotochromError(f"no model {str(name_or_path)!r} in {models}/; there are: {known}")


def find_source(config: Config, models: Path) -> ModelFolder:
    """The model that this one went on from. Its name stands in a file, so no path is taken for one.

    Raises PhotochromError if there is none of this name.
    """
    if not NAME.fullmatch(config.source or ""):
        raise PhotochromError(f"{config.source!r} is no name of a model")
    return find_model(str(config.source), models)


def learnt_from(config: Config, models: Path) -> tuple[LearntFrom, ...]:
    """The data sets that a model has learnt from, its own first, then those of the models before it."""
    found: list[LearntFrom] = []

    def note(config: Config) -> None:
        found.extend([LearntFrom(name=config.data.title, checksum=config.data.checksum), *config.ancestors])

    note(config)
    named: set[str] = set()
    # Earlier versions did not write ancestors down: then the folders before it tell, if they are still there.
    while config.source and not config.ancestors and config.source not in named:
        named.add(config.source)
        try:
            config = find_source(config, models).config
        except PhotochromError:
            found.append(LearntFrom(name=f"the data set of {config.source}"))
            break
        note(config)
    return tuple({each.checksum or each.name: each for each in reversed(found)}.values())[::-1]


def find_weights(model: str | Path, models: Path, engine: str | None = None) -> Path:
    """The file to colour with: `model` itself, if it is one, or that of a model by its name or folder (see `find_model`).

    engine: a key of `ENGINES`; None means torch, or what the file is for. Raises UsageError for another engine and for a
    file that is another's.
    """
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; there are {', '.join(ENGINES)}")
    for able, file in ENGINES.items():
        if Path(model).suffix == Path(file).suffix:
            if engine not in (None, able):
                raise UsageError(f"{model} is for the engine {able}, not for {engine}: leave the engine out")
            return Path(model)
    return find_model(model, models) / ENGINES[engine or "torch"]
