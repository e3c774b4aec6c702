"""Photos: from folders and archives into packed data sets that training reads without decoding."""

from photochrom.data.demo import make_demo
from photochrom.data.pack import SPLITS, ImportReport, Pack, contact_sheet, find, import_photos, summary
from photochrom.data.sources import LeftOut

__all__ = [
    "SPLITS",
    "ImportReport",
    "LeftOut",
    "Pack",
    "contact_sheet",
    "find",
    "import_photos",
    "make_demo",
    "summary",
]
