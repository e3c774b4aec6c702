"""Photochrom: train diffusion models that colour grayscale photographs, and use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photochrom.coloring.colorizer import Colorizer

__version__ = "0.1.0"
__all__ = ["Colorizer", "__version__"]


def __getattr__(name: str) -> Any:
    # Colorizer brings torch along, which takes seconds; `photochrom --help` must not wait for it.
    if name == "Colorizer":
        from photochrom.coloring.colorizer import Colorizer

        return Colorizer
    raise AttributeError(f"module 'photochrom' has no attribute {name!r}")
