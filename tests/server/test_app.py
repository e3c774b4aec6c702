"""The application: the files of the page and their policy."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from fastapi.testclient import TestClient

import photochrom

PAGE = Path(photochrom.__file__).parent / "server" / "page"


class Links(HTMLParser):
    """What a page loads, and what in it would need an exception from the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [
            value for name in ("src", "href") if (value := values.get(name)) and not value.startswith("#")
        ]
        if (
            tag == "style"
            or (tag == "script" and "src" not in values)
            or any(n == "style" or n.startswith("on") for n in values)
        ):
            self.inline.append(tag)


def test_the_page_comes_with_a_strict_policy_and_keeps_to_it(client: TestClient) -> None:
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    links = Links()
    links.feed(response.text)
    assert not links.inline
    assert "main.js" in links.loads
    for path in links.loads:
        assert "//" not in path
        assert client.get(f"/{path}").headers["x-content-type-options"] == "nosniff"


def test_everything_that_the_page_imports_is_there_and_comes_from_here() -> None:
    for module in PAGE.glob("*.js"):
        text = module.read_text(encoding="utf-8")
        for path in re.findall(r'(?:from|import\()\s*"([^"\s]+)"', text):
            assert (PAGE / path).is_file(), f"{module.name} imports {path}"
        assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert (PAGE / "vendor" / "client-zip.LICENSE.txt").is_file()
    assert "2.5.1" in (PAGE / "README.md").read_text(encoding="utf-8")


def test_nothing_but_the_pages_files_is_served(client: TestClient) -> None:
    assert client.get("/style.css").headers["content-type"].startswith("text/css")
    assert client.get("/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/settings.py", "/../settings.py", "/..%2fsettings.py", "/vendor/"):
        assert client.get(path).status_code == 404
