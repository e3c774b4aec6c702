"""How far convolutions in bfloat16 change colours, beside how far another seed does.

    python benchmarks/precision.py MODEL --data tiny-imagenet-200 [--photos 200]
                                                            # writes docs/measurements/precision.md

Colours the same validation photos in float32, in bfloat16 with the same seed, and in float32 with the next
seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pages import MEASUREMENTS, parser_for, write_figures, written_by
from photochrom import model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.data.dataset import find
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.evaluation import metrics
from photochrom.precision import convolve_in_bfloat16

REPORT = MEASUREMENTS / "precision.md"
Array = npt.NDArray[np.float64]


def loaded(model: str, *, rounded: bool) -> Colorizer:
    """The model on the processor, in float32 or with convolutions in bfloat16, whichever is faster here."""
    weights = model_folder.find_model(model, Path("models")) / model_folder.WEIGHTS
    config, tensors = model_folder.read_weights(weights)
    colorizer = Colorizer(config, UNet.load(config.model, tensors, weights), device="cpu")
    colorizer.network.load_state_dict(tensors, assign=True)
    colorizer.encoder = Encoder.of(config.model)
    if rounded:
        convolve_in_bfloat16(colorizer.network)
        if colorizer.encoder:
            convolve_in_bfloat16(colorizer.encoder)
    return colorizer


def lab(photos: list[Image.Image]) -> Array:
    """CIELAB (B,H,W,3)."""
    return metrics.lab(np.stack([np.asarray(photo) for photo in photos]) / 255)


def row(name: str, apart: Array) -> str:
    """A line of the table, of distances (B,H,W)."""
    far = np.percentile(apart, 99.9)
    return f"| {name} | {apart.mean():.2f} | {far:.1f} | {apart.mean(axis=(1, 2)).max():.2f} |"


def main() -> None:
    """Colour, compare and write."""
    parser = parser_for(__doc__, data="")
    parser.add_argument("model")
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    data = find(options.data, Path("data"))
    rgb = data.rgb(data.drawn("validation", options.photos, 0)).permute(0, 2, 3, 1).numpy()
    photos = [Image.fromarray((photo * 255).round().astype(np.uint8)) for photo in rgb]
    grays = [photo.convert("L") for photo in photos]
    exact, rounded = (loaded(options.model, rounded=rounded) for rounded in (False, True))
    true, first = lab(photos), lab(exact(grays))
    second, other = lab(rounded(grays)), lab(exact(grays, seed=1))
    ways = {"in float32": first, "in bfloat16": second, "in float32, another seed": other}
    table = [row(name, metrics.ab_distance(first, found)) for name, found in list(ways.items())[1:]]
    errors = [f"{metrics.ab_distance(found, true).mean():.2f} {name}" for name, found in ways.items()]
    text = f"""
| coloured again | mean distance | 99.9 % of pixels are below | the worst photo's mean |
|---|---|---|---|
{chr(10).join(table)}

Mean distance to the true colours: {", ".join(errors)}.

{written_by(f"precision.py {options.model} --data {data.name} --photos {options.photos}")}: {len(photos)}
validation photos, coloured once in float32, and again as the table says. Distances are in CIELAB (a,b),
where 2.3 is a just noticeable difference.
"""
    write_figures(REPORT, text)
    print(text)


if __name__ == "__main__":
    main()
