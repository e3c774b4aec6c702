"""Does onnxruntime run the network faster than torch, on this processor?

    taskset -c 1 python benchmarks/engines.py        # about two minutes; writes docs/measurements/engines.md

The network with an encoder's features, on 64x64 photos and one thread: in torch with float32, in torch as
`Colorizer` runs it here, and in onnxruntime from what `photochrom export` wrote. All take turns in one
process, so that other work on the machine hits all of them.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom import model_folder
from photochrom.coloring.onnx import read_onnx, write_onnx
from photochrom.config import PRESETS, build
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16

REPORT = MEASUREMENTS / "engines.md"
BATCHES = (1, 8, 32)
SIZE, ROUNDS = 64, 7
TORCH, CHOSEN, ONNX = "torch, float32", "torch, as chosen", "onnxruntime"

Evaluate = Callable[[], object]


def contenders(preset: str, work: Path) -> dict[tuple[str, int], Evaluate]:
    """One evaluation of an untrained network, which costs as much as a trained one's, by engine and batch."""
    config = build(
        {"model": {"features": PRESETS[preset].features, "encoder": "vgg16"}, "data": {"size": SIZE}}
    )
    folder = ModelFolder(work / preset)
    folder.path.mkdir()
    folder.save_weights(UNet(config.model).state_dict(), config)
    write_onnx(folder / model_folder.WEIGHTS, folder / model_folder.ONNX)
    _, tensors = model_folder.read_weights(folder / model_folder.WEIGHTS)
    exact = UNet.load(config.model, tensors, folder.path)
    chosen = copy.deepcopy(exact)
    if bfloat16_is_faster():
        convolve_in_bfloat16(chosen)
    networks = {TORCH: exact, CHOSEN: chosen, ONNX: read_onnx(folder / model_folder.ONNX)[1]}
    encoder = Encoder.of(config.model)
    assert encoder
    found: dict[tuple[str, int], Evaluate] = {}
    for batch in BATCHES:
        y = torch.rand(batch, 1, SIZE, SIZE) * 2 - 1
        xt, t, features = torch.randn(batch, 2, SIZE // 2, SIZE // 2), torch.tensor([500]), encoder(y)
        for name, network in networks.items():
            found[name, batch] = lambda network=network, given=(xt, t, y, features): network(*given)
    return found


def rate(evaluate: Evaluate, batch: int) -> float:
    """Photos per second, over at least as many photos as the largest batch has."""
    times = max(BATCHES) // batch
    begun = time.perf_counter()
    for _ in range(times):
        evaluate()
    return times * batch / (time.perf_counter() - begun)


@torch.inference_mode()
def measure(preset: str, work: Path) -> list[str]:
    """The rows of a preset's table."""
    evaluations = contenders(preset, work)
    for evaluate in evaluations.values():
        evaluate()  # kernels are chosen and memory is taken at the first
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in evaluations}
    for _ in range(ROUNDS):
        for key, evaluate in evaluations.items():
            rates[key].append(rate(evaluate, key[1]))
    rows = []
    for batch in BATCHES:
        cells = [f"{statistics.median(rates[name, batch]):.1f}" for name in (TORCH, CHOSEN, ONNX)]
        for torch_way in (TORCH, CHOSEN):
            factors = sorted(a / b for a, b in zip(rates[ONNX, batch], rates[torch_way, batch], strict=True))
            cells.append(f"{statistics.median(factors):.2f} ({factors[0]:.2f} to {factors[-1]:.2f})")
        rows.append(f"| `{preset}` | {batch} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print and write."""
    parser_for(__doc__).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        rows = [row for preset in ("small", "default") for row in measure(preset, Path(work))]
    chosen = "bfloat16" if bfloat16_is_faster() else "float32"
    text = f"""
| preset | batch | {TORCH} | torch, {chosen}, as chosen here | {ONNX} | {ONNX} / {TORCH} | {ONNX} / {CHOSEN} |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{written_by("engines.py")}, onnxruntime {version("onnxruntime")}, one thread. Photos of {SIZE}x{SIZE} per
second through the network with vgg16's features, one evaluation each; a colouring takes 20. `Colorizer`
convolves in {chosen} here, because `photochrom.precision` measured it to be faster; onnxruntime runs in
float32. Medians of {ROUNDS} rounds in turns. Factors come from within each round, with their range; above
1, onnxruntime is faster.
"""
    write_figures(REPORT, text)


if __name__ == "__main__":
    main()
