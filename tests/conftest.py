"""What all tests share: one thread, two tiny data sets, a tiny configuration, the table of faults."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from PIL import Image
from torch import Tensor

from photochrom import model_folder
from photochrom.data.importing import import_photos
from photochrom.data.pack import Pack
from photochrom.diffusion.vgg16 import VGG16
from photochrom.model_folder import ModelFolder
from photochrom.training import state
from tests.making import SMALL, make_model, sepia, smooth
from tests.running import TINY, Result, Run, call, heard

# Some tests run their own file as a program, which must find this package too.
ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
# Tiny networks lose more to handing work between threads than they gain by it.
torch.set_num_threads(1)
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=10_000, print_blob=True)


@pytest.fixture(autouse=True, scope="session")
def only_own_models(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """No model comes along, so that tests find the models they have made; test_shipped.py takes this back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "SHIPPED", tmp_path_factory.getbasetemp() / "shipped")
        yield


@pytest.fixture(autouse=True, scope="session")
def in_float32() -> Generator[None]:
    """Train in float32, whatever is faster on this machine, so that numbers compare closely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "for_training", lambda wanted: "fp32" if wanted == "auto" else wanted)
        yield


# --- The table of faults: `make reliability` ----------------------------------------------------------------

FAULTS: dict[tuple[str, str], int] = {}  # (fault, outcome) -> tries
MARK = "<!-- From here on written by `make reliability`. -->\n"
HEAD = """
Every row is a test that passed, with the number of times it tried the fault. The same tests run in
`make test`, with fewer tries; `make fuzz` tries the broken files alone.

| fault | tries | outcome |
|---|---|---|
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="many more tries of every fault")
    parser.addoption("--report", type=Path, help="where to write the table of faults")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("thorough" if config.getoption("--thorough") else "tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A passed test marked `fault` counts as one try, or as what it recorded as "tries" and "outcome"."""
    report = yield
    if report.passed and report.when == "call" and (marker := item.get_closest_marker("fault")):
        found: dict[str, Any] = {"outcome": marker.args[1], "tries": 1, **dict(report.user_properties)}
        key = (marker.args[0], found["outcome"])
        FAULTS[key] = FAULTS.get(key, 0) + found["tries"]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [f"| {fault} | {tries:,} | {outcome} |" for (fault, outcome), tries in FAULTS.items()]
    if config.getoption("--thorough"):
        for row in rows:
            terminalreporter.write_line(row)
    if (path := config.getoption("--report")) and not terminalreporter.stats.get("failed"):
        kept = path.read_text(encoding="utf-8").partition(MARK)[0] if path.exists() else ""
        path.write_text(kept + MARK + HEAD + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def tries(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """How many times to try: few in `make test`, many with --thorough."""
    return lambda few, many: many if pytestconfig.getoption("--thorough") else few


def make_pack(factory: pytest.TempPathFactory, photo: Callable[[int], Image.Image]) -> Pack:
    """32 photos, 8 of them to validate."""
    source, destination = factory.mktemp("photos"), factory.mktemp("data") / "tiny"
    for seed in range(32):
        photo(seed).save(source / f"{seed:02}.png")
    import_photos(source, destination, size=16, validation=0.25, test=0.0, workers=1)
    return Pack.open(destination)


@pytest.fixture(autouse=True, scope="module")
def processor(request: pytest.FixtureRequest) -> Generator[None]:
    """All tests are of a processor, whatever this machine has, but those of modules marked `gpu`."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("gpu"):
            patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def vgg_as_read() -> VGG16:
    """VGG16, whose weights take a while to read."""
    return VGG16.load()


@pytest.fixture(scope="module")
def vgg(vgg_as_read: VGG16) -> VGG16:
    """A copy for each module, since a colorizer may turn its encoder into bfloat16."""
    return copy.deepcopy(vgg_as_read)


@pytest.fixture(scope="module")
def one_vgg(vgg: VGG16) -> Generator[None]:
    """All models of a module share one VGG16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", lambda weights=None: vgg)
        yield


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Photos of all colours."""
    return make_pack(tmp_path_factory, smooth)


@pytest.fixture(scope="session")
def models(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that holds one, called tiny. No test changes it."""
    folder = tmp_path_factory.mktemp("models")
    learning = ("--learning-rate", 0.01)  # or nobody could tell its colours from gray
    assert call("train", *TINY, *learning, "--name", "tiny", "--data", pack.folder, "--models", folder) == 0
    return folder


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Result]:
    """A folder with two models, without and with an encoder, and the output of `export`, which is slow."""
    folder = tmp_path_factory.mktemp("exported")
    first, second = (
        make_model(ModelFolder(folder / encoder), {"model": {**SMALL, "encoder": encoder}})
        for encoder in ("none", "vgg16")
    )
    (first / model_folder.ONNX).write_bytes(b"precious")
    replaced = heard("export", first.path, "--format", "onnx", "--overwrite")
    return folder, replaced, heard("export", second.name, "--models", folder, "--json")


@pytest.fixture(scope="session")
def exported(exports: tuple[Path, Result, Result]) -> Path:
    """The folder of these two models and their ONNX files. No test changes it."""
    return exports[0]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return heard


@pytest.fixture
def rgb(pack: Pack) -> Tensor:
    """Four of them, (4,3,16,16)."""
    return pack.rgb(range(4))


@pytest.fixture(scope="session")
def sepia_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Photos of one tint: as easy to learn as photos can be."""
    return make_pack(tmp_path_factory, sepia)


@pytest.fixture(scope="session")
def new_values() -> Callable[[], dict[str, Any]]:
    """Makes what `config.build` takes, for a V1 training of two epochs of three steps each."""
    return lambda: {
        "model": {"features": (8, 16), "time_embedding": 16, "blocks": 1, "attention": 1},
        "diffusion": {"timesteps": 50},
        "data": {},
        "training": {"batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "ema_decay": 0.9},
        "stages": [{"epochs": 2, "perceptual": 0.0}],
    }


@pytest.fixture
def values(new_values: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same, for one test to change."""
    return new_values()
