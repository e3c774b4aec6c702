"""From flags to a configuration: what a model that is gone on from brings, and what it does not."""

from __future__ import annotations

import pytest

from photochrom.config import build
from photochrom.flags import resolve, train_command


@pytest.mark.parametrize("weights", ["torchvision", "/somewhere/else.safetensors"])
def test_a_file_on_another_machine_is_not_taken_over(weights: str) -> None:
    """The source may be a stranger's: nothing is downloaded or opened because it says so."""
    source = build({"training": {"vgg_weights": weights, "seed": 7}})
    config = resolve(None, None, {}, source)
    assert config.training.vgg_weights is None
    assert config.training.seed == 7
    typed = resolve(None, None, {"training__vgg_weights": weights}, source)
    assert f"--vgg-weights {weights}" in train_command(typed, "mine", source)
