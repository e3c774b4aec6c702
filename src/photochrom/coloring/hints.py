"""What users say about a photo's colours: hints, areas that stay gray, and a photo to resemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photochrom.coloring.options import Hint
from photochrom.coloring.photo import Photo, open_gray
from photochrom.coloring.upsampling import View
from photochrom.data import reading
from photochrom.data.reading import MAX_PIXELS
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import KnownChroma
from photochrom.errors import UsageError

ALIKE = 0.3  # change of luma in [-1,1] along a path that counts as much as REACH does
REACH = 0.25  # distance that a hint goes where luma is constant, in shorter sides of the photo
LEVELS = 16  # levels of luma for which a palette has colours
SOFTNESS = 0.15  # standard deviation, in luma in [-1,1], of the weight of pixels near a level
MOST_STRETCH = 3.0  # largest factor on the spread of colours


def held_places(
    hints: Sequence[Hint] | Photo | None,
    keep_gray: Image.Image | None,
    size: tuple[int, int],
    seen: View,
    max_megapixels: float = MAX_PIXELS / 1e6,
    truncated: bool = False,
) -> KnownChroma:
    """Turn hints and the gray mask of a photo of `size` (width, height) into known chroma at working size.

    hints: a list, or a transparent picture with strokes of colour. A hint fixes its own pixel. Its weight
    falls with distance and with change of luma, so it colours the object that it lies on. keep_gray: mode L,
    of the photo's size, white where the photo stays gray. max_megapixels, truncated: for the picture of
    strokes, as in `open_gray`. Raises UsageError for a hint outside the photo and for a picture that does not
    fit.
    """
    h, w = (side // seen.scale for side in seen.y.shape[-2:])
    c, weight = torch.zeros(1, 2, h, w), torch.zeros(1, 1, h, w)
    if hints is not None:
        if reading.is_photo(hints):
            places = _strokes(hints, size, int(max_megapixels * 1e6), truncated)
        else:
            places = _points(cast(Sequence[Hint], hints), size)
        c, weight = _spread(_known(places, seen, (h, w)), F.avg_pool2d(seen.y, seen.scale), seen.extent)
    if keep_gray is not None:
        inside = (max(1, round(seen.extent[1])), max(1, round(seen.extent[0])))
        gray = (color.luma_tensor(keep_gray.resize(inside, Image.Resampling.BOX)) + 1) / 2
        gray = F.pad(gray, (0, w - inside[0], 0, h - inside[1]), mode="replicate")
        c, weight = c * (1 - gray), torch.maximum(weight, gray)
    return KnownChroma(c, weight)


def _known(places: Pixels, seen: View, shape: tuple[int, int]) -> Tensor:
    """The mean chroma of the hints in each chroma pixel (1,2,h,w), NaN where there is no hint."""
    (x, y, rgb, size), (h, w) = places, shape
    columns = np.minimum((x + 0.5) * seen.extent[1] / size[0], w - 1).astype(int)
    rows = np.minimum((y + 0.5) * seen.extent[0] / size[1], h - 1).astype(int)
    cells = torch.from_numpy(rows * w + columns)
    _, c = color.from_rgb(torch.from_numpy(rgb.T.astype(np.float32))[None, :, None] / 255)  # (1, 2, 1, N)
    count = torch.zeros(h * w).index_add(0, cells, torch.ones(len(cells)))
    return (torch.zeros(2, h * w).index_add(1, cells, c[0, :, 0]) / count).reshape(1, 2, h, w)


def _spread(known: Tensor, y: Tensor, extent: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Spread chroma (1,2,h,w), NaN where unknown, to all pixels. Returns it with its weight (1,1,h,w).

    A path is longer, the more luma y (1,1,h,w) changes along it. Each pixel takes the chroma of the hint with
    the shortest path, of length d, and the weight exp(-d^2/2).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    h, w = y.shape[-2:]
    cells = np.arange(h * w, dtype=np.int32).reshape(h, w)  # SciPy before 1.15 takes no others
    luma = y[0, 0].numpy().astype(np.float64)
    step = 1 / (REACH * min(extent))
    across = step + np.abs(np.diff(luma, axis=1)) / ALIKE
    down = step + np.abs(np.diff(luma, axis=0)) / ALIKE
    lengths = np.concatenate([across.ravel(), down.ravel()])
    begins = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    ends = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    paths = coo_array((lengths, (begins, ends)), shape=(h * w, h * w)).tocsr()
    flat = known.reshape(2, h * w)
    hinted = (~flat[0].isnan()).nonzero()[:, 0].numpy()
    if not len(hinted):
        return torch.zeros_like(known), torch.zeros_like(y)
    d, _, nearest = dijkstra(
        paths, directed=False, indices=hinted, min_only=True, return_predecessors=True
    )  # (h*w,) each
    weight = torch.from_numpy(np.exp(-(d**2) / 2)).float().reshape(1, 1, h, w)
    return flat[:, torch.from_numpy(nearest).long()].reshape(1, 2, h, w), weight


# x (N,), y (N,), rgb (N,3), and the size (width, height) of the picture they lie in
Pixels = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]


def _points(hints: Sequence[Hint], size: tuple[int, int]) -> Pixels:
    for x, y, rgb in hints:
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise UsageError(
                f"hint {x},{y} is outside the photo, whose pixels go from 0,0 to {size[0] - 1},{size[1] - 1}"
            )
        if len(rgb) != 3 or not all(0 <= level <= 255 for level in rgb):
            raise UsageError(f"hint {x},{y} has colour {rgb}: give red, green and blue from 0 to 255")
    numbers = np.array([(x, y, *rgb) for x, y, rgb in hints]).reshape(-1, 5)
    return numbers[:, 0], numbers[:, 1], numbers[:, 2:], size


def _strokes(hints: Photo, size: tuple[int, int], max_pixels: int, truncated: bool) -> Pixels:
    with reading.opened(hints, max_pixels, truncated) as opened:
        image = reading.develop(opened).image
    name = _name(hints, "the picture of hints")
    if "A" not in image.getbands():
        raise UsageError(f"{name} is not transparent: make it transparent except for the strokes of colour")
    _check_fit(image.size, size, name)
    pixels = np.asarray(image.convert("RGBA"))
    y, x = np.nonzero(pixels[..., 3] >= 128)
    if not len(x):
        raise UsageError(f"{name} is transparent everywhere: draw strokes of colour into it")
    return x, y, pixels[y, x, :3], image.size


def gray_mask(
    keep_gray: Photo, size: tuple[int, int], max_megapixels: float = MAX_PIXELS / 1e6, truncated: bool = False
) -> Image.Image:
    """Read a mask, white where the photo stays gray: mode L, resized to the photo's size (width, height).

    max_megapixels, truncated and errors: as in `open_gray`. Raises UsageError for a mask of another shape.
    """
    mask = open_gray(keep_gray, max_megapixels, truncated).luma
    _check_fit(mask.size, size, _name(keep_gray, "the mask"))
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _name(photo: Photo, otherwise: str) -> str:
    return str(photo) if isinstance(photo, (str, Path)) else otherwise


def _check_fit(size: tuple[int, int], photo: tuple[int, int], name: str) -> None:
    """Raise UsageError unless both sizes have the same shape, up to one pixel."""
    if any(abs(a * d - b * c) > max(a, b, c, d) for (a, b), (c, d) in [(size, photo)]):
        sizes = f"{size[0]}x{size[1]}, the photo {photo[0]}x{photo[1]}"
        raise UsageError(f"{name} does not fit: it is {sizes}; give it the shape of the photo")


class Palette:
    """The colours of a reference photo: mean and standard deviation of (Cb,Cr) at LEVELS levels of luma.

    `applied` transfers them as Reinhard et al. 2001, equations 10 and 11, but separately for each luma:
    c becomes (c - mean) * spread_ref / spread + mean_ref. Raises UsageError for a photo without colours.
    """

    def __init__(
        self, like: Photo, max_megapixels: float = MAX_PIXELS / 1e6, truncated: bool = False
    ) -> None:
        photo = reading.open_photo(like, int(max_megapixels * 1e6), truncated)
        photo.thumbnail((256, 256))
        y, c = color.from_rgb(color.rgb_tensor(photo))
        if c.abs().max() * color.CHROMA_UNIT < 4 / 255:
            raise UsageError(f"{_name(like, 'the photo to resemble')} has no colours: take one in colour")
        self.mean, self.spread = _by_luma(y, c)  # each (2, LEVELS)

    def applied(self, c: Tensor, y: Tensor) -> Tensor:
        """Give chroma c (B,2,h,w) of luma y (B,1,H,W) this palette's mean and spread at every luma."""
        y = F.avg_pool2d(y, y.shape[-1] // c.shape[-1])
        result = []
        for one_y, one_c in zip(y.split(1), c.split(1), strict=True):
            mean, spread = _by_luma(one_y, one_c)
            stretch = (self.spread / spread.clamp(min=1e-3)).clamp(max=MOST_STRETCH)
            result.append((one_c - _at(mean, one_y)) * _at(stretch, one_y) + _at(self.mean, one_y))
        return torch.cat(result)


def _by_luma(y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (2,LEVELS) of chroma c (1,2,h,w) where luma y (1,1,h,w) is near each level.

    If no pixel is near a level, the whole photo counts.
    """
    levels = torch.linspace(-1, 1, LEVELS)
    weight = torch.exp(-(((y.reshape(-1, 1) - levels) / SOFTNESS) ** 2) / 2) + 1e-3  # (h*w, LEVELS)
    weight = weight / weight.sum(dim=0)
    flat = c.reshape(2, -1)
    mean = flat @ weight
    return mean, (flat**2 @ weight - mean**2).clamp(min=0).sqrt()


def _at(table: Tensor, y: Tensor) -> Tensor:
    """Interpolate a table (2,LEVELS) linearly at luma y (1,1,h,w): (1,2,h,w)."""
    place = ((y[0, 0] + 1) / 2 * (LEVELS - 1)).clamp(0, LEVELS - 1)
    below = place.floor().long().clamp(max=LEVELS - 2)
    return torch.lerp(table[:, below], table[:, below + 1], place - below)[None]
