"""Training speed beside other projects' networks and a bare convolution, and the speed of reading batches.

    pip install -e '.[bench]'
    python benchmarks/peers.py

Contenders take turns in one process (A B C D, A B C D, ...), so that other work on the machine hits all of
them. Each does a whole training step on 64x64 photos: forward, mean square error, backward, AdamW. Prints a
Markdown table and writes docs/measurements/peers.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.config import PRESETS, ModelConfig, build
from photochrom.data.demo import make_demo
from photochrom.data.pack import Pack
from photochrom.diffusion.unet import UNet
from photochrom.training.state import Training
from photochrom.training.step import train_step

SIZE = 64
FEATURES = PRESETS["default"].features
OURS, DIFFUSERS, LUCIDRAINS = "Photochrom", "diffusers `UNet2DModel`", "denoising-diffusion-pytorch `Unet`"
GOALS = {DIFFUSERS: 10, LUCIDRAINS: 8}
READING_GOAL = 20
CONVOLUTION_GOAL = 0.75
ARITHMETIC = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Step = Callable[[], object]
Contender = tuple[nn.Module, Callable[[], torch.Tensor]]  # a network, and a call of it on a batch


def training_step(network: nn.Module, predict: Callable[[], torch.Tensor], arithmetic: str) -> Step:
    """One training step towards a fixed target; bfloat16 by autocast."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    target = torch.randn_like(predict().detach())

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic == "bfloat16"):
            predicted = predict()
        torch.autograd.backward(F.mse_loss(predicted.float(), target))
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(
    batch: int, scale: int = 2, features: tuple[int, ...] = FEATURES, compiled: bool = False
) -> Contender:
    """From luma at full size and noisy chroma at 1/scale to chroma."""
    network = UNet(ModelConfig(features=features, chroma_scale=scale))
    call = torch.compile(network) if compiled else network
    y, xt = torch.randn(batch, 1, SIZE, SIZE), torch.randn(batch, 2, SIZE // scale, SIZE // scale)
    t = torch.randint(0, 1000, (batch,))
    return network, lambda: call(xt, t, y)


def diffusers_unet(batch: int) -> Contender:
    """From gray and noisy RGB to RGB: the usual way to condition on a gray photo."""
    import diffusers

    make: Any = diffusers.UNet2DModel
    plain = len(FEATURES) - 1
    network: nn.Module = make(
        sample_size=SIZE,
        in_channels=4,
        out_channels=3,
        block_out_channels=FEATURES,
        layers_per_block=2,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
    )
    x, t = torch.randn(batch, 4, SIZE, SIZE), torch.randint(0, 1000, (batch,))
    return network, lambda: network(x, t).sample


def lucidrains_unet(batch: int) -> Contender:
    """The same task for lucidrains' network."""
    from denoising_diffusion_pytorch import Unet  # type: ignore[import-untyped]

    multiples = tuple(features // FEATURES[0] for features in FEATURES)
    network = Unet(dim=FEATURES[0], dim_mults=multiples, channels=4, out_dim=3)
    x, t = torch.randn(batch, 4, SIZE, SIZE), torch.randint(0, 1000, (batch,))
    return network, lambda: network(x, t)


def seconds(step: Step, times: int = 1) -> float:
    """Seconds of one call: the mean of `times` in a row."""
    begun = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - begun) / times


def median_of(values: Iterable[float], digits: int = 1) -> str:
    """The median, and the range in brackets."""
    values = sorted(values)
    return f"{statistics.median(values):.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_turns(
    steps: dict[str, tuple[Step, float]], repetitions: int, times: int = 1
) -> dict[str, list[float]]:
    """Steps a second, round after round, after a warm-up. Each step comes with what one call of it counts."""
    for name, (step, _) in steps.items():
        say(f"warming up: {name}, {seconds(step):.1f} s")
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repetitions):
        for name, (step, worth) in steps.items():
            rates[name].append(worth / seconds(step, times))
        say(f"round {number + 1} of {repetitions}: {', '.join(f'{rate[-1]:.2f}' for rate in rates.values())}")
    return rates


def factors(above: list[float], below: list[float]) -> list[float]:
    """Ratios within each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def compare_networks(batch: int, repetitions: int) -> str:
    """The table of training steps, and a line for each goal."""
    first = f"{OURS}, chroma at 1/2 (the default)"
    makers: dict[str, Callable[[], Contender]] = {
        first: lambda: ours(batch),
        f"{OURS}, chroma at full size": lambda: ours(batch, 1),
        DIFFUSERS: lambda: diffusers_unet(batch),
        LUCIDRAINS: lambda: lucidrains_unet(batch),
    }
    steps: dict[str, tuple[Step, float]] = {}
    millions: dict[str, float] = {}
    for name, make in makers.items():
        network, predict = make()
        millions[name] = sum(weight.numel() for weight in network.parameters()) / 1e6
        for arithmetic in ARITHMETIC:
            steps[f"{name} | {arithmetic}"] = (training_step(network, predict, arithmetic), batch)
    rates = in_turns(steps, repetitions)
    lines = [
        "| network | parameters | arithmetic | photos/s | ours is faster by "
        "| ours in bfloat16 is faster by |",
        "|---|---|---|---|---|---|",
    ]
    goals = []
    for row, found in rates.items():
        name, _, arithmetic = row.partition(" | ")
        alike, rounded = (factors(rates[f"{first} | {a}"], found) for a in (arithmetic, "bfloat16"))
        cells = ["", ""] if name == first else [median_of(alike), median_of(rounded)]
        lines.append(
            f"| {name} | {millions[name]:.1f} M | {arithmetic} | {median_of(found, 2)} "
            f"| {' | '.join(cells)} |"
        )
        if name in GOALS and arithmetic == "float32":
            for how, ratios in (
                ("both in float32", alike),
                ("ours in bfloat16, theirs as it comes", rounded),
            ):
                goals.append(
                    verdict(f"{GOALS[name]} times {name}, {how}", statistics.median(ratios), GOALS[name])
                )
    return "\n".join([*lines, "", *goals])


def convolution(batch: int, layout: torch.memory_format, arithmetic: str) -> tuple[Step, float]:
    """A 3x3 convolution of 64 channels over maps of chroma's size, and its multiply-adds; with backward."""
    side = SIZE // 2
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=layout)
    x = torch.randn(batch, 64, side, side).to(memory_format=layout).requires_grad_()
    gradient = torch.randn(batch, 64, side, side).to(memory_format=layout)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic == "bfloat16"):
            found = conv(x)
        found.backward(gradient.to(found.dtype))
        conv.zero_grad()
        x.grad = None

    return step, 3 * batch * side**2 * 64 * 64 * 9


def compare_with_convolution(batch: int, repetitions: int) -> str:
    """Multiply-adds a second of the small preset's training step, compiled or not, and of a convolution."""
    steps: dict[str, tuple[Step, float]] = {}
    compiling: dict[str, float] = {}
    for arithmetic in ARITHMETIC:
        network, predict = ours(batch, features=PRESETS["small"].features)
        with FlopCounterMode(display=False) as counter:
            predict()
        worth = 3 * counter.get_total_flops() / 2  # a backward pass takes twice a forward's
        steps[f"training step | {arithmetic}"] = (training_step(network, predict, arithmetic), worth)
        compiled = training_step(*ours(batch, features=PRESETS["small"].features, compiled=True), arithmetic)
        compiling[arithmetic] = seconds(compiled)
        steps[f"training step, torch.compile | {arithmetic}"] = (compiled, worth)
        for name, layout in (
            ("as torch makes it", torch.contiguous_format),
            ("channels last", torch.channels_last),
        ):
            steps[f"convolution, {name} | {arithmetic}"] = convolution(batch, layout, arithmetic)
    rates = in_turns(steps, repetitions, 3)
    lines = [
        "| | arithmetic | thousand million multiply-adds a second | the training step has of it |",
        "|---|---|---|---|",
    ]
    goals = []
    for row, found in rates.items():
        name, _, arithmetic = row.partition(" | ")
        shares = factors(rates[f"training step | {arithmetic}"], found)
        cell = "" if name == "training step" else median_of(shares, 2)
        lines.append(f"| {name} | {arithmetic} | {median_of([rate / 1e9 for rate in found], 0)} | {cell} |")
        if name.startswith("convolution"):
            goal = f"{CONVOLUTION_GOAL} of a {name}, {arithmetic}"
            goals.append(verdict(goal, statistics.median(shares), CONVOLUTION_GOAL, 2))
    first_calls = ", ".join(f"{spent:.0f} s in {arithmetic}" for arithmetic, spent in compiling.items())
    return "\n".join([*lines, "", f"torch.compile's first step took {first_calls}.", "", *goals])


def verdict(goal: str, found: float, wanted: float, digits: int = 1) -> str:
    return f"- goal: at least {goal}: {found:.{digits}f}, {'reached' if found >= wanted else 'missed'}"


def compare_reading(pack: Pack, batch: int, repetitions: int) -> str:
    """Photos per second read at random, beside those that the small preset trains on."""
    stage = {"perceptual": 0.0}
    options = {"batch_size": batch, "precision": "fp32"}
    values = {"model": {"features": PRESETS["small"].features}, "training": options, "stages": [stage]}
    training = Training(build(values), pack)
    number = iter(range(10**9))

    def read() -> None:
        pack.rgb(pack.photos_of_step(0, next(number), batch))

    seconds(lambda: train_step(training))
    seconds(read)
    trained, reading = [], []
    for _ in range(repetitions):
        trained.append(batch / seconds(lambda: train_step(training), 5))
        reading.append(batch / seconds(read, 100))
    ratio = statistics.median(a / b for a, b in zip(reading, trained, strict=True))
    return "\n".join(
        [
            "| | photos/s |",
            "|---|---|",
            f"| reading batches at random from {pack.count('train'):,} packed photos "
            f"| {median_of(reading, 0)} |",
            f"| a training step of the small preset ({', '.join(map(str, PRESETS['small'].features))}) "
            f"| {median_of(trained)} |",
            "",
            verdict(f"{READING_GOAL} times as fast as training", ratio, READING_GOAL),
        ]
    )


def figures(networks: str, convolutions: str, reading: str, batch: int, repetitions: int) -> str:
    """The figures of docs/measurements/peers.md."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("diffusers", "denoising-diffusion-pytorch", "numpy")
    )
    return f"""
## Training step

{networks}

Forward, backward and AdamW at features {", ".join(map(str, FEATURES))}, {SIZE}x{SIZE} photos, batches of
{batch}.

## Beside a bare convolution

{convolutions}

Multiply-adds a second of a training step of the small preset
({", ".join(map(str, PRESETS["small"].features))}), batches of {2 * batch}, and of a 3x3 convolution of 64
channels over maps of {SIZE // 2}x{SIZE // 2}, forward and backward.

## Reading

{reading}

{written_by("peers.py")}, {torch.get_num_threads()} threads, {platform.system()}, Python
{platform.python_version()}, {packages}. All in one process and in turns, {repetitions} rounds after a
warm-up; medians, with the range in brackets. Factors come from within each round.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--batch", type=int, default=16, help="photos per step (default: 16)")
    parser.add_argument("--data", type=Path, help="packed data set to read from (default: the demo photos)")
    parser.add_argument("--output", type=Path, default=MEASUREMENTS / "peers.md")
    options = parser.parse_args(arguments)
    if (load := os.getloadavg()[0]) > 0.5:
        say(f"warning: the machine is busy (load {load:.1f}); the rounds will differ")
    torch.manual_seed(0)
    networks = compare_networks(options.batch, options.repetitions)
    convolutions = compare_with_convolution(2 * options.batch, options.repetitions)
    with tempfile.TemporaryDirectory() as scratch:
        pack = Pack.open(options.data or make_demo(Path(scratch, "demo")).folder)
        reading = compare_reading(pack, options.batch, options.repetitions)
    print(networks, convolutions, reading, sep="\n\n")
    text = figures(networks, convolutions, reading, options.batch, options.repetitions)
    write_figures(options.output, text)
    say(f"written: {options.output}")


if __name__ == "__main__":
    main()
