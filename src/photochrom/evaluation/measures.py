"""The measures of a report: their names, units, directions, and a sentence that makes each one understood."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a measure is called and read.

    It is scale * (sum of the column of its own name) / (sum of the column `count`, or the number of photos).
    """

    title: str
    unit: str
    better: int  # -1: lower, 1: higher, 0: nearer to the true photos'
    digits: int  # after the point
    meaning: str
    count: str | None = None
    scale: float = 1.0
    resolution: float = (
        0.005  # share of a value below which differences say nothing: strengths are read off no finer
    )


MEASURES: dict[str, Measure] = {
    "colorfulness": Measure(
        "colourfulness",
        "",
        0,
        1,
        "How colourful the photos look to people: 0 is gray, true photos have about 40. Compare it with the truth's.",
    ),
    "ab": Measure(
        "colour distance",
        "ΔE",
        -1,
        2,
        "How far colours are from the true ones, lightness left aside. 2 is just visible. Gray is not far from anything, "
        "so a low value alone proves nothing.",
    ),
    "ciede2000": Measure(
        "CIEDE2000",
        "ΔE00",
        -1,
        2,
        "The same distance, weighted as the eye sees it, lightness included. 1 is just visible.",
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
        "Share of almost black pixels that got a visible colour (C* over 15) though they truly have none (C* under 8).",
        "dark_pixels",
        scale=100.0,
        resolution=0.05,
    ),
    "dark_chroma": Measure(
        "dark chroma",
        "C*",
        0,
        1,
        "How much colour the almost black pixels got. Compare it with the truth's.",
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
        "How much colour the shadows got. Compare it with the truth's.",
        "dim_pixels",
    ),
    "psnr": Measure(
        "PSNR",
        "dB",
        1,
        2,
        "Likeness pixel by pixel, mean over photos. Favours pale colours, as every error does.",
        resolution=0.001,
    ),
    "ssim": Measure(
        "SSIM",
        "",
        1,
        3,
        "Likeness of fine structure, 1 is equal. Luma is given, so all models are high here.",
        resolution=0.001,
    ),
    "pd_vgg16": Measure(
        "perceptual distance",
        "",
        -1,
        3,
        "How different the photos look to VGG16, a network that recognises objects (unweighted kin of LPIPS). Models "
        "trained with the perceptual loss are flattered by it.",
        "vgg_photos",
    ),
    "diversity": Measure(
        "diversity",
        "ΔE",
        0,
        1,
        "How far apart several colourings of one photo are. 0: always the same answer.",
        "diversity_photos",
    ),
}
SET_MEASURES: dict[str, Measure] = {
    "fd_vgg16": Measure(
        "FD-VGG16",
        "thousands",
        -1,
        0,
        "How unlike true photos the photos are as a set, in textures and colours that VGG16 sees (Frechet distance). It "
        "depends on the number of photos: compare within one report only.",
        scale=1e-3,
    ),
    "fid": Measure(
        "FID",
        "",
        -1,
        1,
        "The same with Inception's features, as in papers. It depends on the number of photos, too.",
    ),
}
