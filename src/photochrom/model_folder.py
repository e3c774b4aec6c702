"""The model folder `models/NAME/`: names, lock, checkpoints, history, weights to share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from photochrom.config import Config, LearntFrom, build
from photochrom.errors import PhotochromError, UsageError
from photochrom.files import PART, read_json, write_atomically, write_bytes
from photochrom.training_history import HISTORY_FILE, EpochRecord, best_epoch

Module = TypeVar("Module", bound=nn.Module)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CONFIG, BEST, LAST = "config.json", "best_model.pth", "last_model.pth"
HISTORY, WEIGHTS, CURVE, CARD = "training_history.json", "model.safetensors", "loss_curve.png", "README.md"
ONNX, EVALUATION = "model.onnx", "evaluation.json"
ENGINES = {"torch": WEIGHTS, "onnx": ONNX}  # the programs that run a network, and the file that each reads
LOCK = ".lock"  # in a model folder
LOCK_SECONDS = 0.5  # longer than `being_trained` holds the lock
SHIPPED = Path(__file__).parent / "weights"  # the folders of the package's own models


def check_tensors(module: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Raise PhotochromError, naming the key, if a tensor is missing, unknown or has the wrong shape."""
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
    """Load weights into a module, all or none; see `check_tensors`."""
    check_tensors(module, tensors, origin)
    module.load_state_dict(tensors)


def with_weights(make: Callable[[], Module], tensors: dict[str, Tensor], origin: Path) -> Module:
    """Make a module that holds these weights, not a copy of them; see `check_tensors`.

    It takes no memory before they are checked, since a stranger's file may describe a huge network, and
    draws no random weights, which would take longer than reading these.
    """
    with torch.device("meta"):
        module = make()
    check_tensors(module, tensors, origin)
    module.load_state_dict(tensors, assign=True)
    return module


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: plain tensors, numbers, strings, lists and dicts. It runs nothing in the file.

    Raises PhotochromError for a file that is missing, damaged (even in a single bit), or of another kind.
    """
    try:
        _check_whole(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PhotochromError(f"no checkpoint {path}") from None
    except OSError as error:
        raise PhotochromError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch and pickle raise a dozen types for broken files
        raise PhotochromError(
            f"{path} is damaged, or not a checkpoint of plain tensors and numbers: get a copy, or start again"
        ) from error
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint or "config" not in checkpoint:
        raise PhotochromError(
            f"{path} is not a Photochrom checkpoint: it lacks 'model_state_dict' or 'config'"
        )
    return checkpoint


def _check_whole(path: Path) -> None:
    """Raise BadZipFile unless this is an uncompressed zip with correct checksums, as torch.save writes it.

    torch.load checks no checksum, and also accepts older formats, which begin with a pickle.
    """
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise zipfile.BadZipFile("compressed")  # it could unpack to any size
        if entry := archive.testzip():
            raise zipfile.BadZipFile(f"{entry} does not fit its checksum")


def read_weights(path: Path) -> tuple[Config, dict[str, Tensor]]:
    """Read configuration and averaged weights from a `model.safetensors`.

    Raises PhotochromError if it is missing, damaged, or not from Photochrom.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise PhotochromError(f"no weights {path}: train the model first") from None
    except (OSError, SafetensorError) as error:
        raise PhotochromError(f"{path} cannot be read: {error}") from None
    return carried_config(metadata, path), tensors


def read_pretrained(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """Read a pretrained network's weights as float32. sha256: the file's, if it belongs to the package.

    Raises PhotochromError if it is missing or damaged.
    """
    try:
        content = path.read_bytes()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise PhotochromError(
                f"{path} is damaged: its checksum is not {sha256[:12]}...; install Photochrom again"
            )
        return {key: value.float() for key, value in safetensors.torch.load(content).items()}
    except (OSError, SafetensorError) as error:
        raise PhotochromError(f"weights {path} cannot be read: {error}") from None


def carried_config(metadata: Mapping[str, str], path: Path) -> Config:
    """The configuration in the metadata of a file with weights; see `metadata_for`."""
    if "config" not in metadata:
        raise PhotochromError(f"{path} was not written by Photochrom: it has no configuration")
    try:
        return build(json.loads(metadata["config"]))
    except (ValueError, RecursionError, UsageError) as error:
        raise PhotochromError(f"the configuration in {path} cannot be read: {error}") from None


def metadata_for(config: Config) -> dict[str, str]:
    """The metadata of a file with weights, so that this file alone is enough for colouring."""
    return {"format": "photochrom-1", "config": config.model_dump_json()}


class ModelFolder:
    """`models/NAME/` and the files in it. Creating this object does not touch the disk."""

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
        """Whether it is a model of the package, which must not be written to."""
        return self.path.parent == SHIPPED

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        try:
            return build(json.loads((self / CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, UsageError) as error:  # the last: from another version
            raise PhotochromError(f"{self / CONFIG} cannot be read: {error}") from None

    @property
    def history(self) -> list[EpochRecord]:
        """One record per finished epoch."""
        try:
            return read_json(self / HISTORY, HISTORY_FILE)
        except FileNotFoundError:
            return []

    @property
    def progress(self) -> dict[str, Any]:
        """The progress of training: stage, epoch, number of epochs, best epoch and its validation loss."""
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
        """Make the folder and lock it against a second trainer. The lock of a dead process is free.

        Raises PhotochromError if another process trains it, or if the folder is not writable.
        """
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
            for leftover in self.path.rglob(f".*{PART}"):  # from a trainer that was killed while writing
                leftover.unlink()
            yield
        finally:
            (self / ".trainer").unlink(missing_ok=True)
            lock.release()

    @property
    def being_trained(self) -> bool:
        """Whether a process holds its lock now."""
        if not (self / LOCK).is_file():
            return False
        try:
            with FileLock(self / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # the folder is read-only
            return False

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return (self / LAST).exists() or (self / BEST).exists()

    def newest_checkpoint(self) -> tuple[dict[str, Any], Path, list[str]]:
        """The newest complete checkpoint, its file, and a sentence for each damaged file that was skipped.

        `best_model.pth` is as complete as `last_model.pth`, only some epochs older, so training that
        continues from it ends with the same result. Raises PhotochromError if there is no complete
        checkpoint.
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
        """A substitute for `newest_checkpoint` for a model that was shared without checkpoints.

        The averaged weights replace the network's own. The states of optimiser and losses are missing.
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
        """Write the averaged weights to share, as float16 safetensors with the configuration."""
        half = {key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}
        write_bytes(self / WEIGHTS, safetensors.torch.save(half, metadata_for(config)))

    def remove(self) -> None:
        """Delete the folder with everything in it. Raises PhotochromError while it is being trained."""
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
    """The folder for a model to train. Raises UsageError if its name is no plain file name, or is taken."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"model name {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    if (SHIPPED / name / CONFIG).is_file():
        raise UsageError(
            f"{name} is the name of a model of the package: choose another --name, and add --from {name}"
        )
    return ModelFolder(models / name)


def list_models(models: Path) -> list[ModelFolder]:
    """Every model folder, by name: first those of the package, then those in `models`."""
    return [
        ModelFolder(path.parent)
        for folder in (SHIPPED, models)
        for path in sorted(folder.glob(f"*/{CONFIG}"))
    ]


def find_model(name_or_path: str | Path, models: Path) -> ModelFolder:
    """Find a model by its name, in `models` or in the package, or by the path of its folder.

    Raises PhotochromError for an unknown model, with a list of the known ones.
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
    """Find the model that this one continues from. The name comes from a file, so a path is not accepted.

    Raises PhotochromError if there is no such model.
    """
    if not NAME.fullmatch(config.source or ""):
        raise PhotochromError(f"{config.source!r} cannot be the name of a model")
    return find_model(str(config.source), models)


def learnt_from(config: Config, models: Path) -> tuple[LearntFrom, ...]:
    """The data sets that a model was trained on: its own first, then those of its ancestors."""
    found: list[LearntFrom] = []

    def note(config: Config) -> None:
        found.extend([LearntFrom(name=config.data.title, checksum=config.data.checksum), *config.ancestors])

    note(config)
    named: set[str] = set()
    # Earlier versions did not record ancestors. Then their folders give them, if they still exist.
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
    """The file of weights for colouring: `model` itself, or the file of the model with this name or folder.

    engine: a key of `ENGINES` (default: the engine of the file, or torch). Raises UsageError for an unknown
    engine, and if the file belongs to another engine. See also `find_model`.
    """
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    for able, file in ENGINES.items():
        if Path(model).suffix == Path(file).suffix:
            if engine not in (None, able):
                raise UsageError(f"{model} is for the engine {able}, not for {engine}: leave the engine out")
            return Path(model)
    return find_model(model, models) / ENGINES[engine or "torch"]
