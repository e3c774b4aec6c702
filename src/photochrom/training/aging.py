"""Old photographs: luma as film, years and bad scans leave it, so that a network has seen such photos before.

Photos to learn from are in colour, so they are young: sharp, clean and of full contrast. Boxes of old ones are not.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from photochrom.diffusion.color import LUMA_WEIGHTS

ORTHOCHROMATIC = (0.05, 0.35, 0.6)  # film before about 1930 hardly saw red: skies white, lips dark
STREAM = 4  # of random numbers
Array = npt.NDArray[np.float64]


def aged_luma(rgb: Tensor, y: Tensor, photos: npt.NDArray[np.int64], share: float) -> Tensor:
    """Luma y (B,1,H,W) in [-1,1], with a share of the photos aged.

    rgb: the same photos, (B,3,H,W) in [0,1]; photos: their numbers (B,), which alone decide which photos are aged, and how:
    the same in every epoch, so that what an encoder sees in them can be kept.
    """
    y = y.clone()
    for place, photo in enumerate(photos):
        random = np.random.default_rng((STREAM, int(photo)))
        if random.random() < share:
            y[place, 0] = torch.from_numpy(2 * age(rgb[place].cpu().double().numpy(), random) - 1)
    return y


def age(rgb: Array, random: np.random.Generator) -> Array:
    """What is left of a photo rgb (3,H,W) in [0,1] after film, lens, paper, years and scan: luma (H,W) in [0,1].

    Each of the six happens to every second photo.
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
    """The reverse of `to_image`."""
    return np.asarray(image, dtype=np.float64) / 255
