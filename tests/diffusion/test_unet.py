"""The network: shapes, what it listens to, how it begins, and what its configuration refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import PRESETS, ModelConfig, build
from photochrom.diffusion import efficientnet
from photochrom.diffusion.unet import Attention, GroupNorm, ResidualBlock, UNet, time_features
from photochrom.errors import UsageError


def inputs(network: UNet, batch: int = 3, side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy chroma, steps and luma for photos of `side` pixels."""
    generator = torch.Generator().manual_seed(0)
    small = side // network.config.chroma_scale
    xt = torch.randn(batch, 2, small, small, generator=generator)
    return xt, torch.arange(batch) * 7, torch.rand(batch, 1, side, side, generator=generator) * 2 - 1


def awake(**options: Any) -> UNet:
    """A network whose zero-initialised layers have random weights, as after some training."""
    config = ModelConfig(**{"features": (8, 16), "time_embedding": 16, "blocks": 2, **options})
    torch.manual_seed(0)
    network = UNet(config)
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network


def test_a_model_with_its_own_encoder_reads_no_pretrained_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = awake(features=(8, 16, 16, 16), chroma_scale=4, encoder="lite0", train_encoder=True)
    monkeypatch.setattr(efficientnet, "WEIGHTS", Path("missing.safetensors"))
    loaded = UNet.load(made.config, made.state_dict(), Path("model"))
    assert made.encoder
    assert loaded.encoder
    y = torch.rand(1, 1, 64, 64)
    for expected, found in zip(made.encoder(y), loaded.encoder(y), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("features", [(8,), (8, 16), (16, 8, 24), (8, 16, 24, 32)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_output_has_the_shape_of_the_noisy_chroma(scale: int, features: tuple[int, ...]) -> None:
    network = awake(features=features, chroma_scale=scale)
    side = network.config.multiple
    xt, t, y = inputs(network, side=side)
    assert network(xt, t, y).shape == (3, 2, side // scale, side // scale)


def test_oblong_photos() -> None:
    xt, t, y = torch.randn(1, 2, 6, 10), torch.tensor([3]), torch.randn(1, 1, 12, 20)
    assert awake()(xt, t, y).shape == xt.shape


@pytest.mark.parametrize("channels", [64, 72, 128, 136, 200, 256])
def test_attention_takes_every_width_that_the_configuration_allows(channels: int) -> None:
    network = awake(features=(channels,), attention=1, blocks=1)
    assert network(*inputs(network, batch=1, side=8)).isfinite().all()


def norm(x: Tensor, groups: int) -> Tensor:
    """Zero mean and unit spread over each group of channels of each photo."""
    split = x.reshape(len(x), groups, -1)
    split = (split - split.mean(-1, keepdim=True)) / (split.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return split.reshape(x.shape)


@pytest.mark.parametrize("side", [4, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_scales_and_shifts_photo_by_photo_or_all_alike(dtype: torch.dtype, side: int) -> None:
    group_norm = GroupNorm(16)
    nn.init.normal_(group_norm.weight)
    nn.init.normal_(group_norm.bias)
    x, scale, shift = 3 * torch.randn(2, 16, side, side) + 1, torch.randn(2, 16), torch.randn(2, 16)
    x = x.to(dtype, memory_format=torch.channels_last)
    weight, bias = group_norm.weight[:, None, None], group_norm.bias[:, None, None]
    expected = [norm(x.float(), 2) * weight + bias]
    expected += [
        expected[0] * (1 + a[..., None, None]) + b[..., None, None]
        for a, b in ((scale, shift), (scale[:1], shift[:1]))
    ]
    found = [group_norm(x), group_norm(x, scale, shift), group_norm(x, scale[:1], shift[:1])]
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for ours, formula in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), formula, atol=tolerance, rtol=tolerance)


def test_one_step_for_all_photos_is_that_step_for_each() -> None:
    network = awake(features=(8, 16, 24)).eval()
    xt, _, y = inputs(network)
    together, one = network(xt, torch.full((3,), 7), y), network(xt, torch.tensor([7]), y)
    torch.testing.assert_close(one, together, atol=1e-5, rtol=1e-5)


def test_convolutions_may_be_bfloat16() -> None:
    network = awake(features=(8, 16, 24)).eval()
    xt, t, y = inputs(network)
    exact = network(xt, t, y)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
    found = network(xt, t, y)
    assert found.dtype == torch.float32
    assert (found - exact).std() < 0.03 * exact.std()


def test_a_block_is_scaled_and_shifted_by_the_time() -> None:
    block = ResidualBlock(8, 16, 4, dropout=0.0)
    nn.init.normal_(block.conv2.weight)
    x, time = torch.randn(2, 8, 5, 5), torch.randn(2, 4)
    scale, shift = block.time(time)[:, :, None, None].split(16, dim=1)
    h = norm(block.conv1(F.silu(norm(x, 1))), 2) * (1 + scale) + shift
    torch.testing.assert_close(block(x, time), block.skip(x) + block.conv2(F.silu(h)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("channels", "heads"), [(16, 1), (64, 1), (128, 2), (200, 1)])
def test_attention_is_torchs_own(channels: int, heads: int) -> None:
    attention = Attention(channels)
    nn.init.normal_(attention.out.weight)
    x = torch.randn(2, channels, 3, 5)
    theirs = nn.MultiheadAttention(channels, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.qkv.weight[:, :, 0, 0])
        assert attention.qkv.bias is not None
        theirs.in_proj_bias.copy_(attention.qkv.bias)
        theirs.out_proj.weight.copy_(attention.out.weight[:, :, 0, 0])
    places = attention.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C)
    found, _ = theirs(places, places, places)
    torch.testing.assert_close(attention(x), x + found.transpose(1, 2).reshape(x.shape), atol=1e-4, rtol=1e-4)


def test_it_begins_by_saying_nothing() -> None:
    network = UNet(ModelConfig(features=(8, 16), time_embedding=16))
    assert not network(*inputs(network)).any()


def test_output_depends_on_noisy_chroma_time_and_luma() -> None:
    network = awake().eval()
    xt, t, y = inputs(network)
    plain = network(xt, t, y)
    for other in (network(xt + 0.1, t, y), network(xt, t + 5, y), network(xt, t, y * 0.9)):
        assert ((other - plain).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_luma_at_full_size_is_seen() -> None:
    """Stripes of one pixel, which an average over two pixels would wipe out, change the outcome."""
    network = awake(chroma_scale=2).eval()
    xt, t, y = inputs(network)
    stripes = y + torch.tensor([0.5, -0.5]).repeat(8)
    assert (network(xt, t, stripes) - network(xt, t, y)).abs().max() > 1e-2


def test_every_parameter_gets_a_gradient() -> None:
    network = awake(dropout=0.1)
    torch.autograd.backward(network(*inputs(network)).square().sum())
    lazy = [n for n, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert lazy == []


def test_dropout_is_on_in_training_and_off_otherwise() -> None:
    network = awake(dropout=0.5)
    batch = inputs(network)
    assert not torch.equal(network(*batch), network(*batch))
    network.eval()
    assert torch.equal(network(*batch), network(*batch))


def test_photos_do_not_see_each_other() -> None:
    network = awake().eval()
    xt, t, y = inputs(network)
    alone = [network(xt[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(xt, t, y), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_convolutions_run_in_channels_last() -> None:
    network, formats = awake(), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(
                lambda module, args, output: formats.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                    and module.weight.is_contiguous(memory_format=torch.channels_last)
                )
            )
    network(*inputs(network))
    assert formats
    assert all(formats)


def test_last_layer_is_the_one_before_the_output() -> None:
    network = awake()
    before = network(*inputs(network))
    with torch.no_grad():
        network.last_layer.zero_()
        after = network(*inputs(network))
    assert network.last_layer.requires_grad
    assert before.std() > 0
    assert after.std(dim=(0, 2, 3)).max() < 1e-6  # the bias alone is left


def test_time_features_follow_the_formula() -> None:
    t = torch.tensor([0, 3, 999])
    features = time_features(t, 8)
    for row, step in zip(features.tolist(), t.tolist(), strict=True):
        angles = torch.tensor([step / 10_000 ** (i / 4) for i in range(4)], dtype=torch.float64)
        assert row == pytest.approx([*angles.cos().tolist(), *angles.sin().tolist()], abs=1e-4)


@pytest.mark.parametrize("channels", [8, 24, 64, 200, 256, 512])
def test_norm_groups_hold_at_least_eight_channels(channels: int) -> None:
    norm = GroupNorm(channels)
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= 8


def test_blocks_halve_towards_the_fine_levels() -> None:
    assert [ModelConfig(blocks=4).blocks_at(level) for level in range(4)] == [1, 1, 2, 4]
    assert [ModelConfig(features=(8, 8), blocks=1).blocks_at(level) for level in range(2)] == [1, 1]
    network = awake(features=(8, 8, 8), blocks=4)
    assert [len(level.blocks) for level in network.down] == [1, 2, 4]  # type: ignore[arg-type]


def test_presets_and_multiple() -> None:
    assert ModelConfig().features == PRESETS["default"].features == (64, 128, 256, 512)
    assert PRESETS["small"].features == (32, 64, 128, 256)
    assert ModelConfig().multiple == 16
    assert ModelConfig(chroma_scale=4).multiple == 32


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({"features": [32, 20]}, ["model.features", "20", "multiple of 8"]),
        ({"features": [0]}, ["model.features", "0"]),
        ({"features": [-8, 8]}, ["model.features", "-8"]),
        ({"features": []}, ["model.features"]),
        ({"time_embedding": 33}, ["model.time_embedding", "33", "34"]),
        ({"chroma_scale": 3}, ["model.chroma_scale", "3"]),
        ({"dropout": 1.0}, ["model.dropout", "1.0"]),
        ({"dropout": float("nan")}, ["model.dropout", "nan"]),
        ({"blocks": 0}, ["model.blocks", "0"]),
        ({"heads": 4}, ["model.heads", "features", "dropout"]),
    ],
)
def test_a_wrong_configuration_is_refused_by_key_and_value(model: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build({"model": model})
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("side", [4, 16, 20])
def test_attention_in_bfloat16_is_the_same_to_its_digits(side: int) -> None:
    """By the formula over small maps, and by torch's kernel over larger ones."""
    attention = Attention(128).requires_grad_(False)
    nn.init.normal_(attention.out.weight, std=0.1)
    nn.init.normal_(attention.qkv.weight, std=0.2)
    x = torch.randn(2, 128, side, side, generator=torch.Generator().manual_seed(0))
    exact = attention(x) - x
    attention.qkv.bfloat16()
    attention.out.bfloat16()
    rough = attention(x.bfloat16()).float() - x.bfloat16().float()
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()
