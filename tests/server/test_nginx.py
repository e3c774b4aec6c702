"""Behind Debian's nginx, with the file of docs/guides/run-a-server.md: TLS, a path, uploads and streams."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from photochrom.server import Settings
from tests.server.talking import listening, multipart, opened, photo, until

NGINX, OPENSSL = shutil.which("nginx"), shutil.which("openssl")
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "run-a-server.md"
pytestmark = [
    pytest.mark.skipif(
        not NGINX or not OPENSSL, reason="there is no nginx or no openssl here: apt-get install nginx-light"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Proxy(NamedTuple):
    """A server of nginx before one of ours."""

    port: int
    certificate: Path
    folder: Path

    def ask(self, method: str, path: str, *body: object, **headers: str) -> http.client.HTTPResponse:
        context = ssl.create_default_context(cafile=str(self.certificate))
        line = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=context)
        given = {"Host": "photos.example", **headers}
        content = body[0] if body else None
        line.request(method, path, content, given)  # type: ignore[arg-type]
        return line.getresponse()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(params=["handed on", "taken off"])
def proxy(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """The path is handed on as the guide has it, or taken off as many do."""
    assert NGINX
    assert OPENSSL
    certificate, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    made = [*("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")]
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run([OPENSSL, *made, *names], check=True, capture_output=True)
    own = replace(settings, hosts=("photos.example",), root_path="/colours", heartbeat_seconds=0.2)
    with listening(own) as server:
        block = re.search(
            r"^```nginx\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        assert block
        text = block[1]
        slash = "/" if request.param == "taken off" else ""
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("http://127.0.0.1:8000", f"http://127.0.0.1:{server.port}{slash}"),
            ("/etc/ssl/certs/photos.example.pem", str(certificate)),
            ("/etc/ssl/private/photos.example.key", str(key)),
        ):
            assert old in text
            text = text.replace(old, new)
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{places}{text}}}\n"
        )
        with subprocess.Popen(
            [NGINX, "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL
        ) as process:
            try:
                until(lambda: listens(port))
                yield Proxy(port, certificate, tmp_path)
            finally:
                process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def test_all_works_behind_nginx(proxy: Proxy) -> None:
    page = proxy.ask("GET", "/colours/")
    assert page.status == 200
    assert b"main.js" in page.read()
    assert proxy.ask("GET", "/colours/main.js").status == 200
    content = photo((500, 500), mode="RGB", format="BMP") + bytes(2 * 2**20)  # more than nginx's own limit
    body, headers = multipart(content, model="old", steps="1")
    origin = {"Origin": "https://photos.example", "Sec-Fetch-Site": "same-origin"}
    answer = proxy.ask("POST", "/colours/api/colorize", body, **headers, **origin)
    assert answer.status == 200
    assert opened(answer.read()).size == (500, 500)
    answer = proxy.ask("POST", "/colours/api/jobs", body, **headers)
    place = answer.headers["location"]
    assert place == f"/colours/api/jobs/{json.loads(answer.read())['id']}"
    assert proxy.ask("GET", f"{place}/events").read().endswith(b"\n\n")
    assert json.loads(proxy.ask("GET", place).read())["state"] == "done"
    picture = proxy.ask("GET", f"{place}/tasks/0/pictures/0")
    assert opened(picture.read()).size == (500, 500)
    body, headers = multipart(bytes(4 * 2**20))
    assert proxy.ask("POST", "/colours/api/colorize", body, **headers).status == 413
    assert proxy.ask("GET", "/colours/api/health", Host="other.example").status == 403
    on_disk = [path for path in proxy.folder.glob("*/*") if path.is_file()]
    assert on_disk == []
