"""Models on the Hugging Face Hub, `hf:owner/repo`; needs the extra `hub`.

Photochrom fetches only addresses that the user types, never one from a model's configuration or card.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import CARD, CONFIG, CURVE, EVALUATION, HISTORY, WEIGHTS, ModelFolder

PREFIX = "hf:"
ADDRESS = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
READ = (CONFIG, WEIGHTS, HISTORY, EVALUATION)  # safetensors and JSON, which cannot run code
PUSHED = (*READ, CURVE)


def is_address(model: str | Path) -> bool:
    """Whether a model's name is an address on the Hub."""
    return str(model).startswith(PREFIX)


def fetched(model: str | Path) -> str | Path:
    """Fetch a model from `hf:owner/repo` or `hf:owner/repo@revision` into a folder, and return that folder.

    A name or path comes back unchanged. A model that was fetched before comes from the cache, also without a
    network. Raises UsageError for another form of address, and PhotochromError if the model cannot be
    fetched.
    """
    if not is_address(model):
        return model
    repo, revision = _parsed(str(model))
    with _told(str(model)):
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HOME

        # The folder has the model's own name, since reports and cards use it.
        folder = Path(HF_HOME, "photochrom", f"{repo}@{revision}" if revision else repo)
        snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=list(READ))
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise PhotochromError(f"{model} holds no Photochrom model: it needs {CONFIG} and {WEIGHTS}")
    return folder


def push(folder: ModelFolder, repo: str, card: str, private: bool = False) -> str:
    """Upload a model's files and its card. Returns the address of the model.

    card: Markdown. Raises UsageError for a wrong address, and PhotochromError if the model has no weights yet
    or the Hub refuses.
    """
    address = f"{PREFIX}{repo.removeprefix(PREFIX)}"
    repo, _ = _parsed(address)
    if not (folder / WEIGHTS).is_file():
        raise PhotochromError(
            f"model {folder.name!r} has no weights until its first epoch ends: train it longer"
        )
    with _told(address):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        added = [CommitOperationAdd(name, folder / name) for name in PUSHED if (folder / name).is_file()]
        added.append(CommitOperationAdd(CARD, card.encode()))
        api.create_commit(repo, added, commit_message=f"{folder.name}, by photochrom models push")
    return address


def _parsed(address: str) -> tuple[str, str | None]:
    found = ADDRESS.fullmatch(address)
    if not found or ".." in address:
        raise UsageError(f"{address!r}: write hf:owner/repo, or hf:owner/repo@revision")
    return found["repo"], found["revision"]


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn errors of the Hub and the network into one line."""
    try:
        from httpx import HTTPError  # the Hub's client talks through it
    except ModuleNotFoundError:
        raise PhotochromError(f"{address} needs the extra hub: pip install 'photochrom[hub]'") from None
    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        reason = " ".join(str(error).split())
        raise PhotochromError(f"no access to {address}: {reason[:300]}") from None
