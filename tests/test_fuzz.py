"""Files broken at random: each is read, or refused in one line, and none crashes, hangs or fills the memory.

`make test` tries each a hundred times, `make fuzz` ten thousand times, and says how many inputs there were.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import struct
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import photochrom
from photochrom import model_folder
from photochrom.coloring import manifest
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Hint
from photochrom.commands.cli import app
from photochrom.config import Config, build, read_recipe
from photochrom.data.reading import open_photo
from photochrom.data.sources import LeftOut, Photo, Source, read_photo
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import EVALUATION, ModelFolder
from photochrom.server.catalogue import Catalogue

Record = Callable[[str, object], None]
SHIPPED = Path(photochrom.__file__).parent / "weights"
HISTORIES = sorted(SHIPPED.glob("*/training_history.json"))
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
MEMORY_MB = 400  # that trying may take at most, on top of what was taken before


def fuzz(inputs: st.SearchStrategy[Any], check: Callable[[Any], str], record: Record) -> None:
    """Check inputs as many as the profile says; `check` says in a word what became of each."""
    outcomes: dict[str, int] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @given(inputs)
    def run(value: Any) -> None:
        word = check(value)
        outcomes[word] = outcomes.get(word, 0) + 1

    run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEMORY_MB
    record("tries", sum(outcomes.values()))
    told = ", ".join(f"{count:,} {word}" for word, count in sorted(outcomes.items()))
    record("outcome", told)


def one_line(error: PhotochromError) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000
    return "refused in one line"


@st.composite
def broken(draw: st.DrawFn, wholes: tuple[bytes, ...]) -> bytes:
    """A file with some bytes changed; now and then with some cut out, put in, or missing at the end."""
    content = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 4))):
        end = draw(st.sampled_from([min(64, len(content)), len(content)]))  # its beginning says what it is
        place = draw(st.integers(0, max(0, end - 1)))
        new = draw(st.binary(min_size=1, max_size=4))
        old = len(new) if draw(st.integers(0, 3)) else draw(st.integers(0, 8))
        content[place : place + old] = new
    if not draw(st.integers(0, 7)):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


# --- Photos -------------------------------------------------------------------------------------------------


@cache
def photos() -> tuple[bytes, ...]:
    """A small photo in every format and mode that matters."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    deep = Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 130)
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, form, {}) for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
    ]
    made += [
        (rgb, "JPEG", {"progressive": True, "exif": exif}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (rgb.convert("RGBA"), "PNG", {}),
        (deep, "PNG", {}),
        (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
    ]
    contents = []
    for image, form, options in made:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        contents.append(stream.getvalue())
    return tuple(contents)


@pytest.mark.fault("broken photo, in an import", "")
def test_photos_in_an_import(record_property: Record) -> None:
    def check(content: bytes) -> str:
        source = Source("album", [], {}, [], lambda origin: io.BytesIO(content))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # as `import_photos` does
            found = read_photo(source, Photo("a.jpg"), 16)
        if isinstance(found, LeftOut):
            assert "\n" not in found.detail
            return f"left out as {found.reason}"
        assert found[0].shape == (16, 16, 3)
        return "read"

    fuzz(broken(photos()), check, record_property)


@pytest.mark.fault("broken photo, to be coloured", "")
def test_photos_to_be_coloured(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "photo.jpg"

    def check(content: bytes) -> str:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata
            try:
                assert open_photo(path).mode in ("L", "RGB")
            except PhotochromError as error:
                return one_line(error)
        return "read"

    fuzz(broken(photos()), check, record_property)


# --- Hints --------------------------------------------------------------------------------------------------


@pytest.mark.fault("broken hint", "")
def test_hints(record_property: Record) -> None:
    def check(text: str) -> str:
        try:
            x, y, rgb = Hint.parse(text)
        except UsageError as error:
            return one_line(error)
        assert min(x, y, *rgb) >= 0
        assert max(rgb) <= 255
        return "read"

    numbers = st.integers().map(str) | st.just("9" * 5000)
    typed = st.tuples(numbers, numbers, st.text("#0123456789abcdefABCDEF ", max_size=9)).map(",".join)
    fuzz(typed | st.text(max_size=30), check, record_property)


# --- Recipes ------------------------------------------------------------------------------------------------

WORDS = (
    "model",
    "stages",
    "features",
    "epochs",
    "perceptual",
    "learning_rate",
    "name",
    "gan",
    "prediction",
    "data",
    "x",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


def configured(values: Any) -> str:
    try:
        assert isinstance(build(values), Config)
    except UsageError as error:
        return one_line(error)
    return "taken"


@pytest.mark.fault("broken recipe", "")
def test_recipes(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "recipe.toml"

    def check(content: bytes) -> str:
        path.write_bytes(content)
        try:
            values = read_recipe(path)
        except UsageError as error:
            return one_line(error)
        return configured(values)

    fuzz(broken(tuple(recipe.read_bytes() for recipe in RECIPES)), check, record_property)


@pytest.mark.fault("recipe of wrong values", "")
def test_values_of_recipes(record_property: Record) -> None:
    known = st.fixed_dictionaries(
        {}, optional={word: VALUES for word in ("model", "data", "training", "stages", "y")}
    )
    fuzz(known, configured, record_property)


@pytest.mark.parametrize(
    "content", ["a = " + "[" * 5000, "a = " + "{b=" * 5000, "a = " + "9" * 5000, "a.b = 1\na = 2"]
)
def test_deep_and_long_recipes(content: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(UsageError) as caught:
        build(read_recipe(tmp_path / "recipe.toml"))
    one_line(caught.value)


# --- Weights ------------------------------------------------------------------------------------------------


@cache
def weights() -> bytes:
    """A tiny model's `model.safetensors`."""
    config = build({"model": {"features": (8,), "time_embedding": 8, "blocks": 1, "attention": 0}})
    tensors = {key: value.half().contiguous() for key, value in UNet(config.model).state_dict().items()}
    return safetensors.torch.save(tensors, {"format": "photochrom-1", "config": config.model_dump_json()})


def with_header(header: bytes) -> bytes:
    """The weights with another header."""
    (length,) = struct.unpack("<Q", weights()[:8])
    return struct.pack("<Q", len(header)) + header + weights()[8 + length :]


def header() -> dict[str, Any]:
    (length,) = struct.unpack("<Q", weights()[:8])
    return dict(json.loads(weights()[8 : 8 + length]))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header that is still JSON, but describes one tensor wrongly or carries another configuration."""
    said = header()
    key = draw(st.sampled_from(sorted(said)))
    if key == "__metadata__":
        config = json.loads(said[key]["config"])
        config[draw(st.sampled_from(sorted(config)))] = draw(VALUES)
        section, field = draw(st.sampled_from([("model", "features"), ("model", "blocks"), ("data", "size")]))
        if isinstance(config[section], dict):
            config[section][field] = draw(VALUES | st.lists(st.integers(1, 1000).map(lambda n: 8 * n)))
        said[key]["config"] = json.dumps(config)
    else:
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        numbers = st.integers(0, 100) | st.integers(0, 2**70) | st.integers()
        said[key][field] = draw(
            st.sampled_from(["F64", "F32", "BF16", "I8", "BOOL", "F8_E4M3", "C64", "F4", "X"])
            if field == "dtype"
            else st.lists(numbers, max_size=5) | VALUES
        )
    return with_header(json.dumps(said).encode())


def load(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            Colorizer.load(path)
        except PhotochromError as error:
            return one_line(error)
    return "read"


@pytest.mark.fault("broken model.safetensors", "")
def test_weights(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / model_folder.WEIGHTS

    def check(content: bytes) -> str:
        path.write_bytes(content)
        return load(path)

    fuzz(broken((weights(),)) | headers(), check, record_property)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        with_header(b"[" * 100_000),
        with_header(json.dumps({**header(), "__metadata__": {"config": "[" * 100_000}}).encode()),
        with_header(json.dumps({**header(), "__metadata__": {"config": '{"stages": []}'}}).encode()),
        *(
            with_header(
                json.dumps({**header(), "__metadata__": {"config": json.dumps({"model": model})}}).encode()
            )
            for model in ({"features": [80_000]}, {"features": [8] * 40}, {"time_embedding": 10**7})
        ),
    ],
    ids=["endless", "long", "deep", "deep-config", "wrong-config", "wide", "many-levels", "long-embedding"],
)
def test_weights_that_ask_for_too_much(content: bytes, tmp_path: Path) -> None:
    """A network of 80,000 features would take 200 GB."""
    (tmp_path / model_folder.WEIGHTS).write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load(tmp_path / model_folder.WEIGHTS) == "refused in one line"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEMORY_MB


# --- Checkpoints --------------------------------------------------------------------------------------------


@cache
def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save(
        {"model_state_dict": {"a": torch.arange(20.0)}, "config": {}, "history": [{"epoch": 1}]}, stream
    )
    return stream.getvalue()


@pytest.mark.fault("broken checkpoint", "")
def test_checkpoints(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / model_folder.LAST

    def check(content: bytes) -> str:
        path.write_bytes(content)
        try:
            found = model_folder.read_checkpoint(path)["model_state_dict"]["a"]
        except PhotochromError as error:
            return one_line(error)
        assert torch.equal(found, torch.arange(20.0))
        return "read, every number right"

    fuzz(broken((checkpoint(),)), check, record_property)


@pytest.mark.fault("broken configuration or history of a model", "")
def test_model_folders(tmp_path: Path, record_property: Record) -> None:
    folder = ModelFolder(tmp_path)
    wholes = (build({}).model_dump_json().encode(), Path(HISTORIES[0]).read_bytes())

    def check(content: bytes) -> str:
        for file in (model_folder.CONFIG, model_folder.HISTORY):
            (folder / file).write_bytes(content)
        outcome = "refused in one line"
        for read in (lambda: folder.config, lambda: folder.history):
            try:
                read()
                outcome = "read"
            except PhotochromError as error:
                one_line(error)
        return outcome

    fuzz(broken(wholes), check, record_property)


# --- Records: JSON that anybody may have written ------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["epoch", "stage", "val_loss", "rows", "model", "data", "value", "a.png", "photo", "files", "subjects"]
)
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def replaced(draw: st.DrawFn, whole: Any) -> Any:
    """A record of which one value, somewhere in it, is any other."""
    if not isinstance(whole, (dict, list)) or not whole or not draw(st.integers(0, 3)):
        return draw(ANY_JSON)
    if isinstance(whole, list):
        place = draw(st.integers(0, len(whole) - 1))
        return [*whole[:place], draw(replaced(whole[place])), *whole[place + 1 :]]
    key = draw(st.sampled_from(sorted(whole)))
    return whole | {key: draw(replaced(whole[key]))}


RECORDS = {
    name: json.loads((SHIPPED / "photochrom-fast" / name).read_text())
    for name in (model_folder.CONFIG, model_folder.HISTORY, EVALUATION)
} | {"report.json": {"subjects": {"good": {}, "bad": {}}}, ".trainer": 1}


@pytest.mark.fault("any JSON in the records of one model", "the other models are listed")
def test_records_of_models(tmp_path: Path, record_property: Record) -> None:
    models, report = tmp_path / "models", tmp_path / "reports" / "one"
    for name in ("good", "bad"):
        shutil.copytree(SHIPPED / "photochrom-fast", models / name)
    report.mkdir(parents=True)
    (report / "report.html").touch()

    def check(record: tuple[str, Any]) -> str:
        name, value = record
        file = (report if name == "report.json" else models / "bad") / name
        before = file.read_bytes() if file.exists() else None
        file.write_text(json.dumps(value))
        try:
            catalogue = Catalogue(models, report.parent)
            listed = {fact["name"]: fact for fact in catalogue.all()}
            assert listed["good"].get("error") is None
            if (reason := listed["bad"].get("error")) is None:
                catalogue.details("bad")
            out, told = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
                app(["models", "--models", str(models), "--json"], standalone_mode=False)
            names = {fact["name"] for fact in json.loads(out.getvalue())}
            assert names >= {"good"}
            assert "bad" in names or len(told.getvalue().splitlines()) == 1
        except PhotochromError as error:
            return one_line(error)
        finally:
            file.unlink() if before is None else file.write_bytes(before)
        return "read" if reason is None else "named and left out"

    inputs = st.one_of(*(st.tuples(st.just(name), replaced(whole)) for name, whole in RECORDS.items()))
    fuzz(inputs, check, record_property)


@pytest.mark.fault("any JSON in the record of an album", "")
def test_records_of_albums(tmp_path: Path, record_property: Record) -> None:
    output = tmp_path / "a.png"
    output.write_bytes(b"of a person")
    whole = {"a.png": {"photo": [3, 5], "how": "x", "files": {"a.png": [1, 2]}}}

    def check(value: Any) -> str:
        (tmp_path / manifest.FILE).write_text(json.dumps(value))
        record = manifest.Record(tmp_path, {})
        assert not record.is_current(tmp_path / "photo.png", output, [output])
        if record.problem:
            assert "\n" not in record.problem
            assert not record.is_ours(output, [output])  # a person's file is safe from what nobody can read
        return "nothing is taken for ours" if record.problem else "read"

    fuzz(replaced(whole), check, record_property)
