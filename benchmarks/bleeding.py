"""How far colours run over edges when chroma is enlarged to a photo's size: ours against interpolation.

    python benchmarks/bleeding.py               # half a minute; writes docs/measurements/bleeding.md
    python benchmarks/bleeding.py --sides 64

Uses true photos from scikit-image and matplotlib, and no network. True chroma is reduced to the working size
as in training, and enlarged in each way. The error is the mean distance of (Cb,Cr) from the truth in levels
of 255: near edges (within three pixels of the tenth of pixels with the largest luma gradient), and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom.coloring.upsampling import View, cubic, guided, interpolation, linear, view
from photochrom.data.reading import open_photo
from photochrom.diffusion import color

REPORT = MEASUREMENTS / "bleeding.md"
SIDES = (32, 64, 128, 256)
SCALE = 2  # chroma of the default model
NEAR, SHARPEST = 3, 0.9
PHOTOS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
Way = Callable[[Image.Image, View, Tensor], Tensor]  # luma, how it was seen, small chroma -> chroma (1,2,H,W)


def nearest(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """Each pixel takes its chroma pixel."""
    rows, columns = (
        (torch.arange(length) + 0.5) * extent / length
        for length, extent in zip(luma.size[::-1], seen.extent, strict=True)
    )
    return c[..., rows.long(), :][..., columns.long()]


def bilinear(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """From the four nearest."""
    down = interpolation(luma.height, c.shape[2], seen.extent[0] / luma.height, linear, 1)
    return down @ c @ interpolation(luma.width, c.shape[3], seen.extent[1] / luma.width, linear, 1).T


def bicubic(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """Keys' kernel over the nearest sixteen."""
    down = interpolation(luma.height, c.shape[2], seen.extent[0] / luma.height, cubic, 2)
    return down @ c @ interpolation(luma.width, c.shape[3], seen.extent[1] / luma.width, cubic, 2).T


def guided_filter(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """The fast guided filter (He & Sun 2015, algorithm 2): c = a y + b, a and b from the small size."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    small = F.avg_pool2d(seen.y, seen.scale)
    a = (mean(small * c) - mean(small) * mean(c)) / (mean(small**2) - mean(small) ** 2 + 1e-3)
    b = mean(c) - a * mean(small)
    return bilinear(luma, seen, mean(a)) * luma_of(luma) + bilinear(luma, seen, mean(b))


def joint_bilateral(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """Kopf et al.

    2007, equation 3: the mean of the nine nearest, weighted by distance and similarity of luma.
    """
    y, small = luma_of(luma), F.avg_pool2d(seen.y, seen.scale)
    at = [
        (torch.arange(length) + 0.5) * extent / length - 0.5
        for length, extent in zip(luma.size[::-1], seen.extent, strict=True)
    ]
    total, weights = torch.zeros(1, 2, *y.shape[-2:]), torch.full_like(y, 1e-8)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            place = [axis.round().long() + step for axis, step in zip(at, (down, right), strict=True)]
            row, column = (p.clamp(0, size - 1) for p, size in zip(place, c.shape[-2:], strict=True))
            near = (place[0] - at[0])[:, None] ** 2 + (place[1] - at[1])[None] ** 2
            alike = (small[..., row, :][..., column] - y) ** 2
            weight = torch.exp(-near / (2 * 0.5**2) - alike / (2 * 0.1**2))
            total, weights = total + weight * c[..., row, :][..., column], weights + weight
    return total / weights


def ours(luma: Image.Image, seen: View, c: Tensor) -> Tensor:
    """What `photochrom colorize` does."""
    strips = guided(luma, F.avg_pool2d(seen.y, seen.scale), c, seen.extent)
    return torch.cat([chroma for _, _, chroma in strips], dim=2)


WAYS: dict[str, Way] = {
    "nearest": nearest,
    "bilinear": bilinear,
    "bicubic": bicubic,
    "fast guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
    "Photochrom: bicubic, and luma's detail by regression": ours,
}


def luma_of(luma: Image.Image) -> Tensor:
    """(1,1,H,W) in [-1,1]."""
    return torch.from_numpy(np.array(luma, dtype=np.float32))[None, None] / 127.5 - 1


def rgb_of(photo: Image.Image) -> Tensor:
    """(1,3,H,W) in [0,1]."""
    return torch.from_numpy(np.array(photo, dtype=np.float32)).permute(2, 0, 1)[None] / 255


def near_edges(y: Tensor) -> Tensor:
    """Pixels near luma's edges: (H,W), by Sobel's gradient."""
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradient = F.conv2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), torch.stack([sobel, sobel.T])[:, None])
    size = gradient.norm(dim=1, keepdim=True)
    edges = (size > np.quantile(size.numpy(), SHARPEST)).float()
    return F.max_pool2d(edges, 2 * NEAR + 1, stride=1, padding=NEAR)[0, 0] > 0


def errors(photo: Image.Image, side: int) -> dict[str, tuple[float, float]]:
    """Each way's error near edges and elsewhere, for one photo at one working size."""
    luma = photo.convert("L")
    y, true = color.from_rgb(rgb_of(photo))
    seen = view(luma, side, 16, SCALE)
    small = rgb_of(photo.resize((seen.width, seen.height), Image.Resampling.LANCZOS))
    padding = (0, seen.y.shape[3] - seen.width, 0, seen.y.shape[2] - seen.height)
    _, c = color.from_rgb(F.pad(small, padding, mode="reflect"), SCALE)
    edges = near_edges(y)
    found = {}
    for name, way in WAYS.items():
        _, made = color.from_rgb(color.into_gamut(color.to_rgb(y, way(luma, seen, c)), y))
        distance = 255 * color.CHROMA_UNIT * (made - true).norm(dim=1)[0]
        found[name] = (float(distance[edges].mean()), float(distance[~edges].mean()))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the report."""
    parser = parser_for(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="working sizes (shorter side)")
    sides = parser.parse_args(arguments).sides
    photos = [open_photo(_place(*photo)) for photo in PHOTOS]
    results = {side: [errors(photo, side) for photo in photos] for side in sides}
    sizes = ", ".join(f"{photo.width}x{photo.height}" for photo in photos)
    lines = [
        f"True chroma is reduced to the working size (chroma at 1/{SCALE} of it) and enlarged again.",
        "Each cell shows the mean",
        f"distance of (Cb, Cr) from the truth in levels of 255, within {NEAR} pixels of an edge of luma /",
        "elsewhere. Edges are the",
        "tenth of pixels with the largest gradient. Less is better.",
        "",
        "| shorter side at work | " + " | ".join(map(str, sides)) + " |",
        "|---|" + "---|" * len(sides),
    ]
    for name in WAYS:
        cells = [np.mean([photo[name] for photo in results[side]], axis=0) for side in sides]
        lines.append(f"| {name} | " + " | ".join(f"{near:.2f} / {far:.2f}" for near, far in cells) + " |")
    lines += ["", f"{written_by('bleeding.py')}. Photos: {len(photos)} ({sizes})."]
    text = "\n".join(lines) + "\n"
    print(text)
    write_figures(REPORT, text)


def _place(package: str, file: str) -> Path:
    from importlib.resources import files

    return Path(str(files(package) / file))


if __name__ == "__main__":
    main()
