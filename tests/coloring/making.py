"""Options of colouring, their limits, and photos to colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photochrom.coloring.options import Options
from tests.running import call


def bounds(schema: dict[str, Any]) -> tuple[Any, Any]:
    """Lowest and highest value in a JSON schema; a number that may be left out stands beside null."""
    for each in (schema, *schema.get("anyOf", ())):
        if "maximum" in each or "minimum" in each:
            return each.get("minimum"), each.get("maximum")
    return None, None


OPTIONS: dict[str, Any] = Options.model_json_schema()["properties"]
NUMBERS = {name: bounds(schema) for name, schema in OPTIONS.items() if bounds(schema) != (None, None)}


def photo(path: str, size: tuple[int, int] = (24, 16), seed: int = 0) -> Path:
    """A gray photo of noise, in a file."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)).save(file)
    return file


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colorize(models: Path, *arguments: object) -> int:
    return call("colorize", *arguments, "--models", models, "--model", "tiny", "--steps", 2)
