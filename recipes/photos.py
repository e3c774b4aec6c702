"""One data set of real photos from the public collections below.

    python recipes/photos.py ORIGINALS data/real128

ORIGINALS holds one folder for each source, named as in `SOURCES`, with the files of its repository. The same
rules judge every photo. Near-duplicates become a group, and a group lies in one split. Each source gives as
many photos to test and validation as the others, so that neither is mostly landscapes. A new source moves no
photo of the others into another split, but photos that look like its held-out ones are left out.

The photos are for research. Most collections name no licence; models that learnt from them say so in their
cards.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from photochrom.data.pack import new_pack
from photochrom.data.reading import open_photo
from photochrom.data.sources import LeftOut, checksum
from photochrom.errors import PhotochromError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A collection.

    most: most photos to train on; skip: paths to leave out; group: what photos of a group share; several:
    whether a photo to train on gives several squares.
    """

    repository: str
    shows: str
    licence: str
    most: int | None = None
    skip: str | None = None
    group: str | None = None
    several: bool = True


SOURCES = {
    "lsp": Source("axelcarlier/lsp", "people in and out of doors, sport", "none stated"),
    "everyday": Source("quantumnaan/sic_translator", "people in everyday scenes", "none stated"),
    "ccp": Source("bearpaw/clothing-co-parsing", "people full length, streets", "research"),
    "clothing": Source("alexeygrigorev/clothing-dataset", "clothes at home", "CC0", most=3000),
    "caltech101": Source(
        "MachineLearning2020/Homework2-Caltech101",
        "objects, animals, faces",
        "CC BY 4.0",
        # Drawings, cut-outs, and second copies.
        skip="BACKGROUND_Google|Faces_easy|snoopy|garfield|yin_yang|brontosaurus|stegosaurus|trilobite|dollar_bill|wrench|brain",
    ),
    "scenes": Source(
        "yadavaditya13/Image_Classification_Using_Deep_Learning",
        "streets, buildings, forest, mountain, sea, glacier",
        "none stated",
        most=14000,
    ),
    "houses": Source("emanhamed/Houses-dataset", "rooms, house fronts", "cite the paper", group=r"(\d+)_"),
    "bernie": Source(
        "BernieChen96/ImageClassification",
        "streets, vehicles, cats",
        "research",
        skip="^bernie/(?!JPEGImages/)",  # the others are the same photos, handled
    ),
    "pacs": Source(
        "MachineLearning2020/Homework3-PACS",
        "animals, houses, guitars",
        "research",
        skip="/person/|^pacs/PACS/(?!photo/)",  # the others are paintings and drawings
    ),
    "catsdogs": Source("quoctrung163/keras-cnn-on-cats-and-dogs-dataset", "cats, dogs", "none stated"),
    "grocery": Source("marcusklasson/GroceryStoreDataset", "fruit, vegetables, cartons", "MIT", most=3000),
    "weather": Source("ndb796/weather_dataset", "weather, skies", "none stated"),
    "faces": Source(
        "chandrikadeb7/Face-Mask-Detection",
        "faces, portraits",
        "MIT (the repository's)",
        skip="^faces/(?!dataset/without_mask/)",
    ),
    "masked": Source(
        "chandrikadeb7/Face-Mask-Detection",
        "people with masks",
        "MIT (the repository's)",
        skip="^masked/(?!dataset/with_mask/)",
    ),
    "portraits": Source(
        "prajnasb/observations",
        "portraits",
        "none stated",
        skip="^portraits/(?!experiements/data/without_mask/)|augmented",
    ),
    "humans": Source(
        "VikramShenoy97/Human-Segmentation-Dataset",
        "portraits, people in streets",
        "none stated",
        skip="^humans/(?!Training_Images/)",
    ),
    "coco": Source(
        "syf0122/COMP5329_Assignment02",
        "everyday scenes, people, animals, food (of COCO, it seems)",
        "none stated",
        several=False,
    ),
    "msed": Source(
        "MSEDdataset/MSED", "families, couples, people of all ages", "research, non-commercial", several=False
    ),
    "people": Source("brianhuster/human-dataset", "groups, streets, sport", "CC BY 4.0", several=False),
    "openpeople": Source(
        "bana513/DeepLearning_homework_4", "men and women (of Open Images)", "none stated", several=False
    ),
    "celebs": Source(
        "SimplePro/HairStyleTransformer",
        "faces of men (of CelebA-HQ, it seems)",
        "none stated",
        most=1500,
        several=False,
    ),
    "sports100": Source(
        "Vigneshraj15/SportsActivityDetection", "100 sports", "none stated", most=9000, several=False
    ),
    "sports": Source(
        "jurjsorinliviu/Sports-Type-Classifier", "22 sports", "none stated", most=3000, several=False
    ),
    "rooms": Source(
        "SilviuBR24/room-classification",
        "rooms (of Places365)",
        "MIT (the repository's)",
        most=9000,
        several=False,
    ),
    "sunedu": Source(
        "akshay993/Spatial-Pyramid-Matching-for-Scene-Classification",
        "galleries, gardens, libraries, sea (of SUN)",
        "MIT (the repository's)",
        several=False,
    ),
    "sunbis": Source(
        "colegulino/Spatial-Pyramid-Matching-for-Scene-Classification",
        "airports, bedrooms, deserts, rainforest (of SUN)",
        "none stated",
        several=False,
    ),
    "sunter": Source(
        "nhantd/CMU16720-Scene-Classification",
        "kitchens, auditoriums, sky (of SUN)",
        "none stated",
        several=False,
    ),
    "sunquad": Source(
        "Yorkbenno/Spatial-Pyramid-Matching-for-Scene-Classification",
        "highways, waterfalls, windmills (of SUN)",
        "none stated",
        several=False,
    ),
    "trucks": Source(
        "dhanush708/vehicle-classification-ai", "buses, trucks, ambulances", "none stated", several=False
    ),
    "vehicles": Source(
        "Vishnutpillai/Vehicle-Classification", "ships, trains, planes, bikes", "none stated", several=False
    ),
    "corelk": Source(
        "bolismauro/scene-classification",
        "people, beaches, monuments, animals (Corel)",
        "MIT (the repository's)",
        several=False,
    ),
    "street": Source(
        "liuyiran13/Optimizing_CBIR_for_Geolocation_Estimation",
        "street fronts of San Francisco",
        "none stated",
        several=False,
    ),
    "animalpose": Source(
        "mateusrafael4/Atividade_programacao_pose_estimation",
        "dogs, cats, horses, cows, sheep (of VOC, mostly)",
        "none stated",
        several=False,
    ),
    "species": Source(
        "savannahfung/animal-image-classification", "wild animals", "none stated", most=4000, several=False
    ),
    "animals": Source("nanase1025/animal_classification", "animals", "none stated", several=False),
    "pets": Source(
        "Kostyan0005/Oxford-Pet-Project",
        "cats and dogs (of Oxford-IIIT Pet)",
        "MIT (the repository's)",
        several=False,
    ),
    "monkeys": Source(
        "nikhildutta333/Monkey-Species-Classification", "monkeys in trees", "none stated", several=False
    ),
    "zoo": Source("nnfct/everland_animal_class", "animals of a zoo", "none stated", several=False),
    "flickr8k": Source(
        "RlNZLER/Image-Text-Matching",  # commit 56a15d91; later ones lack the photos
        "people, dogs, sport, streets (Flickr8k)",
        "research",
        several=False,
    ),
    "news": Source("duynhatran/cheapfake_detection", "people in the news", "none stated", several=False),
    "vietnam": Source(
        "coderaohong/testing-repo", "streets, markets, shops of Vietnam", "none stated", several=False
    ),
    "flowers102": Source(
        "kibru9399/Image-classifier",
        "flowers (of Oxford 102)",
        "none stated",
        most=3000,
        several=False,
    ),
    "flowers5": Source("Kounteyo98/Data", "flowers, fields", "none stated", most=2500, several=False),
    "plants9": Source("690993295/myproject-demo", "flowers, trees, gardens", "none stated", several=False),
    "mixed": Source(
        "youthinkk/image-retrieval", "animals, things, people, vehicles", "none stated", several=False
    ),
    "campus": Source(
        "ArunMekkad/Content-Based-Image-Retrieval", "things out of doors", "none stated", several=False
    ),
    "thaifood": Source(
        "Puridech/thai-food-recognition",
        "Thai dishes",
        "none stated",
        most=3000,
        skip="^thaifood/data/test_images/",  # second copies
        several=False,
    ),
    "crops": Source("sbh69840/dataset", "fields, fruit on the plant", "none stated", several=False),
    "cooking": Source("Anduin2017/HowToCook", "dishes, kitchens", "public domain", several=False),
}

# Limits for a photo, found by looking at the photos that they leave out.
SMALLEST = 120  # pixels of the shorter side
COLOURS = (
    3.0  # levels of chroma that luma does not explain; below, a photo is gray or tinted (sepia, faded film)
)
WHITE_SIDE = 0.95  # share of white pixels along a side; above, it is a frame or a cut-out
PLAIN_BORDER = 0.75  # share of outermost pixels of one colour; above, it is a cut-out or a drawing
FLAT = 0.5  # share of pixels equal to their neighbours; above, it is a drawing or a screenshot
NEAR = 4  # bits of 64 that differ between hashes; up to this, photos are the same or of one series
MOST_HELD_OUT = 0.15  # share of a source's photos in test, and as many in validation


class Looked(NamedTuple):
    """A photo's name below ORIGINALS, with its hash, or the reason to leave it out."""

    name: str
    hashed: int
    reason: str | None


def look(originals: Path, name: str) -> Looked:
    """Judge one photo."""
    try:
        with Image.open(originals / name) as image:
            if min(image.size) < SMALLEST:
                return Looked(name, 0, "too small")
            image.draft("RGB", (160, 160))
            small = image.convert("RGB")
    except Exception:  # Pillow raises a dozen types for broken bytes
        return Looked(name, 0, "broken")
    small.thumbnail((160, 160), Image.Resampling.BILINEAR)
    return Looked(name, difference_hash(small), fault(np.asarray(small)))


def fault(pixels: Pixels) -> str | None:
    """Why a photo (H,W,3) cannot teach colours; None if it can."""
    rgb = pixels.astype(np.float64)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    if unexplained((rgb[..., 0] - luma) / 1.402, (rgb[..., 2] - luma) / 1.772, luma) < COLOURS:
        return "gray or tinted"
    sides = [edge.reshape(-1, 3) for edge in (rgb[:2], rgb[-2:], rgb[:, :2], rgb[:, -2:])]
    if max((side.min(axis=1) > 244).mean() for side in sides) > WHITE_SIDE:
        return "white frame or cut-out"
    border = np.concatenate(sides)
    if (np.abs(border - np.median(border, axis=0)).max(axis=1) < 6).mean() > PLAIN_BORDER:
        return "plain border"
    steps = np.maximum(np.abs(np.diff(luma, axis=0))[:, 1:], np.abs(np.diff(luma, axis=1))[1:])
    return "flat areas" if (steps < 1).mean() > FLAT else None


def unexplained(
    cr: npt.NDArray[np.float64], cb: npt.NDArray[np.float64], luma: npt.NDArray[np.float64]
) -> float:
    """Root mean square of the chroma left after a linear fit to luma: near 0 for a tinted gray photo."""
    y = luma - luma.mean()
    left = 0.0
    for c in (cr, cb):
        around = c - c.mean()
        left += float(((around - y * (around * y).mean() / ((y * y).mean() + 1e-3)) ** 2).mean())
    return left**0.5


def difference_hash(image: Image.Image) -> int:
    """64 bits: which of 8 x 8 places are brighter than the one to their left (dHash)."""
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR)).astype(int)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def grouped(photos: list[Looked]) -> list[int]:
    """Each photo's group number. Photos share one if their hashes are near, or their names say so."""
    parent = list(range(len(photos)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    hashes = np.array([photo.hashed for photo in photos], dtype=np.uint64)
    for i in range(len(photos)):
        for j in np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= NEAR):
            parent[root(i + 1 + int(j))] = root(i)
    named: dict[str, int] = {}
    for i, photo in enumerate(photos):
        name = source_of(photo.name)
        if (pattern := SOURCES[name].group) and (match := re.search(pattern, Path(photo.name).name)):
            parent[root(i)] = root(named.setdefault(f"{name} {match[1]}", i))
    return [root(i) for i in range(len(photos))]


def split(photos: list[Looked], groups: list[int], test: int, validation: int) -> list[str | None]:
    """train, validation or test for each photo, or None beyond a source's `most`.

    Draws whole groups by their names. Of a test group, tests the photo drawn first and leaves out the others.
    """
    order = sorted(range(len(photos)), key=lambda i: hashlib.blake2b(photos[i].name.encode()).digest())
    order.sort(key=lambda i: list(SOURCES).index(source_of(photos[i].name)))
    sources = Counter(source_of(photo.name) for photo in photos)
    found: list[str | None] = ["train"] * len(photos)
    taken: set[int] = set()  # groups that are held out
    for part, count in (("test", test), ("validation", validation)):
        each = {name: min(count, int(MOST_HELD_OUT * total)) for name, total in sources.items()}
        for i in order:
            name = source_of(photos[i].name)
            if each[name] and groups[i] not in taken:
                taken.add(groups[i])
                found[i] = part
                each[name] -= 1
    left = {name: source.most for name, source in SOURCES.items()}
    for i in order:
        name = source_of(photos[i].name)
        if found[i] != "train":
            continue
        most = left[name]
        if groups[i] in taken or most == 0:
            found[i] = None
        elif most is not None:
            left[name] = most - 1
    return found


def crops(image: Image.Image, size: int, several: bool) -> Iterator[Pixels]:
    """Squares of `size` pixels from the middle.

    several: also from both ends of a long photo, and a close-up of a large one.
    """
    width, height = image.size
    side = min(width, height)
    boxes = [((width - side) // 2, (height - side) // 2, side)]
    if several and max(width, height) > 1.25 * side:
        boxes = [(0, 0, side), (width - side, height - side, side)]
    if several and side >= 2 * size:
        closer = int(0.65 * side)
        boxes.append(((width - closer) // 2, (height - closer) // 3, closer))
    for x, y, length in boxes:
        box = (x, y, x + length, y + length)
        yield np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def cut(originals: Path, size: int, job: tuple[str, str]) -> list[Pixels]:
    """The squares of one photo; several of a training photo, if its source gives several."""
    name, part = job
    several = part == "train" and SOURCES[source_of(name)].several
    try:
        return list(crops(open_photo(originals / name).convert("RGB"), size, several))
    except PhotochromError:
        return []


def names_below(originals: Path) -> Iterator[str]:
    """All photos in the sources' folders, sorted."""
    for name, source in SOURCES.items():
        for path in sorted((originals / name).rglob("*")):
            inside = path.relative_to(originals).as_posix()
            if path.suffix.lower() in SUFFIXES and not (source.skip and re.search(source.skip, inside)):
                yield inside


def source_of(name: str) -> str:
    """A photo's source, by its name below ORIGINALS."""
    return name.split("/", 1)[0]


def table(photos: Iterable[Looked], parts: dict[str, str]) -> str:
    """Counts for each source, as Markdown."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        rows[source_of(photo.name)][photo.reason or parts.get(photo.name, "beyond its share")] += 1
    columns = ("train", "validation", "test")
    lines = ["| source | shows | licence | " + " | ".join(columns) + " | left out |", "|---" * 7 + "|"]
    for name, counts in rows.items():
        out = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common() if reason not in columns)
        source = SOURCES[name]
        numbers = " | ".join(f"{counts[column]:,}" for column in columns)
        lines.append(f"| {source.repository} | {source.shows} | {source.licence} | {numbers} | {out} |")
    return "\n".join(lines)


def main() -> None:
    """Judge, group, split, cut and pack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("originals", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--size", type=int, default=128, help="side of the squares in pixels")
    parser.add_argument(
        "--test", type=int, default=60, help="photos of each source for testing, which no choice may see"
    )
    parser.add_argument(
        "--validation", type=int, default=27, help="photos of each source for validation, to choose by"
    )
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        looked = list(
            pool.map(partial(look, options.originals), names_below(options.originals), chunksize=64)
        )
        usable = [photo for photo in looked if photo.reason is None]
        groups = grouped(usable)
        found = split(usable, groups, options.test, options.validation)
        parts = {photo.name: part for photo, part in zip(usable, found, strict=True) if part}
        group_of = {photo.name: group for photo, group in zip(usable, groups, strict=True)}
        names = ("split", "label", "origin", "checksum", "group")
        columns: dict[str, list[object]] = {name: [] for name in names}
        first: dict[int, int] = {}  # each group's first square
        labels = {name: number for number, name in enumerate(SOURCES)}
        with new_pack(options.destination, options.size, overwrite=options.overwrite) as (file, index):
            squares = pool.map(
                partial(cut, options.originals, options.size), sorted(parts.items()), chunksize=16
            )
            for (name, part), several in zip(sorted(parts.items()), squares, strict=True):
                for pixels in several:
                    file.write(pixels.tobytes())
                    group = first.setdefault(group_of[name], len(columns["group"]))
                    row = (part, labels[source_of(name)], name, checksum(pixels), group)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
            left_out = [LeftOut(photo.name, photo.reason) for photo in looked if photo.reason]
            index |= {"source": options.originals.name, "seed": 0, "left_out": left_out}
            index |= {"categories": list(labels), "photos": columns}
    print(table(looked, parts))
    print({part: columns["split"].count(part) for part in ("train", "validation", "test")})


if __name__ == "__main__":
    main()
