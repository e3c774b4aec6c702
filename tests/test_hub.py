"""Sharing models on the Hugging Face Hub, against a small local server that speaks its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import photochrom
from photochrom.errors import UsageError
from photochrom.hub import READ, _parsed

SHIPPED = Path(photochrom.__file__).parent / "weights"


class Hub(ThreadingHTTPServer):
    """As much of the Hub as a model needs: repositories whose every commit is a revision."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.commits.get(repo, [])
        found = [each for each in commits if each[0] == revision or revision == "main"]
        return found[-1] if found else None

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        before = self.commits.setdefault(repo, [])
        name = hashlib.sha1(f"{repo}{len(before)}".encode()).hexdigest()
        before.append((name, (before[-1][1] if before else {}) | files))
        return name


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answer(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            if found := self.server.files(repo, revision):
                if "tree" in parts:
                    tree = [
                        {
                            "type": "file",
                            "path": name,
                            "size": len(content),
                            "oid": hashlib.sha1(content).hexdigest(),
                        }
                        for name, content in found[1].items()
                    ]
                    return self.json(tree)
                names = [{"rfilename": name} for name in found[1]]
                return self.json(
                    {"id": repo, "modelId": repo, "sha": found[0], "siblings": names, "tags": []}
                )
        elif parts[2:3] == ["resolve"] and (found := self.server.files("/".join(parts[:2]), parts[3])):
            name = "/".join(parts[4:])
            if name in found[1]:
                tag = hashlib.sha1(found[1][name]).hexdigest()
                return self.answer(200, found[1][name], {"ETag": f'"{tag}"', "X-Repo-Commit": found[0]})
            return self.json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        return self.json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = "/".join(filter(None, (wanted.get("organization") or "me", wanted["name"].split("/")[-1])))
            self.server.commits.setdefault(repo, [])
            return self.json({"url": f"{self.server.address}/{repo}", "name": repo})
        if self.path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---\n")[1]
            return self.json(
                {"errors": [] if yaml.safe_load(front) else [{"message": "empty"}], "warnings": []}
            )
        repo = "/".join(parts[2:4])
        if "preupload" in parts:
            files = json.loads(body)["files"]
            return self.json(
                {
                    "files": [
                        {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for each in files
                    ]
                }
            )
        if "commit" in parts:
            added = {}
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    added[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            name = self.server.commit(repo, added)
            url = f"{self.server.address}/{repo}/commit/{name}"
            return self.json(
                {
                    "success": True,
                    "commitOid": name,
                    "commitUrl": url,
                    "hookOutput": "",
                    "pullRequestUrl": None,
                }
            )
        return self.json({"error": "unknown"}, 404)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Any:
    """`photochrom` in a process of its own, since the Hub's client reads its settings once."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
    }

    def photochrom_(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "photochrom", *map(str, words)]
        environment = os.environ | settings | more
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=120
        )

    return photochrom_


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    from PIL import Image

    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "gray.png")
    return tmp_path / "gray.png"


def test_a_model_goes_to_the_hub_and_colours_from_there(
    hub: Hub, run: Any, tmp_path: Path, gray: Path
) -> None:
    shutil.copytree(SHIPPED / "photochrom-fast", tmp_path / "models" / "mine")
    (tmp_path / "models" / "mine" / "last_model.pth").write_bytes(b"a checkpoint, which stays here")
    pushed = run("models", "push", "mine", "me/my-colours")
    assert pushed.returncode == 0, pushed.stderr
    assert "--model hf:me/my-colours" in pushed.stdout
    (name, files) = hub.commits["me/my-colours"][-1]
    assert set(files) == {*READ, "README.md", "loss_curve.png"}
    _, front, text = files["README.md"].decode().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["pipeline_tag"], facts["library_name"]) == ("image-to-image", "photochrom")
    assert "ciede2000" in facts["metrics"]
    assert "photochrom-fast" in text

    here = run("colorize", gray, "-o", "here.png", "--model", "mine", "--average", 1)
    there = run("colorize", gray, "-o", "there.png", "--model", "hf:me/my-colours", "--average", 1)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    assert not any("README" in path or ".png" in path for path in hub.asked if "resolve" in path)

    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    cached = run(
        "colorize", gray, "-o", "cached.png", "--model", "hf:me/my-colours", "--average", 1, **offline
    )
    assert cached.returncode == 0, cached.stderr

    hub.commit("me/my-colours", {"config.json": b"{}"})  # a newer one, which is broken
    pinned = run("colorize", gray, "-o", "pinned.png", "--model", f"hf:me/my-colours@{name}", "--average", 1)
    assert pinned.returncode == 0, pinned.stderr


def test_what_cannot_be_had_is_said_in_one_line(hub: Hub, run: Any, gray: Path) -> None:
    hub.commit("me/other", {"pytorch_model.bin": b"a pickle"})
    for address, reason in (
        ("hf:me/unknown", "no access to hf:me/unknown"),
        ("hf:me/other", "holds no Photochrom model"),
        ("hf:nobody", "write hf:owner/repo"),
    ):
        done = run("colorize", gray, "-o", "out.png", "--model", address)
        assert done.returncode in (1, 2), done.stderr
        assert "Traceback" not in done.stderr
        assert reason in done.stderr.strip().splitlines()[-1]
    assert not any("pytorch_model" in path for path in hub.asked if "resolve" in path)


@pytest.mark.parametrize(
    "address", ["hf:", "hf:a", "hf:a/b/c", "hf:../b", "hf:a/b@", "hf:a/b@../x", "hf:a/b;c", "hf:a/ b"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="write hf:owner/repo"):
        _parsed(address)
