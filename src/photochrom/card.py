"""The model card: what a model is, how it was made and what it is worth, for the person who gets the folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from photochrom.config import Config
from photochrom.store import best_record


def model_card(name: str, config: Config, history: Sequence[dict[str, Any]]) -> str:
    """The folder's README.md, as Markdown."""
    best = best_record(history)
    hours = sum(record["seconds"] for record in history) / 3600
    photos = sum(record["photos"] for record in history)
    stages = "\n".join(
        f"| {stage.label} | {stage.epochs} | {stage.noise:g} | {stage.perceptual:g} "
        f"| {stage.adversarial if stage.use_gan else 0:g} |"
        for stage in config.stages
    )
    features = ", ".join(map(str, config.model.features))
    return f"""# {name}

A diffusion model that colours grayscale photographs, trained with Photochrom.

    photochrom colorize old.jpg -o coloured/ --model {name}

![loss by epoch](loss_curve.png)

| | |
|---|---|
| network | U-Net, features {features}; chroma at 1/{config.model.chroma_scale} of luma's size |
| diffusion | {config.diffusion.timesteps} steps, {config.diffusion.schedule} schedule, {config.diffusion.prediction}-prediction |
| data set | {config.data.name}, photos of {config.data.size} pixels, checksum {config.data.checksum} |
| trained | {len(history)} epochs, {photos:,} photos, {hours:.2f} hours |
| validation loss | {best["val_loss"]:.4f} (epoch {best["epoch"]}, which `model.safetensors` holds) |
| seed | {config.training.seed} |

| stage | epochs | noise | perceptual | adversarial |
|---|---|---|---|---|
{stages}

## Use and limits

Colours are plausible guesses, not the truth: do not take them for evidence of what something looked like. The model
knows what its training photos showed and little else. The licence of those photos may limit how it may be used.
"""
