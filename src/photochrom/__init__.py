"""Photochrom: colour grayscale photographs with diffusion models, and train such models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photochrom.coloring.colorizer import Colorizer
    from photochrom.coloring.options import Hint, Options
    from photochrom.evaluation.evaluate import evaluate
    from photochrom.training.loop import train

__version__ = "0.1.0"
__all__ = ["Colorizer", "Hint", "Options", "__version__", "evaluate", "train"]
_HOMES = {
    "Colorizer": "coloring.colorizer",
    "Hint": "coloring.options",
    "Options": "coloring.options",
    "evaluate": "evaluation.evaluate",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    # Most of these import torch, which takes seconds. `photochrom --help` must not wait for it.
    if name in _HOMES:
        return getattr(import_module(f"photochrom.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'photochrom' has no attribute {name!r}")
