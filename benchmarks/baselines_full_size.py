"""The baselines colour photos of any size, each into its folder, for `photochrom evaluate --with`.

    python benchmarks/baselines_full_size.py PHOTOS coloured --data tiny-imagenet-200 --minutes 6

Skips what benchmarks/baselines.py has trained with the same settings, and files that exist: the same command
goes on. Each baseline gets a photo as a model without an encoder does, its shorter side as long as in
training; its chroma is laid over the photo's own luma. RGB diffusion is not among them: it draws luma as
well, at the size of its training, so it cannot colour a photo of another size.
"""

from __future__ import annotations

from pathlib import Path

import torch

from baselines import HOME, METHODS, configured, trained
from pages import parser_for
from photochrom import pictures
from photochrom.coloring.colorizer import photo_seed
from photochrom.coloring.photo import open_gray
from photochrom.coloring.upsampling import lay_over, view
from photochrom.commands.terminal import Display
from photochrom.data.dataset import find
from photochrom.evaluation.tools import photos_below
from photochrom.files import write_bytes

ABLE = [name for name in METHODS if name != "rgb-diffusion"]


def main() -> None:
    """Train what is not trained yet, and colour what is not coloured yet."""
    parser = parser_for(__doc__, data="demo")
    parser.add_argument("photos", type=Path)
    parser.add_argument("coloured", type=Path, help="gets a folder for each baseline")
    parser.add_argument("--minutes", type=float, default=20.0, help="processor minutes of training for each")
    parser.add_argument("--methods", nargs="*", choices=ABLE, default=ABLE)
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of diffusion models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", type=Path, default=HOME / "recipes" / "cpu-small.toml")
    parser.add_argument("--out", type=Path, default=Path("reports/baselines"), help="the trained weights")
    options = parser.parse_args()
    pack, files = find(options.data, options.data_dir, typed=True), photos_below(options.photos)
    config = configured([], options.recipe, options.seed, pack)
    options.out.mkdir(parents=True, exist_ok=True)
    for method in options.methods:
        training, _ = trained(method, config, pack, options.minutes, options.out)
        model = training.config.model
        with Display() as display:
            for done, (file, name) in enumerate(files.items()):
                display.show(done, len(files), f"{method}: {done + 1:,} of {len(files):,} photos")
                made = options.coloured / method / f"{name}.png"
                if made.exists():
                    continue
                luma = open_gray(file).luma
                seen = view(luma, pack.size, model.multiple, model.chroma_scale)
                gray = ((seen.y + 1) / 2).expand(-1, 3, -1, -1)
                with torch.inference_mode():
                    _, chroma = training.paint(gray, [photo_seed(luma, options.seed)], options.steps)
                made.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(made, pictures.png(lay_over(luma, seen, chroma)))


if __name__ == "__main__":
    main()
