"""ONNX files: they give the colours that torch gives, and are refused where they cannot."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photochrom import model_folder
from photochrom.coloring import colorizer
from photochrom.coloring.colorizer import Colorizer
from photochrom.coloring.options import Hint
from photochrom.config import build
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import UNet
from photochrom.errors import PhotochromError, UsageError
from photochrom.model_folder import ModelFolder
from tests.making import SMALL, make_model
from tests.running import heard

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from photochrom.coloring.onnx import compared, read_onnx, write_onnx  # noqa: E402 (after what it needs)


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> ModelFolder:
    """A copy of the model without encoder, for one test to change."""
    return ModelFolder(Path(shutil.copytree(exported / "none", tmp_path / "own")))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch convolves in float32, whatever is faster here."""
    monkeypatch.setattr(colorizer, "bfloat16_is_faster", lambda: False)


def photo(size: tuple[int, int] = (24, 16), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("name", ["none", "vgg16"])
def test_any_batch_and_size_gives_what_torch_gives(exported: Path, name: str) -> None:
    config, ported = read_onnx(exported / name / model_folder.ONNX)
    saved, tensors = model_folder.read_weights(exported / name / model_folder.WEIGHTS)
    assert config == saved
    network, encoder = UNet.load(config.model, tensors, Path()), Encoder.of(config.model)
    for photos, height, width in ((1, 4, 4), (2, 8, 20), (7, 64, 16), (1, 100, 36)):
        y = torch.rand(photos, 1, height, width) * 2 - 1
        xt, t = torch.randn(photos, 2, height // 2, width // 2), torch.tensor([height])
        features = encoder(y) if encoder else []
        expected = network(xt, t, y, features)
        assert expected.std() > 0.05  # or there would be nothing to compare
        torch.testing.assert_close(ported(xt, t, y, features), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["none", "vgg16"])
@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "ddim", "temperature": 0.5},
        {"sampler": "dpm++", "hints": [Hint(3, 4, (200, 40, 40))], "strength": 1.3},
        {
            "sampler": "ddpm",
            "keep_gray": photo((24, 16), 5),
            "like": Image.new("RGB", (8, 8), (200, 120, 40)),
        },
    ],
)
@pytest.mark.usefixtures("exact")
def test_photos_get_the_same_colours(exported: Path, name: str, options: dict[str, Any]) -> None:
    first = Colorizer.load(name, exported, "cpu")(photo(), steps=5, seed=3, **options)
    second = Colorizer.load(name, exported, engine="onnx")(photo(), steps=5, seed=3, **options)
    assert len(np.unique(np.asarray(first).std(axis=-1))) > 1  # there are colours
    assert apart(first, second) <= 1


@pytest.mark.usefixtures("exact")
def test_the_file_alone_colours_photos_of_several_sizes(exported: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(exported / "vgg16" / model_folder.ONNX, tmp_path / "alone.onnx"))
    photos = [photo((24, 16)), photo((16, 40), 1), photo((24, 16), 2)]
    expected = Colorizer.load("vgg16", exported, "cpu")(photos, steps=3)
    for one, other in zip(expected, Colorizer.load(alone)(photos, steps=3), strict=True):
        assert apart(one, other) <= 1


@pytest.mark.usefixtures("exact")
def test_from_the_command_line(own: ModelFolder, tmp_path: Path) -> None:
    photo().save(tmp_path / "old.png")
    alone = shutil.copy(own / model_folder.ONNX, tmp_path / "alone.onnx")
    ways: dict[str, tuple[str | Path, ...]] = {
        "torch": ("--model", own.path),
        "onnx": ("--model", own.path, "--engine", "onnx"),
        "file": ("--model", alone, "--json"),
    }
    found = {}
    for name, way in ways.items():
        said = heard("colorize", tmp_path / "old.png", "-o", tmp_path / f"{name}.png", *way)
        assert said.code == 0
        found[name] = Image.open(tmp_path / f"{name}.png")
    assert json.loads(said.out)["model"] == "alone"
    assert apart(found["onnx"], found["file"]) == 0
    assert apart(found["onnx"], found["torch"]) <= 1


def test_another_network_than_torch_has_is_noticed(exported: Path) -> None:
    config, tensors = model_folder.read_weights(exported / "none" / model_folder.WEIGHTS)
    content = (exported / "none" / model_folder.ONNX).read_bytes()
    network = UNet.load(config.model, tensors, Path())
    assert len(compared(network, content)) == 2
    for bias, told in ((0.002, r"0\.002"), (torch.nan, "nan")):
        tensors["head.2.bias"] += bias
        with pytest.raises(
            PhotochromError, match=f"differs from torch by {told} at 16x16, .* nothing was written"
        ):
            compared(network, content)


def test_torn_files_are_named(own: ModelFolder) -> None:
    whole = (own / model_folder.ONNX).read_bytes()
    for content in (b"", b"GIF89a", whole[: len(whole) // 2], whole[:-1], whole[100:]):
        (own / model_folder.ONNX).write_bytes(content)
        with pytest.raises(PhotochromError, match=r"model\.onnx (is damaged|was not written by Photochrom)"):
            Colorizer.load(own.path, engine="onnx")


def test_files_of_other_programs_and_networks_are_refused(exported: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "other", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PhotochromError, match=r"other\.onnx was not written by Photochrom"):
        read_onnx(tmp_path / "other.onnx")
    helper.set_model_props(model, {"config": build({}).model_dump_json()})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PhotochromError, match="takes a: this does not fit its configuration"):
        read_onnx(tmp_path / "other.onnx")
    helper.set_model_props(model, {"config": "{"})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PhotochromError, match=r"the configuration in .* cannot be read"):
        read_onnx(tmp_path / "other.onnx")


def test_a_model_that_was_trained_on_is_exported_again(own: ModelFolder, tmp_path: Path) -> None:
    kept = Path(shutil.copy(own / model_folder.ONNX, tmp_path / "epoch1.onnx"))
    make_model(own, {"model": SMALL}, seed=1)
    with pytest.raises(PhotochromError, match=r"does not have the weights of .* --overwrite"):
        Colorizer.load(own.path, engine="onnx")
    Colorizer.load(kept)  # a file of its own stays what it is


def test_wrong_engines_are_refused(exported: Path, tmp_path: Path) -> None:
    file = exported / "none" / model_folder.ONNX
    make_model(ModelFolder(tmp_path / "unexported"), {"model": SMALL})
    wrong: tuple[tuple[type[PhotochromError], str, dict[str, Any]], ...] = (
        (UsageError, "unknown engine 'tensorrt': choose one of torch, onnx", {"engine": "tensorrt"}),
        (UsageError, "is for the engine onnx, not for torch", {"model": file, "engine": "torch"}),
        (
            UsageError,
            "is for the engine torch, not for onnx",
            {"model": file.with_name(model_folder.WEIGHTS), "engine": "onnx"},
        ),
        (UsageError, "device 'cuda': ONNX files run on the CPU", {"model": file, "device": "cuda"}),
        (
            PhotochromError,
            r"no .*model\.onnx: write it with photochrom export",
            {"model": tmp_path / "unexported", "engine": "onnx"},
        ),
        (PhotochromError, r"no .*missing\.onnx: write it", {"model": tmp_path / "missing.onnx"}),
    )
    for error, message, arguments in wrong:
        with pytest.raises(error, match=message):
            Colorizer.load(**{"model": "none", "models": exported, **arguments})


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_libraries(exported: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    message = rf"ONNX files need {library}, .* pip install 'photochrom\[onnx\]'"
    with pytest.raises(PhotochromError, match=message):
        write_onnx(exported / "none" / model_folder.WEIGHTS, exported / "other.onnx")
    Colorizer.load("none", exported, "cpu")
    if library == "onnxruntime":
        with pytest.raises(PhotochromError, match=message):
            Colorizer.load("none", exported, engine="onnx")
    else:
        Colorizer.load("none", exported, engine="onnx")  # colouring needs nothing but onnxruntime


@pytest.mark.usefixtures("exact")
def test_the_file_holds_an_encoder_that_the_model_trained(tmp_path: Path) -> None:
    """The colours are those of torch, and not those of the encoder of the package."""
    values = {"model": {**SMALL, "encoder": "lite0", "train_encoder": True, "chroma_scale": 4}}
    folder = make_model(ModelFolder(tmp_path / "trained"), values)
    config, tensors = model_folder.read_weights(folder / model_folder.WEIGHTS)
    assert any(key.startswith("encoder.") for key in tensors)
    alone = tmp_path / "alone.onnx"
    write_onnx(folder / model_folder.WEIGHTS, alone)
    expected = Colorizer.load(folder.path, device="cpu")(photo(), steps=3)
    assert apart(expected, Colorizer.load(alone)(photo(), steps=3)) <= 1
    plain = Colorizer(config, UNet.load(config.model, tensors, alone), "cpu")
    plain.encoder = Encoder(config.model)
    assert apart(expected, plain(photo(), steps=3)) > 3

    program = onnx.load(alone)
    for content in ("", "no base64!", None):
        changed = [entry for entry in program.metadata_props if entry.key == "encoder"]
        if content is None:
            program.metadata_props.remove(changed[0])
        else:
            changed[0].value = content
        onnx.save(program, alone)
        with pytest.raises(PhotochromError, match=r"the encoder in .*alone\.onnx cannot be read"):
            read_onnx(alone)
