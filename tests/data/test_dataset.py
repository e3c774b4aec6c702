"""How a data set is found, and that no file can name an address that is then opened."""

from __future__ import annotations

import http.server
import json
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from photochrom import model_folder
from photochrom.data.dataset import find
from photochrom.data.pack import Pack
from photochrom.errors import PhotochromError
from tests.running import TINY, Run

COMMANDS = (
    "pipe://x; touch done; #",
    "pipe:touch done; echo ://",
    "pipe://x\ntouch done\n#",
    "PIPE://x; touch done; #",
    "file:///dev/null; touch done",
    "https://'; touch done; '",
    'https://"; touch done; "',
    "https://`touch done`",
    "https://$(touch done)",
    "https://127.0.0.1:9/x\r\ntouch done\n",
    "s3://bucket/'; touch done; '",
    "gs://bucket/`touch done`",
    "ais://bucket; touch done",
    "hf://x/$(touch done)",
    "htgs://x; touch done",
    "ftp://127.0.0.1:9/; touch done",
    " https://127.0.0.1:9/; touch done",
)


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """The address of a web server that has nothing, and the paths that it was asked for."""
    asked: list[str] = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/set", asked
        server.shutdown()
        thread.join()


class TestAddresses:
    """An address in a stranger's model folder, checkpoint, weights or recipe: nobody opens it."""

    @pytest.mark.fault(
        "address that holds a command, in a file or typed", "no command runs; refused in one line"
    )
    @pytest.mark.parametrize("address", COMMANDS[:6])
    def test_no_address_runs_a_command(self, address: str, run: Run, models: Path) -> None:
        plant(address, models)
        Path("recipe.toml").write_text(f"[data]\nname = {json.dumps(address)}\n")
        commands: list[tuple[str, ...]] = [
            ("evaluate", "stranger", "--device", "cpu"),
            ("evaluate", "stranger", "--data", address),
            ("train", "--from", "stranger", "--name", "mine"),
            ("train", "--from", "stranger", "--name", "mine", "--data", address),
            ("train", *TINY, "--name", "mine", "--recipe", "recipe.toml"),
            ("train", "--name", "stranger", "--models", "models"),
            ("data", "info", address),
        ]
        for words in commands:
            assert run(*words).error, words
            assert not Path("done").exists(), words
        # One that a terminal would obey is not even shown.
        assert run("models", "show", "stranger").code == (0 if address.isprintable() else 1)
        assert not Path("done").exists()

    @pytest.mark.parametrize("typed", [True, False])
    @pytest.mark.parametrize("address", COMMANDS)
    def test_no_place_runs_a_command(
        self, address: str, typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PhotochromError) as refused:
            find(address, tmp_path, typed=typed)
        assert "\n" not in str(refused.value)
        assert list(tmp_path.iterdir()) == []

    def test_only_a_typed_address_is_opened(
        self, visits: tuple[str, list[str]], run: Run, models: Path
    ) -> None:
        address, asked = visits
        plant(address, models)
        Path("recipe.toml").write_text(f"[data]\nname = {json.dumps(address)}\n")
        for words in (
            ("evaluate", "stranger"),
            ("train", "--from", "stranger", "--name", "mine"),
            ("train", *TINY, "--name", "mine", "--recipe", "recipe.toml"),
            ("train", "--name", "stranger"),
        ):
            refused = run(*words)
            assert refused.code != 0, words
            assert f"--data {address}" in refused.error
        assert asked == []
        typed = run("evaluate", "stranger", "--data", address)
        assert "shards.json cannot be read" in typed.error
        assert asked == ["/set/shards.json"]

    @pytest.mark.parametrize(
        "address", ["s3://bucket/set", "gs://b/set", "file:///tmp", "ftp://x/y", "pipe://x"]
    )
    def test_a_scheme_without_a_reader_is_named(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(PhotochromError, match=rf"'{address}' cannot be opened: .* https:// or http://"):
            find(address, tmp_path, typed=True)


def plant(address: str, models: Path) -> None:
    """A model folder called stranger, which names the address wherever a configuration stands."""
    folder = Path(shutil.copytree(models / "tiny", "models/stranger"))
    config = json.loads((folder / "config.json").read_text())
    config["data"]["name"] = address
    (folder / "config.json").write_text(json.dumps(config))
    for file in (model_folder.BEST, model_folder.LAST):
        state = torch.load(folder / file, weights_only=True)
        torch.save(state | {"config": config}, folder / file)
    tensors = safetensors.torch.load_file(folder / model_folder.WEIGHTS)
    metadata = {"format": "photochrom-1", "config": json.dumps(config)}
    safetensors.torch.save_file(tensors, folder / model_folder.WEIGHTS, metadata)
    card = (folder / model_folder.CARD).read_text()
    (folder / model_folder.CARD).write_text(f"{card}\n[data]({address})\n")


class TestPlace:
    """Where a data set lies is kept as it was typed."""

    def test_a_folder_elsewhere_is_found_again(self, run: Run, pack: Pack, tmp_path: Path) -> None:
        elsewhere = Path(shutil.copytree(pack.folder, tmp_path / "my sets" / "holidays"))
        assert run("train", *TINY, "--data", elsewhere, "--name", "first").code == 0
        assert json.loads(Path("models/first/config.json").read_text())["data"]["name"] == str(elsewhere)
        told = run("train", "--name", "first")
        assert told.code == 0
        assert "All epochs are done" in told.err
        assert run("train", "--from", "first", "--name", "second", "--perceptual", 0, "--epochs", 1).code == 0
        told = run("train", "--from", "first", "--name", "second", "--perceptual", 0, "--epochs", 2)
        command = next(line for line in told.err.splitlines() if "photochrom evaluate" in line)
        assert shlex.split(command)[1:] == ["evaluate", "first", "second", "--data", str(elsewhere)]
        assert run("evaluate", "first", "--vgg-photos", 2).code == 0
        card = Path("models/first/README.md").read_text()
        again = next(line for line in card.splitlines() if "photochrom train" in line)
        assert run(*shlex.split(again)[1:], "--models", "again").code == 0
        assert "| data set | holidays, photos" in card

    def test_a_data_set_may_move(self, run: Run, pack: Pack, tmp_path: Path) -> None:
        for place in ("a", "b"):
            shutil.copytree(pack.folder, tmp_path / place / "set")
        assert run("train", *TINY, "--data", "a/set", "--name", "mine").code == 0
        shutil.rmtree("a")
        assert "no data set 'a/set'" in run("train", "--name", "mine").error
        assert run("train", "--name", "mine", "--data", "b/set").code == 0
        assert run("train", *TINY, "--data", "b/set", "--name", "mine").code == 0
        assert json.loads(Path("models/mine/config.json").read_text())["data"]["name"] == "b/set"
