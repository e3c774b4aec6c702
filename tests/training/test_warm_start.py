"""A model goes on as another network: it keeps what fits, and its first outputs are the old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import Config, ModelConfig, build
from photochrom.data.pack import Pack
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.errors import UsageError
from photochrom.model_folder import ModelFolder
from photochrom.training import warm_start
from photochrom.training.loop import Progress, train
from photochrom.training.optimizer import SHARES
from photochrom.training.state import Training
from photochrom.training.step import train_step

Values = dict[str, Any]
OLD = ModelConfig(features=(8, 16, 16), time_embedding=16, encoder="lite0x2", chroma_scale=2)


def trained(config: ModelConfig) -> UNet:
    """A network all of whose weights are other than 0."""
    network = UNet(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, weight in network.named_parameters():
        if not name.startswith("encoder."):
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return network


def larger(old: UNet, new: ModelConfig) -> tuple[UNet, UNet]:
    network = UNet(new).eval().requires_grad_(False)
    network.load_state_dict(warm_start.fitted(old.state_dict(), old.config, network))
    return old, network


def seen(network: UNet, y: Tensor) -> list[Tensor]:
    encoder = Encoder.of(network.config)
    return encoder(y) if encoder else []


@pytest.mark.parametrize(("encoder", "scale"), [("lite0", 2), ("lite0", 4), ("none", 4)])
def test_it_begins_by_saying_what_the_other_says_blind_of_the_smaller_photo(encoder: str, scale: int) -> None:
    old, new = larger(trained(OLD), OLD.model_copy(update={"encoder": encoder, "chroma_scale": scale}))
    y = torch.rand(2, 1, 16 * scale, 16 * scale) * 2 - 1
    small = F.avg_pool2d(y, scale // 2)
    xt, t = torch.randn(2, 2, 16, 16), torch.tensor([3, 40])
    blind = [torch.zeros_like(each) for each in seen(old, small)]
    torch.testing.assert_close(new(xt, t, y, seen(new, y)), old(xt, t, small, blind), rtol=1e-4, atol=1e-4)


def test_with_the_same_encoder_its_projections_stay() -> None:
    before = trained(OLD)
    after = larger(before, before.config.model_copy(update={"train_encoder": True}))[1]
    for key, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[key], value), key
    assert after.encoder
    again = larger(after, after.config)[1]
    for key, value in after.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_coarser_luma_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^m has chroma_scale = 2, which cannot shrink to 1"):
        warm_start.refuse_coarser("m", OLD, OLD.model_copy(update={"chroma_scale": 1}))


def as_config(values: Values, **model: Any) -> Config:
    return build(values | {"model": values["model"] | model})


def test_a_training_tells_what_it_takes_over_and_goes_on_with_it(
    pack: Pack, values: Values, tmp_path: Path
) -> None:
    source, folder = ModelFolder(tmp_path / "old"), ModelFolder(tmp_path / "new")
    train(as_config(values, encoder="none"), source, pack)
    told: list[str] = []

    def listen(progress: Progress) -> None:
        told.extend(progress.notes)

    config = as_config(values, encoder="lite0", chroma_scale=4, train_encoder=True)
    train(config, folder, pack, listen, source=source)
    assert told[0] == (
        "took over all of old, with these changes: its luma is 2 times finer, the encoder lite0 is new, "
        "the encoder is trained too"
    )
    # What it shares is enough to colour with: its own encoder is in it.
    _, tensors = model_folder.read_weights(folder / model_folder.WEIGHTS)
    assert "encoder.network.stem.weight" in tensors
    colorizer = Colorizer.load(folder.path)
    assert colorizer.encoder is not None
    assert colorizer.encoder is colorizer.network.encoder


def test_an_encoder_learns_along_at_a_tenth_of_the_rate_in_parts_as_at_once(
    pack: Pack, values: Values
) -> None:
    """Only the loss gives it a gradient: without a loss, or from photos that hide features, it stays."""
    learnt = []
    for accumulate, dropout in ((1, 0.0), (4, 0.0), (1, 0.99)):
        training = {"accumulate": accumulate, "encoder_dropout": dropout, "weight_decay": 0.0, "clip": 1e9}
        begun = Training(
            as_config(
                values | {"training": values["training"] | training},
                encoder="lite0",
                chroma_scale=4,
                train_encoder=True,
            ),
            pack,
        )
        torch.nn.init.normal_(begun.network.last_layer, generator=torch.Generator().manual_seed(0))
        assert begun.network.encoder
        before = [weight.clone() for weight in begun.network.encoder.parameters()]
        train_step(begun)
        rates = [group["lr"] for group in begun.optimizer.param_groups]
        assert rates[1] == pytest.approx(SHARES[1] * rates[0])
        after = begun.network.encoder.parameters()
        learnt.append([(new - old).detach() for old, new in zip(before, after, strict=True)])
    assert max(float(each.abs().max()) for each in learnt[0]) > 0
    moved = [torch.cat([each.flatten() for each in change]) for change in learnt]
    assert (
        F.cosine_similarity(moved[0], moved[1], dim=0) > 0.95
    )  # signs of Adam's first step, but for the tiniest
    assert not moved[2].any()


def test_vgg16_does_not_learn_along() -> None:
    with pytest.raises(UsageError, match="encoder = vgg16 cannot be trained: take lite0 or lite0x2"):
        build({"model": {"encoder": "vgg16", "train_encoder": True}})


def test_photos_smaller_than_those_of_the_source_get_a_note(
    pack: Pack, values: Values, tmp_path: Path
) -> None:
    source, notes = ModelFolder(tmp_path / "old"), list[str]()
    train(build(values), source, pack)
    assert source.config.data.size == pack.size
    larger = source.config.model_dump(mode="json")
    larger["data"]["size"] = 2 * pack.size
    files.write_json(source / model_folder.CONFIG, larger)
    for name in ("smaller", "again"):
        folder = ModelFolder(tmp_path / name)
        train(build(values), folder, pack, lambda progress: notes.extend(progress.notes), source=source)
        source = folder  # whose photos are as large as these
    assert [note for note in notes if "--size" in note] == [
        f"old learnt from photos of {2 * pack.size} pixels, these have {pack.size}: "
        f"data import --size {2 * pack.size} shows it more"
    ]
