"""Measures of coloured photos, as pure functions of batches of pictures.

Pictures are float32 arrays (B,H,W,3), RGB in [0,1]. "Lab" is CIELAB of sRGB under D65: L* in [0,100], a* and
b* in about [-110,110]; C* = sqrt(a*^2 + b*^2) is chroma. Functions return one number per photo, or sums and
counts over the pixels of each photo, so that a mean over pixels can be bootstrapped over photos.

Lab, CIEDE2000 and SSIM come from scikit-image. torchmetrics has PSNR and SSIM too, but it averages over
photos, and takes 5 s to import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor

from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError

Array = npt.NDArray[Any]

DARK, DIM = (0.0, 15.0), (15.0, 40.0)  # true L*: almost black; shadows
FALSE_COLOR, TRULY_GRAY = 15.0, 8.0  # C* that the eye sees at a glance; C* that looks gray
MAX_PSNR = 60.0  # PSNR of equal pictures is infinite; 60 dB is a quarter of a level of 255
FRECHET_LAYER = "relu3_3"
INCEPTION_SHA256 = "6726825d"  # first digits, as in the file's name
LUMA_BINS, CHROMA_BINS = np.arange(0, 101, 5.0), np.arange(0, 121, 4.0)


def lab(rgb: Array) -> Array:
    """CIELAB (B,H,W,3) of RGB (B,H,W,3)."""
    return np.asarray(rgb2lab(rgb))


def ab_distance(lab1: Array, lab2: Array) -> Array:
    """sqrt(da*^2 + db*^2) of each pixel: (...,3), (...,3) -> (...)."""
    return np.asarray(np.hypot(lab1[..., 1] - lab2[..., 1], lab1[..., 2] - lab2[..., 2]))


def ciede2000(lab1: Array, lab2: Array) -> Array:
    """CIEDE2000 of each pixel: (...,3), (...,3) -> (...). Source: Sharma, Wu & Dalal 2005 (scikit-image)."""
    return np.asarray(deltaE_ciede2000(lab1, lab2))  # type: ignore[no-untyped-call]


def chroma(lab: Array) -> Array:
    """C* of each pixel: (...,3) -> (...)."""
    return np.asarray(np.hypot(lab[..., 1], lab[..., 2]))


def colorfulness(rgb: Array) -> Array:
    """sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2) with R, G, B from 0 to 255: (B,H,W,3) -> (B,).

    rg = R - G and yb = (R + G) / 2 - B are signed; s is their standard deviation over the photo, m their
    mean. Source: Hasler & Suesstrunk 2003, equations for M(3).
    """
    return _colorfulness(_opponent_sums(rgb), rgb.shape[1] * rgb.shape[2])


def _opponent_sums(rgb: Array) -> dict[str, Array]:
    red, green, blue = np.moveaxis(255 * np.asarray(rgb, dtype=np.float64), -1, 0)  # each (B, H, W)
    rg, yb = red - green, (red + green) / 2 - blue
    values = {"rg": rg, "yb": yb, "rg_squared": rg * rg, "yb_squared": yb * yb}
    return {name: value.sum(axis=(1, 2)) for name, value in values.items()}


def _colorfulness(sums: dict[str, Array], pixels: int | Array) -> Array:
    means = {name: sums[name] / pixels for name in ("rg", "yb", "rg_squared", "yb_squared")}
    offset = means["rg"] ** 2 + means["yb"] ** 2
    spread = means["rg_squared"] + means["yb_squared"] - offset
    return np.asarray(np.sqrt(spread.clip(0)) + 0.3 * np.sqrt(offset))


def psnr(rgb: Array, true: Array) -> Array:
    """-10 log10 of the mean squared difference, in dB, at most MAX_PSNR: (B,H,W,3) -> (B,)."""
    return _psnr(np.square(rgb - true, dtype=np.float64).mean(axis=(1, 2, 3)))


def _psnr(error: Array) -> Array:
    return np.asarray(-10 * np.log10(np.maximum(error, 10 ** (-MAX_PSNR / 10))))


def ssim(rgb: Array, true: Array) -> Array:
    """Structural similarity with a Gaussian window of 1.5 pixels, mean over the channels: (B,H,W,3) -> (B,).

    Source: Wang et al. 2004, in scikit-image.
    """
    # scikit-image leaves out a border of half a window: 11 pixels would leave nothing of small photos.
    window = min(11, (min(rgb.shape[1:3]) - 1) // 2 * 2 + 1)
    options: dict[str, Any] = {
        "win_size": window, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False,
        "data_range": 1.0, "channel_axis": -1,
    }  # fmt: skip
    return np.array([structural_similarity(*pair, **options) for pair in zip(rgb, true, strict=True)])  # type: ignore[no-untyped-call]


def false_color(lab: Array, true_lab: Array) -> Array:
    """Mask of pixels with C* > FALSE_COLOR where the truth has C* < TRULY_GRAY: (...,3), (...,3) -> (...)."""
    return np.asarray((chroma(lab) > FALSE_COLOR) & (chroma(true_lab) < TRULY_GRAY))


def dark_sums(lab: Array, true_lab: Array, band: tuple[float, float]) -> dict[str, Array]:
    """Sums over the pixels whose true L* is in band = [low, high): each (B,).

    pixels: their number; error: (a,b) distance; chroma: C*; false_color: the number with a false colour.
    """
    inside = (true_lab[..., 0] >= band[0]) & (true_lab[..., 0] < band[1])
    c, false = chroma(lab), inside & false_color(lab, true_lab)
    values = {
        "pixels": inside,
        "error": ab_distance(lab, true_lab) * inside,
        "chroma": c * inside,
        "false_color": false,
    }
    return {name: value.sum(axis=(1, 2), dtype=np.float64) for name, value in values.items()}


def pixel_sums(rgb: Array, true: Array, true_lab: Array) -> dict[str, Array]:
    """The sums over pixels for `photo_columns`, each (B,). Sums of the parts of a photo can be added."""
    found = lab(rgb)
    dark, dim = dark_sums(found, true_lab, DARK), dark_sums(found, true_lab, DIM)
    return {
        "all_pixels": np.full(len(rgb), rgb.shape[1] * rgb.shape[2], dtype=np.float64),
        "ab": ab_distance(found, true_lab).sum(axis=(1, 2), dtype=np.float64),
        "ciede2000": ciede2000(found, true_lab).sum(axis=(1, 2), dtype=np.float64),
        "squared_error": np.square(rgb - true, dtype=np.float64).sum(axis=(1, 2, 3)) / 3,
        **_opponent_sums(rgb),
        **{f"dark_{name}": dark[name] for name in ("pixels", "error", "chroma")},
        **{f"dim_{name}": dim[name] for name in ("pixels", "error", "chroma")},
        "false_color": dark["false_color"],
    }


def photo_columns(sums: dict[str, Array]) -> dict[str, Array]:
    """The columns of `MEASURES` that are measured at every strength, and their counts, each (B,)."""
    pixels = sums["all_pixels"]
    return {
        "colorfulness": _colorfulness(sums, pixels),
        "ab": sums["ab"] / pixels,
        "ciede2000": sums["ciede2000"] / pixels,
        "psnr": _psnr(sums["squared_error"] / pixels),
        **{name: value for name, value in sums.items() if name.startswith(("dark_", "dim_"))},
        "false_color": sums["false_color"],
    }


def chroma_by_luma(lab: Array) -> Array:
    """Histogram of L* and C*: numbers of pixels (20,30) in LUMA_BINS and CHROMA_BINS."""
    highest = CHROMA_BINS[-1] - 1e-3
    counts, _, _ = np.histogram2d(
        lab[..., 0].ravel().clip(0, 100), chroma(lab).ravel().clip(0, highest), (LUMA_BINS, CHROMA_BINS)
    )
    return np.asarray(counts)


def diversity(labs: Array) -> Array:
    """Mean (a,b) distance over all pairs of S >= 2 samples of each photo: (S,B,H,W,3) -> (B,)."""
    pairs = [(i, j) for i in range(len(labs)) for j in range(i)]
    return np.asarray(np.mean([ab_distance(labs[i], labs[j]).mean(axis=(1, 2)) for i, j in pairs], axis=0))


def perceptual_distance(features: dict[str, Tensor], true: dict[str, Tensor]) -> Array:
    """Sum over layers of the mean over pixels of |f/|f| - g/|g||^2, where |.| is over the channels: (B,).

    Source: Zhang et al. 2018, equation 1, with all weights 1. With all layers of VGG16 it is `pd_vgg16`.
    """

    def unit(map: Tensor) -> Tensor:
        return torch.nn.functional.normalize(map, dim=1, eps=1e-10)

    layers = [
        (unit(found) - unit(true[name])).square_().sum(dim=1).mean(dim=(1, 2))
        for name, found in features.items()
    ]
    return torch.stack(layers).sum(dim=0).cpu().double().numpy()


@torch.inference_mode()
def vgg_features(vgg: VGG16, rgb: Array) -> dict[str, Tensor]:
    """VGG16's features of pictures (B,H,W,3): {layer: (B,C,h,w)} for all five layers."""
    device = next(vgg.parameters()).device
    found: dict[str, Tensor] = vgg(torch.from_numpy(rgb).permute(0, 3, 1, 2).to(device))
    return found


def frechet_features(features: dict[str, Tensor]) -> Array:
    """The features of `fd_vgg16`: relu3_3 averaged over pixels, (B,256) float64.

    This layer separates best: 512 true photos are 10 times as far from gray ones as from 512 other true ones
    (relu4_3: 2 times; relu5_3: no farther). With 256 channels, 500 photos give a covariance of full rank.
    """
    return features[FRECHET_LAYER].mean(dim=(2, 3)).cpu().double().numpy()


class Moments:
    """Count, sum and sum of products of features (N,D). Those of a part can be subtracted again."""

    def __init__(self, features: Array) -> None:
        self.count, self.total, self.products = len(features), features.sum(axis=0), features.T @ features

    def without(self, part: Moments) -> Moments:
        """The moments of all features except a part's."""
        rest = Moments(np.empty((0, len(self.total))))
        rest.count, rest.total = self.count - part.count, self.total - part.total
        rest.products = self.products - part.products
        return rest

    def mean_and_covariance(self) -> tuple[Array, Array]:
        """Mean (D,) and unbiased covariance (D,D); they need two photos."""
        mean = self.total / self.count
        return mean, (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2).

    Source: Dowson & Landau 1982; Heusel et al. 2017, equation 6.
    """
    (m1, s1), (m2, s2) = first.mean_and_covariance(), second.mean_and_covariance()
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    return max(0.0, float(np.square(m1 - m2).sum() + np.trace(s1) + np.trace(s2) - 2 * overlap))


def load_inception(weights: Path) -> Callable[[Array], Array]:
    """Load torch-fidelity's network for FID: a function from pictures (B,H,W,3) to features (B,2048) float64.

    weights: its `weights-inception-2015-12-05-6726825d.pth`. Raises PhotochromError for any other file, and
    without the library.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            FeatureExtractorInceptionV3,
        )
    except ImportError:
        raise PhotochromError(
            "FID needs torch-fidelity: pip install 'photochrom[fid]', or leave FID out"
        ) from None
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise PhotochromError(
            f"Inception weights {weights} cannot be read: {error.strerror}; give that file, or leave FID out"
        ) from None
    if not hashlib.sha256(content).hexdigest().startswith(INCEPTION_SHA256):
        raise PhotochromError(
            f"{weights} is not torch-fidelity's weights-inception-2015-12-05-6726825d.pth, which FID needs"
        )
    # torch-fidelity would unpickle anything in the file, so it gets a copy with nothing but plain tensors.
    copy = BytesIO()
    torch.save(torch.load(BytesIO(content), map_location="cpu", weights_only=True), copy)
    copy.seek(0)
    net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)

    def features(rgb: Array) -> Array:
        levels = torch.from_numpy((rgb * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return np.asarray(net(levels)[0].double().numpy())

    return features


@dataclass(frozen=True)
class Measure:
    """A measure: its name, how to read it, and how to compute it from columns.

    Its value is scale * (sum of the column of its name) / (sum of the column `count`, or the number of
    photos).
    """

    title: str
    unit: str
    better: int  # -1: lower, 1: higher, 0: nearer to the true photos'
    digits: int  # after the point
    meaning: str
    count: str | None = None
    scale: float = 1.0
    resolution: float = 0.005  # smallest difference, as a share of the value, that means anything


MEASURES: dict[str, Measure] = {
    "colorfulness": Measure(
        "colourfulness",
        "",
        0,
        1,
        "How colourful the photos look to people: 0 is gray, true photos have about 40. Compare it with "
        "the truth's.",
    ),
    "ab": Measure(
        "colour distance",
        "ΔE",
        -1,
        2,
        "How far colours are from the true ones, without lightness. 2 is just visible. Gray is never far "
        "from the truth, so a low value alone proves nothing.",
    ),
    "ciede2000": Measure(
        "CIEDE2000",
        "ΔE00",
        -1,
        2,
        "The same distance with lightness, weighted as the eye sees it. 1 is just visible.",
    ),
    "dark_error": Measure(
        "dark error",
        "ΔE",
        -1,
        2,
        "Colour distance where the true photo is almost black (L* under 15).",
        "dark_pixels",
    ),
    "false_color": Measure(
        "false colour",
        "%",
        -1,
        1,
        "Share of almost black pixels with a visible colour (C* over 15) where the truth has none (C* "
        "under 8).",
        "dark_pixels",
        scale=100.0,
        resolution=0.05,
    ),
    "dark_chroma": Measure(
        "dark chroma",
        "C*",
        0,
        1,
        "How much colour the almost black pixels have. Compare it with the truth's.",
        "dark_pixels",
    ),
    "dim_error": Measure(
        "shadow error",
        "ΔE",
        -1,
        2,
        "Colour distance in the shadows (L* from 15 to 40).",
        "dim_pixels",
    ),
    "dim_chroma": Measure(
        "shadow chroma",
        "C*",
        0,
        1,
        "How much colour the shadows have. Compare it with the truth's.",
        "dim_pixels",
    ),
    "psnr": Measure(
        "PSNR",
        "dB",
        1,
        2,
        "Similarity pixel by pixel, averaged over photos. Like every error, it favours pale colours.",
        resolution=0.001,
    ),
    "ssim": Measure(
        "SSIM",
        "",
        1,
        3,
        "Similarity of fine structure; 1 means equal. Luma is given, so every model scores high.",
        resolution=0.001,
    ),
    "pd_vgg16": Measure(
        "perceptual distance",
        "",
        -1,
        3,
        "How different the photos look to VGG16, a network that recognises objects (LPIPS without "
        "weights). It flatters models that were trained with the perceptual loss.",
        "vgg_photos",
    ),
    "diversity": Measure(
        "diversity",
        "ΔE",
        0,
        1,
        "How far apart several colourings of one photo are. 0 means that they are all the same.",
        "diversity_photos",
    ),
}
SET_MEASURES: dict[str, Measure] = {
    "fd_vgg16": Measure(
        "FD-VGG16",
        "thousands",
        -1,
        0,
        "How much the photos, as a set, differ from true ones in the textures and colours that VGG16 sees "
        "(Fréchet distance). It depends on the number of photos: compare only within one report.",
        scale=1e-3,
    ),
    "fid": Measure(
        "FID",
        "",
        -1,
        1,
        "The same with Inception's features, as in papers. It depends on the number of photos too.",
    ),
}
ALL_MEASURES = MEASURES | SET_MEASURES
