"""Old photographs: ages luma as film, years and bad scans do, so that the network learns from such photos.

The photos that a model learns from are in colour, hence young: sharp, clean and rich in contrast. Old ones
are not.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from photochrom.diffusion.color import LUMA_WEIGHTS

ORTHOCHROMATIC = (0.05, 0.35, 0.6)  # film before about 1930 hardly recorded red: white skies, dark lips
STREAM = 4  # of random numbers
Array = npt.NDArray[np.float64]


def aged_luma(rgb: Tensor, y: Tensor, photos: npt.NDArray[np.int64], share: float) -> Tensor:
    """Luma y (B,1,H,W) in [-1,1], with a share of the photos aged.

    rgb: the same photos, (B,3,H,W) in [0,1]. photos: their numbers (B,), which alone decide which photos age,
    and how. So a photo looks the same in every epoch, and an encoder's features of it can be kept.
    """
    y = y.clone()
    for place, photo in enumerate(photos):
        random = np.random.default_rng((STREAM, int(photo)))
        if random.random() < share:
            y[place, 0] = torch.from_numpy(2 * age(rgb[place].cpu().double().numpy(), random) - 1)
    return y


def age(rgb: Array, random: np.random.Generator) -> Array:
    """A photo rgb (3,H,W) in [0,1] after film, lens, paper, years and scan: its luma (H,W) in [0,1].

    Each of six changes happens to every second photo.
    """
    happens = iter(random.random(6) < 0.5)
    weights = np.array(LUMA_WEIGHTS)
    if next(happens):
        weights += random.uniform(0, 1) * (np.array(ORTHOCHROMATIC) - weights)
    Y = np.tensordot(weights, rgb, 1)
    if next(happens):
        Y = from_image(to_image(Y).filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0))))
    if next(happens):
        Y = Y.clip(0) ** np.exp(random.uniform(-0.5, 0.5))  # contrast of the paper
    if next(happens):
        black, white = random.uniform(0, 0.25), random.uniform(0.75, 1)  # faded
        Y = black + (white - black) * Y
    if next(happens):
        Y = Y + random.uniform(0.01, 0.06) * random.standard_normal(Y.shape)  # grain
    if next(happens):
        file = io.BytesIO()
        to_image(Y).save(file, "JPEG", quality=int(random.integers(20, 80)))
        Y = from_image(Image.open(file))
    return Y.clip(0, 1)


def to_image(Y: Array) -> Image.Image:
    """Luma (H,W) in [0,1], clipped, as a Pillow image of mode L."""
    return Image.fromarray((Y.clip(0, 1) * 255).round().astype(np.uint8))


def from_image(image: Image.Image) -> Array:
    """The inverse of `to_image`."""
    return np.asarray(image, dtype=np.float64) / 255
