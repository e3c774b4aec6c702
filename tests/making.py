"""What tests of several rooms make: photos, records and models that have learnt nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from photochrom import files, model_folder
from photochrom.config import build
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder

SMALL = {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1}
"""The configuration of a tiny network."""


def smooth(seed: int) -> Image.Image:
    """A random photo of 16 pixels whose colours run softly into each other."""
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((16, 16), Image.Resampling.BICUBIC)


def sepia(seed: int) -> Image.Image:
    """A random photo in which everything has one tint, (Cb, Cr) about (-0.066, 0.096)."""
    gray = np.asarray(smooth(seed).convert("L")).astype(int) // 2 + 64
    return Image.fromarray(np.stack([gray + 33, gray - 13, gray - 31], axis=-1).astype(np.uint8))


def epoch(number: int, val_loss: float, **more: Any) -> dict[str, Any]:
    """A record of a training's history."""
    weights = {"noise": 1.0, "perceptual": 0.1, "adversarial": 0.0}
    record = {
        "epoch": number,
        "stage": "v1",
        "train_loss": val_loss,
        "val_loss": val_loss,
        "weights": weights,
    }
    return record | {"photos": 64, "seconds": 2.0} | more


def make_model(folder: ModelFolder, values: dict[str, Any], seed: int = 0) -> ModelFolder:
    """An untrained model whose colours depend on all of its inputs. `values` are for `build`."""
    config = build({**values, "data": {"size": 16} | values.get("data", {})})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(config.model)
        with torch.no_grad():
            for weight in network.parameters():
                # The last layer begins with zeros: all photos would be gray.
                weight.add_(0.05 * torch.randn_like(weight))
    folder.path.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    folder.save_weights(network.state_dict(), config)
    return folder
