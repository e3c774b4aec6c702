"""Whatever clients do, and in whatever order, the server goes on colouring."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from photochrom.server import Settings
from tests.server.talking import Address, listening, multipart, photo, until

CLIENTS = 8
PATIENCE = 20.0  # seconds without an answer that count as a hang; a photo's own limit is 0.3 s


class Client(threading.Thread):
    """Does to a server, one after the other and by chance, all that clients do."""

    def __init__(self, server: Address, orders: int, seed: int, pause: float = 0.0) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self.server, self.orders, self.random, self.pause = server, orders, random.Random(seed), pause
        self.did: Counter[str] = Counter()
        self.fault: BaseException | None = None

    def run(self) -> None:
        kinds = (self.posts, self.closes, self.cancels, self.reads_slowly, self.times_out, self.tears)
        try:
            for _ in range(self.orders):
                kind = self.random.choice(kinds)
                with contextlib.closing(self.connect()) as line:
                    kind(line)
                self.did[kind.__name__] += 1
                time.sleep(self.pause)
        except BaseException as error:
            self.fault = error

    def finished(self) -> Counter[str]:
        """Wait for it to end, and answer what it did."""
        self.join(10 * PATIENCE)
        assert not self.is_alive(), f"{self.name} hangs"
        assert self.fault is None, self.fault
        return self.did

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.server.host, self.server.port, timeout=PATIENCE)

    def send(self, line: http.client.HTTPConnection, path: str, **fields: str) -> None:
        content = photo(seed=self.random.randrange(9))
        body, headers = multipart(
            content, **{"model": self.random.choice(("old", "new")), "steps": "2"} | fields
        )
        line.request("POST", path, body, headers)

    def answer(self, line: http.client.HTTPConnection, *statuses: int) -> http.client.HTTPResponse:
        response = line.getresponse()
        assert response.status in statuses, response.read()
        return response

    def wait(self) -> None:
        time.sleep(self.random.choice((0, 0, 0.001, 0.01, 0.05)))

    def posts(self, line: http.client.HTTPConnection) -> None:
        self.send(line, "/api/colorize", seed=str(self.random.randrange(3)))
        self.answer(line, 200, 503, 504).read()

    def closes(self, line: http.client.HTTPConnection) -> None:
        self.send(line, self.random.choice(("/api/colorize", "/api/jobs")))
        self.wait()

    def times_out(self, line: http.client.HTTPConnection) -> None:
        self.send(line, "/api/colorize", steps="50", detail="256")
        self.answer(line, 200, 503, 504).read()

    def tears(self, line: http.client.HTTPConnection) -> None:
        body, headers = multipart(photo(), model="old")
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = (
            f"POST /api/colorize HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n"
        )
        with socket.create_connection(self.server[:2], timeout=PATIENCE) as wire:
            wire.sendall(head.encode() + body[: self.random.randrange(len(body))])
            self.wait()

    def new_job(self, line: http.client.HTTPConnection) -> str | None:
        self.send(
            line, "/api/jobs", steps=self.random.choice(("2", "50")), detail=self.random.choice(("16", "256"))
        )
        response = self.answer(line, 202, 503)
        response.read()
        return response.headers["location"]

    def cancels(self, line: http.client.HTTPConnection) -> None:
        if place := self.new_job(line):
            self.wait()
            line.request("DELETE", place)
            self.answer(line, 204).read()

    def reads_slowly(self, line: http.client.HTTPConnection) -> None:
        if place := self.new_job(line):
            line.request("GET", f"{place}/events")
            response = self.answer(line, 200)
            for _ in range(self.random.randrange(6)):
                response.read(40)
                self.wait()


def ask(server: Address, path: str) -> tuple[int, dict[str, object]]:
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)) as line:
        line.request("GET", path)
        response = line.getresponse()
        return response.status, json.loads(response.read())


def colours(server: Address) -> bool:
    """Whether a photo is coloured now. On a loaded machine its limit of 0.3 s may end it: ask again."""
    client = Client(server, 0, 0)
    with contextlib.closing(client.connect()) as line:
        client.send(line, "/api/colorize")
        answer = client.answer(line, 200, 504)
        answer.read()
        return answer.status == 200


@pytest.mark.fault(
    "random orders of post, cancel, close, slow reader and time-out by 8 clients", "colours on"
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_order_of_things_ends_the_colouring(
    settings: Settings, tries: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    orders, done = tries(100, 500), 0
    did: Counter[str] = Counter()
    with listening(replace(settings, job_seconds=0.3, queue_photos=16)) as server:
        while done < orders:
            clients = [Client(server, -(-100 // CLIENTS), done + number) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                did += client.finished()
            # Whose only task is settled while a batch is gathered.
            alone = Client(server, 20, done + CLIENTS, pause=0.05)
            alone.start()
            did += alone.finished()
            done = did.total()
            until(lambda: ask(server, "/api/health")[1].get("waiting") == 0, PATIENCE)
            until(lambda: ask(server, "/api/health")[1].get("running") == 0, PATIENCE)
            assert ask(server, "/api/health")[0] == 200
            until(lambda: colours(server), PATIENCE)
    record_property("tries", done)
    assert set(did) == {"posts", "closes", "cancels", "reads_slowly", "times_out", "tears"}
