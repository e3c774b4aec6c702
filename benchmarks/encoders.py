"""How much each encoder says about a photo's colours, before any network has learnt to use it.

    python benchmarks/encoders.py --data tiny-imagenet-200      # writes docs/measurements/encoders.md

Takes some minutes on two cores. Ridge regression on training photos predicts the chroma of the 64 cells of an
8 x 8 grid from the encoder's maps there, and the photo's category from means and maxima of the deepest map.
Validation photos choose only the penalty.
"""

from __future__ import annotations

import time
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.config import PRESETS, ModelConfig
from photochrom.data.dataset import find
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.diffusion.encoder import Encoder
from photochrom.precision import bfloat16_is_faster, convolve_in_bfloat16

GRID = 8
PENALTIES = (10.0, 30.0, 100.0, 300.0)
AT_ONCE = 50


def encoded(encoder: Encoder, y: Tensor) -> tuple[list[Tensor], float]:
    """The maps of all photos, and seconds for each photo."""
    begun = time.perf_counter()
    with torch.inference_mode():
        parts = [[each.float() for each in encoder(part)] for part in y.split(AT_ONCE)]
    seconds = (time.perf_counter() - begun) / len(y)
    return [torch.cat(maps) for maps in zip(*parts, strict=True)], seconds


def on_grid(maps: Tensor) -> Tensor:
    """(N,C,h,w) -> (N * GRID * GRID, C)."""
    side = maps.shape[-1]
    maps = F.avg_pool2d(maps, side // GRID) if side > GRID else maps
    maps = F.interpolate(maps, size=(GRID, GRID), mode="bilinear") if side < GRID else maps
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def predicted(x: Tensor, truth: Tensor, count: int, penalty: float) -> Tensor:
    """What ridge regression on the first `count` rows predicts for the others. The penalty is per photo."""
    mean, spread = x[:count].mean(dim=0), x[:count].std(dim=0) + 1e-6
    x = (x - mean) / spread
    known, middle = x[:count], truth[:count].mean(dim=0)
    squares = known.T @ known + penalty * torch.eye(x.shape[1])
    return x[count:] @ torch.linalg.solve(squares, known.T @ (truth[:count] - middle)) + middle


def row(name: str, pack: Pack, train: int, validation: int) -> str:
    """A line of the table."""
    indices = [*pack.drawn("train", train, 0), *pack.drawn("validation", validation, 0)]
    y, c = color.from_rgb(pack.rgb(indices), 2)
    config = ModelConfig.model_validate({"features": PRESETS["small"].features, "encoder": name})
    encoder = Encoder(config)
    if bfloat16_is_faster():
        convolve_in_bfloat16(encoder)
    maps, seconds = encoded(encoder, y)
    places = GRID * GRID
    truth = on_grid(c)
    known, asked = train * places, truth[train * places :]

    def explained(x: Tensor) -> float:
        spread = (asked - truth[:known].mean(dim=0)).square().sum()
        errors = [(predicted(x, truth, known, p * places) - asked).square().sum() for p in PENALTIES]
        return 1 - float(min(errors) / spread)

    label = torch.from_numpy(pack.label[indices])
    deepest = torch.cat([maps[-1].mean(dim=(2, 3)), maps[-1].amax(dim=(2, 3))], dim=1)
    answers = [predicted(deepest, F.one_hot(label).float(), train, 10 * p).argmax(dim=1) for p in PENALTIES]
    right = max(float((answer == label[train:]).float().mean()) for answer in answers)
    both = explained(torch.cat([on_grid(each) for each in maps], dim=1))
    sides = [each.shape[-1] for each in maps]
    shapes = ", ".join(f"{layer} {side}x{side}" for layer, side in zip(encoder.layers, sides, strict=True))
    return f"| {name} | {shapes} | {both:.1%} | {right:.0%} | {1000 * seconds:.0f} |"


def main() -> None:
    """Measure, print and write."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("--train", type=int, default=2500)
    parser.add_argument("--validation", type=int, default=500)
    options = parser.parse_args()
    pack = find(options.data, options.data_dir, typed=True)
    assert isinstance(pack, Pack)
    names = [name for name in get_args(ModelConfig.model_fields["encoder"].annotation) if name != "none"]
    rows = [row(name, pack, options.train, options.validation) for name in names]
    text = f"""
| encoder | maps | chroma explained | category named | ms for each photo |
|---|---|---:|---:|---:|
{chr(10).join(rows)}

Chroma explained: the share of the spread of chroma (on an 8 x 8 grid) that ridge regression explains from
the encoder's maps at the same place. Category named: the share of photos whose category, one of
{len(pack.categories)}, it names from the deepest map.

{written_by(f"encoders.py --data {pack.name}")}. It learns from {options.train:,} training photos of
{pack.name}, {pack.size} pixels, and is asked about {options.validation} validation photos.
"""
    print(text)
    write_figures(MEASUREMENTS / "encoders.md", text)


if __name__ == "__main__":
    main()
