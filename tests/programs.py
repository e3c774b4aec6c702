"""Other people's programs that tests ask for a second opinion."""

from __future__ import annotations

import shutil
import subprocess


def imagemagick() -> str | None:
    """The path of ImageMagick's program, or None. Others are called `convert` too: it says its name."""
    for name in ("magick", "convert"):
        if path := shutil.which(name):
            said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stdout
            if said.startswith("Version: ImageMagick"):
                return path
    return None
